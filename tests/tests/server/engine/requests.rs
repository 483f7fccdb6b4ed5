//! What archiving and restoring cost in requests, as a proxy counts them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use archive::{
    Answer, AsStored, Cancel, Compression, Location, MissingSegment, Options, Place, Prefetch, Put,
    RestoreRequest, spawn_plainly,
};
use lab::stores::{Make, Proxy, Store};
use lab::{DEADLINE, Lab, Outcome, run, scenario, wait_for};
use recovery::{Asker, Judge, Phase, Server, TargetTimeline};
use wal::WalFileName;

use super::common::{
    SIZE, SYSTEM, contents, copy_by_hand, must_restore, open, put, segment, with_credentials,
};

/// The default of `walden.restore_prefetch`.
const PREFETCH_DEFAULT: usize = 8;

/// How many of each method.
fn counted(proxy: &Proxy) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in proxy.requests() {
        *counts.entry(request.method).or_default() += 1;
    }
    counts
}

fn segments_cost_one_request_each(make: Make) -> Result<()> {
    scenario(|lab| {
        let store = Store::start(lab, make, "archive")?;
        let proxy = Proxy::to(&store)?;
        let folder = lab.directory("files")?;
        let location = with_credentials(&store, &store.url_through(&proxy, "wal"))?.parse()?;
        let archive = open(&location, Compression::Zstd(1))?;
        put(&archive, &folder, &segment(1)?, 1)?;
        // That nothing is overwritten is tried by many at once: once in an archive's life.
        let opening = proxy.requests().len();
        ensure!(
            opening <= 50,
            "{opening} requests before the first file was archived"
        );

        // An archiver that finds the archive bound: the binding, the proof, whether files are to be encrypted, the segment
        // before, and the file. With several jobs a listing of what lies behind it follows.
        proxy.clear();
        let archive = open(&location, Compression::Zstd(1))?;
        put(&archive, &folder, &segment(2)?, 1)?;
        let counts = counted(&proxy);
        ensure!(counts.values().sum::<usize>() <= 5, "{counts:?}");
        ensure!(counts.get("PUT") == Some(&2), "{counts:?}");

        proxy.clear();
        for number in 3..=102 {
            put(&archive, &folder, &segment(number)?, 1)?;
        }
        let counts = counted(&proxy);
        ensure!(counts.get("PUT") == Some(&100), "{counts:?}");
        // The binding is looked at again after a minute.
        ensure!(counts.values().sum::<usize>() <= 101, "{counts:?}");

        proxy.clear();
        let reader = open(&location, Compression::Zstd(1))?;
        for number in 3..=102 {
            must_restore(&reader, &folder, &segment(number)?, 1)?;
        }
        let counts = counted(&proxy);
        // One for the binding, and one more after a minute.
        ensure!(counts.values().sum::<usize>() <= 102, "{counts:?}");
        ensure!(counts.keys().all(|method| method == "GET"), "{counts:?}");
        Ok(())
    })
}

#[test]
fn on_s3_a_segment_costs_one_request_each_way() -> Result<()> {
    segments_cost_one_request_each(Make::SeaweedFs)
}

#[test]
fn on_azure_a_segment_costs_one_request_each_way() -> Result<()> {
    segments_cost_one_request_each(Make::Azurite)
}

#[test]
fn on_a_fake_of_google_cloud_storage_a_segment_costs_one_request_each_way() -> Result<()> {
    segments_cost_one_request_each(Make::GcsFake)
}

/// Requests of a method for what has this name.
fn about(proxy: &Proxy, method: &str, name: &WalFileName) -> usize {
    let name = name.to_string();
    let requests = proxy.requests().into_iter();
    requests
        .filter(|request| request.method == method && request.path.contains(&name))
        .count()
}

fn an_equal_file_is_not_fetched(make: Make) -> Result<()> {
    scenario(|lab| {
        let store = Store::start(lab, make, "archive")?;
        let proxy = Proxy::to(&store)?;
        let folder = lab.directory("files")?;
        let location: Location =
            with_credentials(&store, &store.url_through(&proxy, "wal"))?.parse()?;
        let (one, two) = (segment(1)?, segment(2)?);
        put(&open(&location, Compression::Zstd(1))?, &folder, &one, 1)?;
        copy_by_hand(&location, &two, 1)?;

        // However the other one compresses.
        let other = open(&location, Compression::Lz4)?;
        proxy.clear();
        ensure!(put(&other, &folder, &one, 1)? == Put::AlreadyStored);
        ensure!(about(&proxy, "HEAD", &one) == 1, "{:?}", proxy.requests());
        ensure!(about(&proxy, "GET", &one) == 0, "{:?}", proxy.requests());

        // What another program has put there has no digest, and other contents are looked at before they are refused.
        proxy.clear();
        ensure!(put(&other, &folder, &two, 1)? == Put::AlreadyStored);
        ensure!(about(&proxy, "GET", &two) == 1, "{:?}", proxy.requests());
        proxy.clear();
        let refused = put(&other, &folder, &one, 2);
        ensure!(
            format!("{refused:?}").contains("first difference at byte"),
            "{refused:?}"
        );
        ensure!(about(&proxy, "GET", &one) == 1, "{:?}", proxy.requests());
        Ok(())
    })
}

#[test]
fn on_s3_an_equal_file_is_recognised_without_fetching_it() -> Result<()> {
    an_equal_file_is_not_fetched(Make::SeaweedFs)
}

#[test]
fn on_azure_an_equal_file_is_recognised_without_fetching_it() -> Result<()> {
    an_equal_file_is_not_fetched(Make::Azurite)
}

#[test]
fn on_a_fake_of_google_cloud_storage_an_equal_file_is_recognised_without_fetching_it() -> Result<()>
{
    an_equal_file_is_not_fetched(Make::GcsFake)
}

/// A standby that has caught up asks for the next segment, and for the next timeline, every few seconds.
fn an_idle_standby_makes_four_requests(make: Make) -> Result<()> {
    scenario(|lab| {
        let store = Store::start(lab, make, "archive")?;
        let proxy = Proxy::to(&store)?;
        let folder = lab.directory("files")?;
        let data = lab.directory("data")?;
        fs::create_dir(data.join("pg_wal"))?;
        let location = with_credentials(&store, &store.url_through(&proxy, "wal"))?.parse()?;
        let archive = open(&location, Compression::Zstd(1))?;
        for number in 1..=5 {
            put(&archive, &folder, &segment(number)?, 1)?;
        }
        let mut judge = Judge::new();
        let standby = Server {
            data_directory: data.clone(),
            phase: Phase::Standby,
            target: TargetTimeline::Latest,
            control: None,
            system: Some(SYSTEM),
            size: Some(SIZE),
            missing_segment: MissingSegment::Error,
        };
        let mut ask = |name| -> Result<()> {
            let question = judge.ask(name, Asker::Recovery(standby.clone()));
            let dest = data.join("pg_wal/RECOVERYXLOG");
            let answer = recovery::restore(&archive, &question, &dest, None, &Cancel::new())?;
            ensure!(answer == Answer::Absent(Vec::new()), "{name}: {answer:?}");
            Ok(())
        };
        // The first round looks at everything, and once a minute another does.
        for round in 0..5 {
            proxy.clear();
            ask(segment(6)?)?;
            ask("00000002.history".parse()?)?;
            let requests = proxy.requests().len();
            ensure!(
                requests <= if round == 0 { 8 } else { 4 },
                "{requests} requests in round {round}: {:?}",
                proxy.requests()
            );
        }
        Ok(())
    })
}

#[test]
fn on_s3_an_idle_standby_makes_four_requests_a_round() -> Result<()> {
    an_idle_standby_makes_four_requests(Make::SeaweedFs)
}

#[test]
fn on_azure_an_idle_standby_makes_four_requests_a_round() -> Result<()> {
    an_idle_standby_makes_four_requests(Make::Azurite)
}

/// How a recovery asks for one segment after the other.
fn replayed(prefetch: &mut Prefetch, place: &Place, folder: &Path, number: u64) -> Result<bool> {
    let name = segment(number)?;
    let dest = folder.join(format!("{name}.replayed"));
    let wanted = RestoreRequest {
        name,
        dest: dest.clone(),
        in_line: true,
        place: place.clone(),
        system: SYSTEM,
        size: SIZE,
        rule: Arc::new(AsStored),
        prefetch_max: PREFETCH_DEFAULT,
        memory_limit: 128 << 20,
    };
    let mut asking = prefetch.ask(wanted)?;
    let answer = wait_for("an answer", DEADLINE, || {
        asking.answer().transpose().map_err(Into::into)
    })?;
    let Answer::Restored { ahead, .. } = answer else {
        anyhow::bail!("{name}: {answer:?}");
    };
    ensure!(
        fs::read(&dest)? == contents(&name, 1)?,
        "{name} has other bytes"
    );
    fs::remove_file(&dest)?;
    Ok(ahead)
}

#[test]
fn a_prefetched_run_of_a_hundred_segments_makes_hardly_more_than_a_hundred_requests() -> Result<()>
{
    scenario(|lab| {
        let store = Store::start(lab, Make::SeaweedFs, "archive")?;
        let proxy = Proxy::to(&store)?;
        let folder = lab.directory("files")?;
        let location: Location =
            with_credentials(&store, &store.url_through(&proxy, "wal"))?.parse()?;
        let archive = open(&location, Compression::Zstd(1))?;
        for number in 1..=100 {
            put(&archive, &folder, &segment(number)?, 1)?;
        }
        proxy.clear();
        let place = Place {
            location,
            options: Options::default(),
        };
        let mut prefetch = Prefetch::new(spawn_plainly, || {});
        let mut ahead = 0;
        for number in 1..=100 {
            ahead += u64::from(replayed(&mut prefetch, &place, &folder, number)?);
        }
        drop(prefetch);
        // Where the run ends is not known before something is looked for behind it.
        let requests = proxy.requests();
        let (behind, run): (Vec<_>, Vec<_>) = requests.iter().partition(|request| {
            let number = (101..=110).find(|number| {
                segment(*number).is_ok_and(|name| request.path.contains(&name.to_string()))
            });
            number.is_some()
        });
        let (run, behind) = (run.len(), behind.len());
        println!(
            "{run} requests, {behind} behind the end, {ahead} of 100 segments were fetched ahead"
        );
        ensure!((100..=102).contains(&run), "{requests:?}");
        ensure!(behind <= PREFETCH_DEFAULT, "{requests:?}");
        ensure!(ahead > 50, "only {ahead} segments were fetched ahead");
        Ok(())
    })
}

/// The names below a directory that a command of ours opens or looks for and that begin like this, as strace(1) sees it.
fn opened(lab: &Lab, below: &Path, beginning: &str, arguments: &[&OsStr]) -> Result<Vec<String>> {
    let seen = lab.dir().join("seen");
    let mut command = lab.command("strace");
    command
        .args(["-f", "-y", "-e", "trace=%file", "-o"])
        .arg(&seen)
        .arg("walden")
        .args(arguments);
    run(&mut command).and_then(Outcome::success)?;
    let seen = fs::read_to_string(&seen)?;
    let here = |line: &&str| line.contains(&*below.to_string_lossy());
    let names = seen.lines().filter(here).filter_map(|line| {
        let name = line.rsplit('"').nth(1)?.rsplit('/').next()?;
        let asks = line.contains("open") || line.contains("stat") || line.contains("access");
        (asks && name.starts_with(beginning)).then(|| name.to_owned())
    });
    Ok(names.collect())
}

#[test]
fn in_a_directory_a_segment_is_looked_for_under_its_one_name_each_way() -> Result<()> {
    scenario(|lab| {
        let archive = lab.directory("archive")?;
        let folder = lab.directory("files")?;
        let (bound, name) = (segment(1)?, segment(2)?);
        let key = name.to_string();
        let walden = |verb: &str, rest: &[&Path]| {
            let place = [OsStr::new(verb), OsStr::new("-A"), archive.as_os_str()];
            let all: Vec<_> = place
                .into_iter()
                .chain(rest.iter().map(|path| path.as_os_str()))
                .collect();
            opened(lab, &archive, &key, &all)
        };
        for name in [&bound, &name] {
            fs::write(folder.join(name.to_string()), contents(name, 1)?)?;
        }
        walden("archive", &[&folder.join(bound.to_string())])?;
        // It is opened and looked at, which shows that it is not there, and created under this name.
        let stored = walden("archive", &[&folder.join(&key)])?;
        ensure!(stored == [key.clone(), key.clone()], "{stored:?}");
        let restored = walden("restore", &[Path::new(&key), &folder.join("RECOVERYXLOG")])?;
        ensure!(restored == [key.clone()], "{restored:?}");
        Ok(())
    })
}
