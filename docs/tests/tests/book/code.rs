//! Blocks of Rust and C: compiled, or shown to be lines of a file that is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use lab::{Installation, run};

use crate::markdown::{Block, Kind, chapters, repository};

/// What the compiler is given before a block of C that includes nothing itself: the server's headers and the
/// recovery interface, on any major.
const C_PRELUDE: &str = "\
#include \"postgres.h\"
#include \"fmgr.h\"
#include \"miscadmin.h\"
#include \"utils/guc.h\"
#include \"utils/memutils.h\"
#if PG_VERSION_NUM >= 160000
#include \"archive/archive_module.h\"
#else
#include \"postmaster/pgarch.h\"
#endif
#include \"walden/backup_target.h\"
#include \"walden/recovery_module.h\"
";

/// Where files stand that are built by cargo or by the examples' own tests, or that a test of servers runs.
const BUILT_ELSEWHERE: [&str; 4] = ["examples/", "docs/listings/", "crates/", "contrib/patroni/"];

fn blocks_of(kind: impl Fn(&Kind) -> bool) -> Result<Vec<Block>> {
    let blocks = chapters()?.into_iter().flat_map(|chapter| chapter.blocks);
    Ok(blocks.filter(|block| kind(&block.kind)).collect())
}

/// Fails with what the compiler said.
fn compile_rust(text: &str, kit: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("block.rs");
    let shown = text.lines().map(|line| match line {
        "#" => "",
        line => line.strip_prefix("# ").unwrap_or(line),
    });
    fs::write(&file, shown.collect::<Vec<_>>().join("\n"))?;
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command
        .args(["--edition=2024", "--crate-type=cdylib", "--emit=metadata"])
        .args(["-D", "warnings", "-D", "unsafe_code", "-A", "dead_code"])
        .arg("--color=never")
        .env("CARGO_PKG_NAME", "block")
        .env("CARGO_PKG_VERSION", "0.0.0")
        .arg("--extern")
        .arg(format!("module={}", kit.display()))
        .arg("-L")
        .arg(format!(
            "dependency={}",
            kit.parent().context("no folder")?.display()
        ))
        .arg("-o")
        .arg(folder.path().join("block.rmeta"))
        .arg(file);
    run(&mut command)?.success()?;
    Ok(())
}

/// The newest build of the kit beside this test that a right block compiles against; others may lie there, of
/// other compilers or older sources.
fn kit() -> Result<PathBuf> {
    let beside = std::env::current_exe()?;
    let mut builds = Vec::new();
    for entry in fs::read_dir(beside.parent().context("no folder")?)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("libmodule-") && name.ends_with(".rlib") {
            builds.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    builds.sort();
    let mut last = "there is none".to_owned();
    for (_, build) in builds.into_iter().rev() {
        let right = "pub fn f(p: module::Process) -> bool { p.shutdown_requested() }";
        match compile_rust(right, &build) {
            Ok(()) => return Ok(build),
            Err(error) => last = format!("{error:#}"),
        }
    }
    bail!("no usable build of the kit beside this test: {last}")
}

fn compile_c(text: &str, server: &Installation) -> Result<()> {
    let headers = server.pg_config("--includedir-server")?;
    ensure!(
        headers.join("postgres.h").exists(),
        "no server headers in \"{}\": install postgresql-server-dev",
        headers.display()
    );
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("block.c");
    let prelude = if text.contains("#include") {
        ""
    } else {
        C_PRELUDE
    };
    fs::write(&file, format!("{prelude}#line 1 \"block\"\n{text}"))?;
    let mut command = Command::new("cc");
    command
        .args([
            "-std=c99",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unused-parameter",
            "-c",
        ])
        .arg("-D_GNU_SOURCE")
        .arg("-isystem")
        .arg(headers)
        .arg("-I")
        .arg(repository().join("crates/abi/include"))
        .arg("-o")
        .arg(folder.path().join("block.o"))
        .arg(file);
    run(&mut command)?.success()?;
    Ok(())
}

/// The server whose headers C is compiled against, and that has them: contrary to a test on a server, one
/// major is enough here, since blocks that differ by major say so themselves.
fn server() -> Result<std::sync::Arc<Installation>> {
    Installation::of_environment()
}

/// Whether these lines stand in the file, next to each other.
fn is_excerpt(text: &str, of: &str) -> bool {
    !text.trim().is_empty() && format!("\n{of}").contains(&format!("\n{}", text.trim_end()))
}

#[test]
fn every_block_of_rust_compiles_against_the_kit() -> Result<()> {
    let kit = kit()?;
    let blocks = blocks_of(|kind| *kind == Kind::Rust)?;
    assert!(!blocks.is_empty(), "there is none: the search is blind");
    for block in blocks {
        compile_rust(&block.text, &kit).with_context(|| block.place.clone())?;
    }
    Ok(())
}

#[test]
fn every_block_of_c_compiles_against_the_servers_headers() -> Result<()> {
    let server = server()?;
    let blocks = blocks_of(|kind| *kind == Kind::C)?;
    assert!(!blocks.is_empty(), "there is none: the search is blind");
    for block in blocks {
        compile_c(&block.text, &server).with_context(|| block.place.clone())?;
    }
    Ok(())
}

#[test]
fn every_excerpt_stands_in_the_file_it_is_from() -> Result<()> {
    let blocks = blocks_of(|kind| matches!(kind, Kind::Excerpt(_)))?;
    assert!(!blocks.is_empty(), "there is none: the search is blind");
    for block in blocks {
        let Kind::Excerpt(path) = &block.kind else {
            continue;
        };
        let built = BUILT_ELSEWHERE.iter().any(|place| path.starts_with(place));
        assert!(built, "{}: nobody builds \"{path}\"", block.place);
        let whole = fs::read_to_string(repository().join(path)).with_context(|| path.clone())?;
        assert!(
            is_excerpt(&block.text, &whole),
            "{}: not in \"{path}\"",
            block.place
        );
    }
    Ok(())
}

#[test]
fn code_with_a_mistake_in_it_is_refused() -> Result<()> {
    let kit = kit()?;
    assert!(
        compile_rust(
            "pub fn f(p: module::Process) -> u8 { p.shutdown_requested() }",
            &kit
        )
        .is_err()
    );
    assert!(
        compile_rust("use module::Task;", &kit).is_err(),
        "a warning"
    );
    compile_rust("# use module::Process;\n#\npub fn f(_: Process) {}", &kit)?;
    let server = server()?;
    compile_c(
        "static void f(RecoveryModuleState *s) { pfree(s->private_data); }\nvoid g(void);\nvoid g(void) { f(NULL); }",
        &server,
    )?;
    assert!(
        compile_c(
            "void f(RecoveryModuleState *s) { pfree(s->data); }",
            &server
        )
        .is_err()
    );
    assert!(compile_c("static int x;", &server).is_err(), "a warning");
    assert!(is_excerpt("b\n  c\n", "a\nb\n  c\nd\n"));
    assert!(!is_excerpt("b\nd\n", "a\nb\n  c\nd\n") && !is_excerpt("\n", "a\n"));
    Ok(())
}
