//! Sessions: the commands of a chapter, typed in order on a machine with a server, as a reader would.
//!
//! Lines behind `$` are typed by whoever runs the tests, lines behind `postgres$` by the servers' user, each in a
//! shell whose directory and exported variables last; a line behind `>` goes on with the command above it.
//! Output that a chapter shows has to come, where `...` stands for anything. Of a command that fails the
//! status is an error, unless the output is shown.
//!
//! Two things are not the reader's. [`PLACE`] is a directory of the lab's. And the programs `pg_config` and
//! `initdb` are stand-ins, so that nothing is installed into the real server: the first names the lab's
//! directory of libraries, the second has new clusters look there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::{Lab, run_for, scenario, timed, wait_until};

use crate::for_each_at_once;
use crate::markdown::{Block, Chapter, Kind, chapters, repository};

/// The directory in which the book keeps servers and archives; it belongs to the servers' user.
pub(crate) const PLACE: &str = "/srv/tutorial";

/// Chapters whose programs know no later server than this: Debian's pgBackRest is 2.45.
const LAST_MAJOR: [(&str, u32); 1] = [("coming-from.md", 15)];

/// A module is built from nothing, on a machine that others use too.
const COMMAND_DEADLINE: Duration = Duration::from_secs(600);

/// One command of a console block.
#[derive(Debug, Default, PartialEq, Eq)]
struct Typed {
    by_server_user: bool,
    command: String,
    shown: String,
}

/// Reads a console block; a line before the first prompt is an error.
fn typed(text: &str) -> Result<Vec<Typed>> {
    let mut all: Vec<Typed> = Vec::new();
    for line in text.lines() {
        let (command, by_server_user) = match line.strip_prefix("postgres$ ") {
            Some(command) => (Some(command), true),
            None => (line.strip_prefix("$ "), false),
        };
        if let Some(command) = command {
            all.push(Typed {
                by_server_user,
                command: command.to_owned(),
                shown: String::new(),
            });
            continue;
        }
        let last = all.last_mut().context("output before the first command")?;
        match line.strip_prefix("> ") {
            Some(more) if last.shown.is_empty() => {
                last.command.push('\n');
                last.command.push_str(more);
            }
            _ => {
                last.shown.push_str(line);
                last.shown.push('\n');
            }
        }
    }
    ensure!(!all.is_empty(), "there is no command");
    Ok(all)
}

/// Whether the output is what is shown; `...` stands for anything, blanks at the ends of lines do not count.
fn is_shown(shown: &str, output: &str) -> bool {
    let tidy = |text: &str| -> String {
        let lines: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
        lines.join("\n")
    };
    let (shown, output) = (tidy(shown), tidy(output));
    let parts: Vec<&str> = shown.split("...").collect();
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else {
        return false;
    };
    if parts.len() == 1 {
        return shown == output;
    }
    let Some(mut rest) = output.strip_prefix(first) else {
        return false;
    };
    for part in parts.get(1..parts.len() - 1).unwrap_or_default() {
        match rest.split_once(part) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// A chapter's session.
struct Session<'lab> {
    lab: &'lab Lab,
    bin: PathBuf,
    place: String,
    guard: Option<Child>,
}

impl<'lab> Session<'lab> {
    fn begin(lab: &'lab Lab) -> Result<Self> {
        lab.require_library("walden")?;
        let place = lab.directory("srv")?.display().to_string();
        let bin = lab.directory("stand-ins")?;
        let you = lab.directory("you")?;
        std::os::unix::fs::symlink(repository(), you.join("walden"))?;
        let state = lab.directory("state")?;
        fs::write(state.join("you"), format!("cd {}\n", you.display()))?;
        let (server, real) = (
            state.join("server"),
            lab.installation().pg_bin_dir().display().to_string(),
        );
        fs::write(&server, format!("cd {place}\n"))?;
        fs::set_permissions(&server, fs::Permissions::from_mode(0o666))?;
        // A directory that can pass for the server's: what is no stand-in is the real program.
        for entry in fs::read_dir(&real)?.flatten() {
            std::os::unix::fs::symlink(entry.path(), bin.join(entry.file_name()))?;
        }
        let library_dir = lab.installation().library_dir().display().to_string();
        program(
            &bin.join("pg_config"),
            &format!(
                "case $1 in\n--pkglibdir) echo {library_dir};;\n--bindir) echo {};;\n\
                 *) exec {real}/pg_config \"$@\";;\nesac\n",
                bin.display()
            ),
        )?;
        program(
            &bin.join("initdb"),
            &format!(
                "{real}/initdb --no-sync --auth trust \"$@\" || exit\n\
                 while [ $# -gt 1 ] && [ \"$1\" != -D ]; do shift; done\n\
                 echo \"dynamic_library_path = '{library_dir}:\\$libdir'\" >>\"$2/postgresql.conf\"\n"
            ),
        )?;
        let guard = Some(guard(lab, &place)?);
        Ok(Session {
            lab,
            bin,
            place,
            guard,
        })
    }

    /// Does what a block says.
    fn play(&self, block: &Block) -> Result<()> {
        match &block.kind {
            Kind::File(path) => {
                let path = self.path(path);
                fs::create_dir_all(path.parent().context("no folder")?)?;
                fs::write(&path, &block.text)?;
                Ok(())
            }
            Kind::Append(path) => {
                let mut file = OpenOptions::new().append(true).open(self.path(path))?;
                file.write_all(self.here(&block.text).as_bytes())?;
                Ok(())
            }
            Kind::Console { wait } => {
                for typed in typed(&block.text)? {
                    self.enter(&typed, *wait)
                        .with_context(|| format!("$ {}", typed.command))?;
                }
                Ok(())
            }
            other => bail!("{other:?} is no step"),
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        // Replaced by an absolute path, it is not joined but taken.
        self.lab.dir().join("you").join(self.here(path))
    }

    /// A text of the book, in this lab's directory.
    fn here(&self, text: &str) -> String {
        text.replace(PLACE, &self.place)
    }

    fn enter(&self, typed: &Typed, wait: bool) -> Result<()> {
        let shown = self.here(&typed.shown);
        if shown.is_empty() {
            let (succeeded, output) = self.run(typed)?;
            ensure!(succeeded, "it failed: {output}");
            return Ok(());
        }
        let mut last = String::new();
        let mut look = || -> Result<bool> {
            last = self.run(typed)?.1;
            Ok(is_shown(&shown, &last))
        };
        let right = if wait {
            wait_until("the output that is shown", &mut look).is_ok()
        } else {
            look()?
        };
        ensure!(right, "the book shows:\n{shown}but this came:\n{last}");
        Ok(())
    }

    /// Runs a command in its user's shell; answers with whether it succeeded, and what it said.
    fn run(&self, typed: &Typed) -> Result<(bool, String)> {
        let state = self.lab.dir().join("state");
        let (user, mut command) = if typed.by_server_user {
            ("server", self.lab.server_command("sh"))
        } else {
            ("you", self.lab.command("sh"))
        };
        let script = state.join(format!("{user}.sh"));
        fs::write(&script, format!("{}\n", self.here(&typed.command)))?;
        // What a shell remembers from one command to the next: exported variables, and where it is.
        command.arg("-c").arg(format!(
            ". {0}/{user}; exec 2>&1; . {0}/{user}.sh; status=$?; \
             {{ export -p; echo \"cd '$PWD'\"; }} >{0}/{user}; exit $status",
            state.display()
        ));
        environment(&mut command, &self.bin)?;
        let outcome = run_for(&mut command, COMMAND_DEADLINE)?;
        Ok((outcome.status.success(), outcome.stdout))
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            // Its input ends here, which is what it waits for.
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }
}

/// Stops whatever servers are left once this program lets go of it, or dies.
fn guard(lab: &Lab, place: &str) -> Result<Child> {
    let script = "trap '' QUIT; read _; for file in \"$1\"/*/postmaster.pid; do \
                  [ -f \"$file\" ] && pg_ctl -D \"${file%/*}\" -m immediate stop; done";
    lab.server_command("sh")
        .args(["-c", script, "guard", place])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("could not start a shell")
}

fn program(path: &Path, body: &str) -> Result<()> {
    if path.exists() {
        fs::remove_file(path)?;
    }
    fs::write(path, format!("#!/bin/sh\n{body}"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The stand-ins come first on the PATH, and cargo finds its own files, downloads nothing, and keeps what it has
/// built for the next time.
fn environment(command: &mut Command, stand_ins: &Path) -> Result<()> {
    let path = command
        .get_envs()
        .find(|(name, _)| *name == "PATH")
        .and_then(|(_, value)| value.map(|value| value.to_string_lossy().into_owned()))
        .unwrap_or_default();
    command.env("PATH", format!("{}:{path}", stand_ins.display()));
    let home = std::env::var("HOME").unwrap_or_default();
    for (name, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        let value = std::env::var(name).unwrap_or_else(|_| format!("{home}/{folder}"));
        command.env(name, value);
    }
    if let Ok(toolchain) = std::env::var("RUSTUP_TOOLCHAIN") {
        command.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    let mut built = std::env::current_exe()?;
    built.pop();
    built.pop();
    command
        .env("CARGO_NET_OFFLINE", "true")
        .env("CARGO_BUILD_BUILD_DIR", built.join("book-sessions"));
    Ok(())
}

fn play(lab: &Lab, chapter: &Chapter) -> Result<()> {
    let session = Session::begin(lab)?;
    for block in chapter.blocks.iter().filter(|block| block.kind.is_step()) {
        session.play(block).with_context(|| block.place.clone())?;
    }
    Ok(())
}

#[test]
fn every_session_in_the_book_goes_as_it_is_printed() -> Result<()> {
    let mut chapters = chapters()?;
    chapters.retain(|chapter| chapter.blocks.iter().any(|block| block.kind.is_step()));
    for (path, _) in LAST_MAJOR {
        let there = chapters.iter().any(|chapter| chapter.path == path);
        assert!(there, "\"{path}\" has no session");
    }
    let play = |chapter: &Chapter| {
        scenario(|lab| {
            let major = lab.installation().major();
            let is_too_new = |(path, last): &(&str, u32)| *path == chapter.path && major > *last;
            if LAST_MAJOR.iter().any(is_too_new) {
                return Ok(());
            }
            play(lab, chapter)
        })
    };
    let played = timed(|| for_each_at_once(&chapters, play))?;
    assert!(played > 0, "there is none: the search is blind");
    Ok(())
}

#[test]
fn the_files_of_the_tutorial_are_those_that_cargo_builds_and_lints() -> Result<()> {
    let listings = listings()?;
    assert!(listings.len() > 3, "{} found", listings.len());
    let mut shown = BTreeSet::new();
    for chapter in chapters()? {
        for block in &chapter.blocks {
            let Kind::File(path) = &block.kind else {
                continue;
            };
            if path.ends_with(".rs") {
                let same = listings.iter().filter(|(_, text)| **text == block.text);
                let same: Vec<_> = same.map(|(listing, _)| listing.clone()).collect();
                assert!(
                    !same.is_empty(),
                    "{}: no file below docs/listings has the text that is shown for \"{path}\"",
                    block.place
                );
                shown.extend(same);
            }
        }
    }
    for listing in listings.keys() {
        assert!(shown.contains(listing), "not shown: {}", listing.display());
    }
    Ok(())
}

/// The sources of the tutorial's module at each of its steps.
fn listings() -> Result<BTreeMap<PathBuf, String>> {
    let mut found = BTreeMap::new();
    for step in fs::read_dir(repository().join("docs/listings"))? {
        for source in fs::read_dir(step?.path().join("src"))? {
            let path = source?.path();
            found.insert(path.clone(), fs::read_to_string(&path)?);
        }
    }
    Ok(found)
}

#[test]
fn output_that_differs_from_what_is_shown_is_noticed() -> Result<()> {
    let block = "$ echo a \\\n> b\na b\npostgres$ true\n";
    let commands = typed(block)?;
    assert_eq!(commands.len(), 2);
    assert_eq!(
        (commands[0].command.as_str(), commands[0].shown.as_str()),
        ("echo a \\\nb", "a b\n")
    );
    assert!(commands[1].by_server_user);
    assert!(typed("a b\n").is_err() && typed("").is_err());

    assert!(is_shown("a\nb\n", "a  \nb\n\n") && is_shown("a ... d\n", "a b c d\n"));
    assert!(is_shown("...\nb\n...", "x\ny\nb\nz\n") && is_shown("...b", "a b"));
    assert!(!is_shown("a\n", "a\nb\n") && !is_shown("a ... d", "a b c") && !is_shown("a", ""));

    scenario(|lab| {
        let session = Session::begin(lab)?;
        let enter = |text: &str| session.enter(&typed(text)?[0], false);
        enter("$ export WORD=kept; mkdir sub; cd sub\n")?;
        enter("$ echo $WORD; basename $PWD\nkept\nsub\n")?;
        enter(&format!("postgres$ pwd\n{PLACE}\n"))?;
        assert!(enter("$ echo other\nkept\n").is_err());
        assert!(enter("$ false\n").is_err());
        enter("$ ls /nowhere\nls: ... No such file or directory\n")
    })
}

#[test]
fn a_server_that_a_session_leaves_running_is_stopped_with_it() -> Result<()> {
    scenario(|lab| {
        let session = Session::begin(lab)?;
        let enter = |text: &str| session.enter(&typed(text)?[0], false);
        enter("postgres$ initdb -D left >/dev/null\n")?;
        enter(
            "postgres$ pg_ctl -D left -l log -w -o \"-c listen_addresses= -k $PWD\" start >/dev/null\n",
        )?;
        let pid = fs::read_to_string(Path::new(&session.place).join("left/postmaster.pid"))?;
        let process = PathBuf::from(format!("/proc/{}", pid.lines().next().unwrap_or_default()));
        assert!(process.exists());
        drop(session);
        wait_until("the server to end", || Ok(!process.exists()))?;
        Ok(())
    })
}
