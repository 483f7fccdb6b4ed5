//! The C interface of base backup targets, which no server installs a header for: a target that is compiled with Walden's is
//! given what the server tells its client.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lab::{Cluster, Lab, Mark, run, scenario};

fn include_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/abi/include")
}

fn headers(lab: &Lab) -> Result<PathBuf> {
    let headers = lab.installation().pg_config("--includedir-server")?;
    ensure!(
        headers.join("postgres.h").exists(),
        "no server headers in \"{}\": install postgresql-server-dev",
        headers.display()
    );
    Ok(headers)
}

/// Builds the target against the headers of the server under test.
fn built(lab: &Lab) -> Result<PathBuf> {
    let folder = lab.directory("libraries")?;
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]);
    compile.args(["-Wno-unused-parameter", "-Wno-sign-compare"]);
    compile
        .arg("-I")
        .arg(headers(lab)?)
        .arg("-I")
        .arg(include_dir());
    compile.arg("-o").arg(folder.join("told_target.so"));
    compile.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("modules/told_target.c"));
    run(&mut compile)?
        .success()
        .context("could not build told_target.c")?;
    Ok(folder)
}

/// What the target has told since a mark, its name taken off.
fn told(server: &Cluster, since: Mark) -> Result<Vec<String>> {
    let said = server.logged(since, &["told_target: "])?;
    let lines = said
        .iter()
        .filter_map(|entry| entry.text.split_once("told_target: "));
    // The statement may follow on a line of its own.
    Ok(lines
        .filter_map(|(_, text)| text.lines().next())
        .map(|line| line.trim().to_owned())
        .collect())
}

/// What stands between two texts.
fn between<'text>(text: &'text str, before: &str, after: &str) -> Result<&'text str> {
    let (_, rest) = text
        .split_once(before)
        .with_context(|| format!("no {before:?} in {text}"))?;
    Ok(rest.split(after).next().unwrap_or(rest).trim_end())
}

/// A place in WAL as it was written up to 18; from 19 on the part behind the slash has leading zeros.
fn without_zeros(place: &str) -> String {
    let (front, behind) = place.split_once('/').unwrap_or((place, ""));
    format!("{front}/{}", behind.trim_start_matches('0'))
}

#[test]
fn a_target_in_c_is_given_what_the_server_tells_its_client() -> Result<()> {
    scenario(|lab| {
        let path = format!("{}:$libdir", built(lab)?.display());
        let settings = lab
            .settings()
            .with("dynamic_library_path", &path)
            .with("shared_preload_libraries", "told_target");
        let server = lab.primary("primary", 1, settings)?;
        let place = lab.directory("tablespace")?;
        server.sql(&format!(
            "create tablespace elsewhere location '{}'",
            place.display()
        ))?;
        let oid = server.sql("select oid from pg_tablespace where spcname = 'elsewhere'")?;
        for estimated in [true, false] {
            let since = server.mark()?;
            let mut command = server.backup_command("told:this");
            command.args(["-X", "fetch", "--verbose"]);
            command.args(
                (!estimated)
                    .then_some(["--no-estimate-size", "--no-manifest"])
                    .iter()
                    .flatten(),
            );
            let outcome = run(&mut command)?;
            ensure!(outcome.status.success(), "{}", outcome.stderr);
            let client = outcome.stderr.as_str();
            let told = told(&server, since)?;
            let [target, sink, begins, first, second, ends, over] = told.as_slice() else {
                anyhow::bail!("{told:?}");
            };
            assert_eq!(target, "target told, detail this");
            assert_eq!(sink, "sink for this");
            let start = without_zeros(between(client, "write-ahead log start point: ", "\n")?);
            let start = format!("begins at {start}, 2 archives, estimate {estimated} of ");
            assert!(begins.starts_with(&start), "{begins}, not {start}");
            assert!(begins.ends_with(", buffer 32768"), "{begins}");
            let estimate: u64 = between(begins, " of ", ",")?.parse()?;
            assert_eq!(estimate > 1_000_000, estimated, "{begins}");
            assert_eq!(first, &format!("archive 0 is {oid}.tar"));
            assert_eq!(second, "archive 1 is base.tar");
            let end = without_zeros(between(client, "write-ahead log end point: ", "\n")?);
            assert!(
                ends.starts_with(&format!("ends at {end} on timeline 1, ")),
                "{ends}, not {end}"
            );
            let counted = between(ends, "timeline 1, ", " bytes")?;
            assert_eq!(between(ends, "the server counts ", ",")?, counted);
            assert!(counted.parse::<u64>()? > 1_000_000, "{ends}");
            let manifest = if estimated {
                "manifest came"
            } else {
                "manifest did not come"
            };
            assert!(ends.ends_with(manifest), "{ends}");
            assert_eq!(over, "is over, and is well");
        }
        let refused = server.back_up_to("told")?;
        assert!(
            refused.stderr.contains("target \"told\" needs a detail"),
            "{}",
            refused.stderr
        );
        Ok(())
    })
}

#[test]
fn the_header_compiles_behind_the_servers_as_c_and_as_cplusplus() -> Result<()> {
    scenario(|lab| {
        let source = "#include \"postgres.h\"\n#include \"walden/backup_target.h\"\n\
                      #include \"walden/backup_target.h\"\nbbsink_ops ops;\n";
        let cplusplus = format!("extern \"C\" {{\n{source}}}\n");
        for (compiler, file, source) in
            [("cc", "header.c", source), ("c++", "header.cc", &cplusplus)]
        {
            let path = lab.dir().join(file);
            fs::write(&path, source)?;
            let mut compile = Command::new(compiler);
            compile.args(["-Wall", "-Werror", "-fsyntax-only", "-I"]);
            compile
                .arg(headers(lab)?)
                .arg("-I")
                .arg(include_dir())
                .arg(&path);
            run(&mut compile)?.success().context(compiler)?;
        }
        Ok(())
    })
}
