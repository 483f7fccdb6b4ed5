//! Misuse of the kit does not compile, and the compiler says why in the kit's words.
//!
//! Each file in `misuse/` is a small module. Its lines `// error: CODE` and `// says: TEXT` are what the
//! compiler must answer. `right.rs` is a module without a mistake and compiles, so that the others fail for
//! their mistakes alone. The compiler is the one that built this test, and so is the kit.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/misuse")
}

/// Compiles one file against a build of the kit; answers with what the compiler had to say, `None` for
/// nothing.
fn complaint(case: &Path, kit: &Path) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args([
            "--edition=2024",
            "--crate-type=cdylib",
            "--emit=metadata",
            "-A",
            "warnings",
        ])
        .args(["-D", "unsafe_code", "--error-format=human", "--color=never"])
        .env("CARGO_PKG_NAME", "misuse")
        .env("CARGO_PKG_VERSION", "0.0.0")
        .arg("--extern")
        .arg(format!("module={}", kit.display()))
        .arg("-L")
        .arg(format!("dependency={}", kit.parent().unwrap().display()))
        .arg("-o")
        .arg(folder.path().join("out.rmeta"))
        .arg(case)
        .output()
        .expect("rustc runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (!output.status.success()).then_some(said)
}

/// The kit that this test was built with lies beside it. Other builds may lie there too, by other compilers
/// or of older sources: the newest one that a right module compiles against is it.
fn kit() -> PathBuf {
    let beside = std::env::current_exe().unwrap();
    let mut builds: Vec<PathBuf> = fs::read_dir(beside.parent().unwrap())
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("libmodule-") && name.ends_with(".rlib")
        })
        .collect();
    builds.sort_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    let right = cases().join("right.rs");
    let mut last = "no build of the kit beside this test".to_owned();
    for build in builds.into_iter().rev() {
        match complaint(&right, &build) {
            None => return build,
            Some(said) => last = said,
        }
    }
    panic!("the module without a mistake does not compile: {last}");
}

#[test]
fn each_misuse_is_refused_by_the_compiler_with_the_reason() {
    let kit = kit();
    let mut tried = 0;
    for entry in fs::read_dir(cases()).unwrap().flatten() {
        let case = entry.path();
        let text = fs::read_to_string(&case).unwrap();
        let expected = |key: &str| -> Vec<String> {
            let start = format!("// {key}: ");
            text.lines()
                .filter_map(|line| line.strip_prefix(&start).map(str::to_owned))
                .collect()
        };
        if case.ends_with("right.rs") {
            continue;
        }
        tried += 1;
        let name = case.display();
        let said = complaint(&case, &kit).unwrap_or_else(|| panic!("{name} compiles"));
        let (codes, texts) = (expected("error"), expected("says"));
        assert!(!texts.is_empty(), "{name} does not say what to expect");
        for code in codes {
            assert!(
                said.contains(&format!("error[{code}]")),
                "{name}: no {code} in\n{said}"
            );
        }
        for words in texts {
            assert!(
                said.contains(&words),
                "{name}: not a word of {words:?} in\n{said}"
            );
        }
    }
    assert!(tried >= 10, "only {tried} misuses found");
}
