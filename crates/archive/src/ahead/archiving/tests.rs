//! Archiving ahead, played through with a server's part that is as simple as the server's own loop. The file is long because each
//! promise has a test.

mod scene;

use super::*;
use crate::ahead::pool::Work;
use crate::{Faults, FaultyStore, Options};
use scene::*;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn every_segment_is_archived_once_at_any_number_of_jobs_and_rate_of_faults() {
    for jobs in [1, 4, 16] {
        for (seed, per_mille) in [(11, 0), (12, 10), (13, 50)] {
            let faults = Faults::seeded(seed, per_mille);
            let around = faults.clone();
            let scene = Scene::over(jobs, |store| {
                Box::new(FaultyStore::new(Box::new(store), around))
            });
            let names = scene.backlog(16);
            for name in &names {
                let begun = Instant::now();
                // The server tries again what has failed; how often is not the point here.
                while let Err(error) = scene.archive(name, LONG) {
                    assert!(
                        error.kind().may_work_later(),
                        "jobs {jobs}, seed {seed}: {error}"
                    );
                    assert!(begun.elapsed() < LONG, "jobs {jobs}, seed {seed}: {error}");
                }
            }
            faults.stop();
            assert!(per_mille == 0 || faults.injected() > 0);
            let wanted: Vec<_> = names.iter().map(ToString::to_string).collect();
            assert_eq!(scene.keys(), wanted, "jobs {jobs}, seed {seed}");
            let archive = Archive::with_store(Box::new(scene.store.clone()), Options::default());
            for name in &names {
                let dest = scene.wal.path().join("restored");
                archive
                    .get(name, &dest, Some(SYSTEM), &crate::Cancel::new())
                    .unwrap();
                assert_eq!(
                    fs::read(&dest).unwrap(),
                    fs::read(scene.path(name)).unwrap()
                );
                fs::remove_file(dest).unwrap();
            }
        }
    }
}

#[test]
fn where_files_are_sent_the_next_ones_are_archived_while_the_server_waits_for_this_one() {
    let gate = Gate::default();
    let scene = Scene::far(4, held_at(segment(2), &gate));
    let names = scene.backlog(10);
    // The first one alone: then it is known that nothing lies behind it.
    assert!(scene.archive(&names[0], LONG).is_ok());
    std::thread::scope(|threads| {
        let second = threads.spawn(|| scene.archive(&names[1], LONG));
        names[2..5].iter().for_each(|name| scene.until_stored(name));
        gate.open();
        assert!(second.join().unwrap().is_ok());
    });
    // Stored and told are two moments; the second one follows at once.
    for name in &names[2..] {
        assert!(matches!(scene.archive(name, LONG), Ok(Put::Stored { .. })));
    }
}

#[test]
fn where_files_are_staged_the_next_ones_are_written_meanwhile_and_appear_in_order() {
    let (gate, staged) = (Gate::default(), Arc::new(Mutex::new(Vec::new())));
    let (entered, seen) = (gate.clone(), Arc::clone(&staged));
    let scene = Scene::over(4, move |inner| {
        hooked(inner, move |key: &str| {
            seen.lock().unwrap().push(key.to_owned());
            if key == segment(1).to_string() {
                entered.pass();
            }
        })
    });
    let names = scene.backlog(10);
    std::thread::scope(|threads| {
        let first = threads.spawn(|| scene.archive(&names[0], LONG));
        let begun = Instant::now();
        while !names[..4]
            .iter()
            .all(|name| staged.lock().unwrap().contains(&name.to_string()))
        {
            assert!(begun.elapsed() < LONG, "{staged:?}");
            std::thread::yield_now();
        }
        assert_eq!(scene.keys(), Vec::<String>::new());
        gate.open();
        assert!(first.join().unwrap().is_ok());
    });
    for name in &names[1..] {
        assert!(matches!(scene.archive(name, LONG), Ok(Put::Stored { .. })));
    }
}

/// Archives until one fails; how many were, and the failure.
fn until_refused(scene: &Scene, names: &[WalFileName]) -> (usize, Error) {
    for (number, name) in names.iter().enumerate() {
        if let Err(error) = scene.archive(name, LONG) {
            return (number, error);
        }
    }
    panic!("all of them were archived");
}

/// The other server's segments from one to another, variants of their own.
fn others(scene: &Scene, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let name = segment(number);
        let own = name.segment().unwrap();
        let bytes = crate::suite::fixtures::segment(own, scene::megabyte(), SYSTEM, 1000 + number);
        scene.store.overwrite(&name.to_string(), &bytes);
    }
}

#[test]
fn behind_a_file_that_is_refused_none_of_the_same_server_appears() {
    for far in [false, true] {
        for jobs in [1, 4, 8] {
            let scene = if far {
                Scene::far(jobs, |store| Box::new(store))
            } else {
                Scene::over(jobs, |store| Box::new(store))
            };
            let names = scene.backlog(12);
            // The right server has archived 3 to 5; 1 and 2 are from before they were two.
            others(&scene, 3..=5);
            let (number, error) = until_refused(&scene, &names);
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
            assert_eq!(number, 2, "far {far}, {jobs} jobs: {error}");
            assert!(scene.archive(&names[number], LONG).is_err());
            let mine = (1..=2).map(segment).chain((3..=5).map(segment));
            let wanted: Vec<_> = mine.map(|name| name.to_string()).collect();
            assert_eq!(scene.keys(), wanted, "far {far}, {jobs} jobs");
        }
    }
}

#[test]
fn between_a_refusal_and_the_next_question_nothing_is_begun_behind_the_file() {
    for far in [false, true] {
        let mut queue = Queue::new(!far, Clock::given());
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &WalFileName| folder.path().join(name.to_string());
        let (first, behind) = (segment(1), segment(2));
        let deadline = Instant::now() + LONG;
        assert_eq!(queue.ask(&first, &path(&first), deadline, 4), None);
        let begun = begun(&mut queue).unwrap();
        assert_eq!(begun.name, first);
        let refused = Error::conflict("other bytes");
        queue.ended(&begun, Outcome::Ended(Err(refused)));
        assert!(matches!(queue.answer(&first), Some(Err(_))));
        // The server's list is read again, and holds both of them.
        let status = folder.path().join("archive_status");
        fs::create_dir(&status).unwrap();
        for name in [&first, &behind] {
            fs::write(status.join(format!("{name}.ready")), "").unwrap();
        }
        queue.ready_names(Reading::of(&status));
        assert!(
            !matches!(queue.next_job(), Some(Turn::Archive(_))),
            "far {far}"
        );
        // Asked for once more, it is tried at once.
        assert_eq!(queue.ask(&first, &path(&first), deadline, 4), None);
        assert!(matches!(queue.next_job(), Some(Turn::Archive(job)) if job.name == first));
    }
}

#[test]
fn behind_a_file_that_is_sent_fewer_are_begun_than_there_are_jobs() {
    let mut queue = Queue::new(false, Clock::given());
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &WalFileName| folder.path().join(name.to_string());
    let status = folder.path().join("archive_status");
    fs::create_dir(&status).unwrap();
    let names: Vec<_> = (1..=9).map(segment).collect();
    for name in &names {
        fs::write(path(name), "").unwrap();
        fs::write(status.join(format!("{name}.ready")), "").unwrap();
    }
    let ask = |queue: &mut Queue, name| {
        assert_eq!(queue.ask(name, &path(name), Instant::now(), 4), None);
    };
    let ended = |queue: &mut Queue, job: &Job| {
        let identity = crate::pg_wal::source::Identity::at(&path(&job.name)).unwrap();
        queue.ended(job, Outcome::Ended(Ok((Put::AlreadyStored, identity))));
    };
    // The first one goes alone, and nothing lies behind it.
    ask(&mut queue, &names[0]);
    let first = begun(&mut queue).unwrap();
    assert_eq!(first.name, names[0]);
    queue.looked_behind(&names[0], Some(false));
    ended(&mut queue, &first);
    assert!(matches!(queue.answer(&names[0]), Some(Ok(_))));
    // The second one takes long, and the others do not.
    ask(&mut queue, &names[1]);
    let second = begun(&mut queue).unwrap();
    assert_eq!(second.name, names[1]);
    for name in &names[2..5] {
        let job = begun(&mut queue).unwrap();
        assert_eq!(job.name, *name);
        ended(&mut queue, &job);
    }
    assert!(begun(&mut queue).is_none());
    ended(&mut queue, &second);
    assert_eq!(begun(&mut queue).unwrap().name, names[5]);
}

/// The next file that is begun.
fn begun(queue: &mut Queue) -> Option<Job> {
    loop {
        match queue.next_job()? {
            Turn::Archive(job) => return Some(job),
            Turn::Read(status) => queue.ready_names(Reading::of(&status)),
        }
    }
}

#[test]
fn the_first_file_of_a_run_must_follow_what_is_stored_before_it() {
    for far in [false, true] {
        let scene = if far {
            Scene::far(4, |store| Box::new(store))
        } else {
            Scene::over(4, |store| Box::new(store))
        };
        let names = scene.backlog(12);
        // The other server is behind this one: no name of theirs is the same any more.
        others(&scene, 1..=5);
        let error = scene.archive(&names[5], LONG).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.to_string().contains("does not follow archive file"));
        assert!(error.hint().is_some());
        assert_eq!(scene.keys().len(), 5);
    }
}

#[test]
fn a_segment_behind_one_that_was_never_offered_must_follow_what_is_stored() {
    for far in [false, true] {
        let scene = if far {
            Scene::far(1, |store| Box::new(store))
        } else {
            Scene::over(1, |store| Box::new(store))
        };
        let names = scene.backlog(6);
        scene.archive(&names[0], LONG).unwrap();
        // The server has no note of its third one, and another server has archived that name.
        scene.archive(&names[1], LONG).unwrap();
        others(&scene, 3..=3);
        let error = scene.archive(&names[3], LONG).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.to_string().contains("does not follow archive file"));
        assert_eq!(scene.keys().len(), 3);
        // Where nothing is stored before it there is nothing to say.
        scene.archive(&names[5], LONG).unwrap();
        assert_eq!(scene.archiving.note(), None);
    }
}

#[test]
fn what_cannot_be_compared_with_the_segment_before_is_archived_with_a_warning() {
    let scene = Scene::far(4, |store| Box::new(store));
    let names = scene.backlog(6);
    others(&scene, 1..=3);
    // The one before is missing, or damaged; the server has recycled its own.
    for (number, said) in [(5_usize, "that is missing"), (4, "is damaged or cut short")] {
        let scene = Scene::far(1, |store| Box::new(store));
        scene.backlog(6);
        others(&scene, 1..=3);
        if number == 4 {
            scene
                .store
                .overwrite(&names[3].to_string(), b"\x28\xb5\x2f\xfd cut");
        }
        fs::remove_file(scene.path(&names[number - 1])).unwrap();
        scene.archive(&names[number], LONG).unwrap();
        let note = scene.archiving.note();
        assert!(
            matches!(&note, Some(ArchivingNote::Warning(text)) if text.contains(said)),
            "{note:?}"
        );
        assert_eq!(scene.archiving.note(), None);
    }
}

#[test]
fn with_one_job_nothing_is_begun_that_nobody_has_asked_for() {
    let scene = Scene::new(1);
    let names = scene.backlog(5);
    for (number, name) in names.iter().enumerate() {
        assert!(scene.archive(name, LONG).is_ok());
        assert_eq!(scene.keys().len(), number + 1);
    }
}

#[test]
fn never_more_than_so_many_files_are_on_their_way() {
    let (busy, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, most) = (busy.clone(), peak.clone());
    let scene = Scene::over(3, move |inner| {
        hooked(inner, move |key: &str| {
            if key != crate::BINDING_KEY {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                (0..2000).for_each(|_| std::thread::yield_now());
                now.fetch_sub(1, Ordering::SeqCst);
            }
        })
    });
    for name in scene.backlog(30) {
        scene.archive(&name, LONG).unwrap();
    }
    assert!((2..=3).contains(&peak.load(Ordering::SeqCst)), "{peak:?}");
}

#[test]
fn a_neighbour_that_fails_fails_nobody_else() {
    let scene = Scene::new(4);
    let names = scene.backlog(8);
    fs::write(scene.path(&names[1]), vec![0; 1 << 20]).unwrap();
    assert!(scene.archive(&names[0], LONG).is_ok());
    let damaged = scene.archive(&names[1], LONG).unwrap_err();
    assert_eq!(damaged.kind(), ErrorKind::Damaged);
    // The server asks for later ones all the same, where another archive module is content.
    for name in &names[2..] {
        assert!(scene.archive(name, LONG).is_ok());
    }
}

#[test]
fn a_neighbour_that_hangs_fails_nobody_else() {
    let gate = Gate::default();
    let scene = Scene::far(4, held_at(segment(3), &gate));
    let names = scene.backlog(8);
    assert!(scene.archive(&names[0], LONG).is_ok());
    assert!(scene.archive(&names[1], LONG).is_ok());
    gate.until_visited();
    for name in &names[3..] {
        assert!(scene.archive(name, LONG).is_ok());
    }
    gate.open();
    assert!(scene.archive(&names[2], LONG).is_ok());
}

#[test]
fn what_was_archived_unasked_is_not_acknowledged_for_another_file_of_that_name() {
    let gate = Gate::default();
    let scene = Scene::far(2, held_at(segment(2), &gate));
    let names = scene.backlog(3);
    assert!(scene.archive(&names[0], LONG).is_ok());
    std::thread::scope(|threads| {
        let second = threads.spawn(|| scene.archive(&names[1], LONG));
        scene.until_stored(&names[2]);
        gate.open();
        assert!(second.join().unwrap().is_ok());
    });
    fs::remove_file(scene.path(&names[2])).unwrap();
    scene.write(&names[2], 99);
    let error = scene.archive(&names[2], LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
}

#[test]
fn a_segment_that_is_recycled_while_it_is_read_is_not_stored_under_its_old_name() {
    let gate = Gate::default();
    let scene = Scene::over(2, held_at(segment(2), &gate));
    let names = scene.backlog(2);
    assert!(scene.archive(&names[0], LONG).is_ok());
    // The second one is begun unasked and held; somebody else has it archived, and the server recycles it.
    gate.until_visited();
    fs::remove_file(scene.ready(&names[1])).unwrap();
    fs::rename(scene.path(&names[1]), scene.path(&segment(9))).unwrap();
    scene.write(&segment(9), 9);
    gate.open();
    let error = scene.archive(&names[1], Duration::ZERO).unwrap_err();
    assert_ne!(error.kind(), ErrorKind::Conflict, "{error}");
    let keys = scene.keys();
    assert!(!keys.contains(&names[1].to_string()), "{keys:?}");
}

#[test]
fn trouble_is_retried_until_the_deadline_and_told_once() {
    let faults = Faults::seeded(1, 1000);
    let around = faults.clone();
    let scene = Scene::at(crate::MemoryStore::new(), Clock::given(), 4, |store| {
        Box::new(FaultyStore::new(Box::new(store), around))
    });
    let names = scene.backlog(3);
    let hour = Duration::from_secs(3600);
    let error = scene.archive(&names[0], hour).unwrap_err();
    // Pauses of between half of five seconds and the whole.
    let tries = 3600 / 5..=3600 * 2 / 5;
    assert!(tries.contains(&faults.injected()), "{}", faults.injected());
    let note = scene.archiving.note();
    assert!(
        matches!(note, Some(ArchivingNote::Retrying { .. })),
        "{note:?}"
    );
    assert_eq!(scene.archiving.note(), None);
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    faults.stop();
    assert!(scene.archive(&names[0], LONG).is_ok());
    let note = scene.archiving.note();
    assert!(
        matches!(note, Some(ArchivingNote::Recovered { .. })),
        "{note:?}"
    );
    assert_eq!(scene.archiving.note(), None);
}

#[test]
fn an_archive_that_works_again_is_noticed_without_being_asked_again() {
    let faults = Faults::seeded(1, 1000);
    let around = faults.clone();
    let scene = Scene::over(1, |store| {
        Box::new(FaultyStore::new(Box::new(store), around))
    });
    let names = scene.backlog(1);
    std::thread::scope(|threads| {
        let waiting = threads.spawn(|| scene.archive(&names[0], LONG));
        while faults.injected() < 3 {
            std::thread::yield_now();
        }
        faults.stop();
        assert!(waiting.join().unwrap().is_ok());
    });
}

#[test]
fn dropping_the_engine_ends_a_pause_at_once() {
    let faults = Faults::seeded(1, 1000);
    let around = faults.clone();
    let scene = Scene::over(1, |store| {
        Box::new(FaultyStore::new(Box::new(store), around))
    });
    let names = scene.backlog(1);
    scene.ask(&names[0], Instant::now() + LONG);
    while faults.injected() < 5 {
        std::thread::yield_now();
    }
    let engine = Arc::downgrade(&scene.archiving.pool);
    let begun = Instant::now();
    drop(scene.archiving);
    while engine.strong_count() > 0 {
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "a thread still pauses"
        );
        std::thread::yield_now();
    }
}

#[test]
fn a_panic_at_one_file_is_its_failure_and_the_others_go_on() {
    let scene = Scene::over(4, |inner| {
        hooked(inner, |key: &str| {
            assert!(!key.starts_with("000000010000000000000002"))
        })
    });
    let names = scene.backlog(5);
    assert!(scene.archive(&names[0], LONG).is_ok());
    let error = scene.archive(&names[1], LONG).unwrap_err();
    assert!(error.to_string().contains("panic"), "{error}");
    for name in &names[2..] {
        assert!(scene.archive(name, LONG).is_ok());
    }
}

#[test]
fn files_that_were_asked_for_and_hang_do_not_keep_another_from_being_begun() {
    let gate = Gate::default();
    let entered = gate.clone();
    let scene = Scene::over(2, move |inner| {
        hooked(inner, move |key: &str| {
            if key != crate::BINDING_KEY && !key.starts_with(&segment(9).to_string()) {
                entered.pass();
            }
        })
    });
    let names = scene.backlog(9);
    // The first hangs, and one beside it; the server gives up, and asks for others that hang as well.
    for name in &names[..4] {
        assert_eq!(scene.ask(name, Instant::now()), None);
    }
    assert!(scene.archive(&names[8], LONG).is_ok());
    gate.open();
}

#[test]
fn what_has_been_acknowledged_is_not_begun_again_from_an_older_list() {
    let looked_for = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&looked_for);
    let scene = Scene::over(4, move |inner| {
        let on_open = Box::new(move |key: &str| seen.lock().unwrap().push(key.to_owned()));
        Box::new(Hooked {
            on_open,
            ..Hooked::new(inner)
        })
    });
    let names = scene.backlog(60);
    for name in &names {
        // The server renames its note some time after the answer, here not at all.
        scene.archive(name, LONG).unwrap();
        fs::write(scene.ready(name), "").unwrap();
    }
    let looked_for = looked_for.lock().unwrap();
    for name in &names {
        let key = name.to_string();
        let count = looked_for.iter().filter(|seen| **seen == key).count();
        assert_eq!(count, 1, "{key}");
    }
}

#[test]
fn trouble_with_one_file_is_told_once_and_its_neighbours_wait_for_it() {
    let scene = Scene::over(4, |inner| {
        Box::new(Hooked {
            refused: Some(segment(1)),
            ..Hooked::new(inner)
        })
    });
    let names = scene.backlog(8);
    assert!(scene.archive(&names[0], Duration::from_secs(1)).is_err());
    let note = scene.archiving.note();
    assert!(
        matches!(note, Some(ArchivingNote::Retrying { .. })),
        "{note:?}"
    );
    assert_eq!(scene.archiving.note(), None);
    assert_eq!(scene.keys(), Vec::<String>::new());
}
