//! The tables of the reference against the truth: parameters against a server, flags against the help, exit
//! statuses against the program.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use lab::{Lab, run, scenario};

use crate::markdown::{Chapter, source};

/// The cells of every row of the table whose first heading is `first`, backquotes removed.
fn table(chapter: &Chapter, first: &str) -> Result<Vec<Vec<String>>> {
    let lines: Vec<&str> = chapter
        .lines
        .iter()
        .map(|(_, line)| line.as_str())
        .collect();
    let start = lines
        .iter()
        .position(|line| line.starts_with(&format!("| {first} |")))
        .with_context(|| format!("{} has no table of {first:?}", chapter.path))?;
    let rows = lines
        .iter()
        .skip(start + 2)
        .take_while(|line| line.starts_with('|'));
    Ok(rows
        .map(|row| {
            let cells = row.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().replace('`', "")).collect()
        })
        .collect())
}

/// What the table says of each parameter: type, default, unit, bounds or values, context.
fn documented(chapter: &Chapter) -> Result<BTreeMap<String, Vec<String>>> {
    let mut found = BTreeMap::new();
    for row in table(chapter, "parameter")? {
        let [name, facts @ ..] = row.as_slice() else {
            continue;
        };
        let facts = facts.iter().take(5).cloned().collect();
        ensure!(
            found.insert(name.clone(), facts).is_none(),
            "{name} is there twice"
        );
    }
    Ok(found)
}

/// What a server says.
fn defined(lab: &Lab) -> Result<BTreeMap<String, Vec<String>>> {
    let archive = lab.archive("archive")?;
    let server = lab.cluster("server", 16, lab.walden_settings(&archive)?)?;
    server.start()?;
    let rows = server.sql(
        "select name, vartype, case boot_val when '' then '''''' else boot_val end, coalesce(unit, ''), \
         coalesce(min_val || ' to ' || max_val, array_to_string(enumvals, ', '), ''), context \
         from pg_settings where name like 'walden.%'",
    )?;
    Ok(rows
        .lines()
        .map(|row| {
            let mut cells = row.split('|').map(str::to_owned);
            (cells.next().unwrap_or_default(), cells.collect())
        })
        .collect())
}

/// The long flags of the options that a help text lists.
fn flags_in_help(help: &str) -> BTreeSet<String> {
    let lines = help
        .lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with('-'));
    lines
        .filter_map(flag)
        .filter(|flag| flag != "--help" && flag != "--version")
        .collect()
}

/// The first long flag in a text.
fn flag(text: &str) -> Option<String> {
    let (_, behind) = text.split_once("--")?;
    let end = behind.find(|letter: char| !letter.is_ascii_lowercase() && letter != '-');
    Some(format!("--{}", behind.get(..end.unwrap_or(behind.len()))?))
}

/// The commands in the help of the program.
fn commands_in_help(help: &str) -> BTreeSet<String> {
    let list = help.split("Commands:\n").nth(1).unwrap_or_default();
    let lines = list.lines().take_while(|line| !line.is_empty());
    lines
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

/// The flags in the table rows of each section of a chapter.
fn flags_by_section(chapter: &Chapter) -> BTreeMap<String, BTreeSet<String>> {
    let mut sections = BTreeMap::new();
    let mut section = String::new();
    for (_, line) in chapter.prose() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.replace('`', "");
            sections.insert(section.clone(), BTreeSet::new());
        } else if line.starts_with("| `-")
            && let Some(flag) = flag(line)
            && let Some(flags) = sections.get_mut(&section)
        {
            flags.insert(flag);
        }
    }
    sections
}

fn help(lab: &Lab, arguments: &[&str]) -> Result<String> {
    run(lab.command("walden").args(arguments).arg("--help"))?.success()
}

#[test]
fn the_parameter_table_is_what_a_server_shows() -> Result<()> {
    let table = documented(&Chapter::read(&source(), "reference/parameters.md")?)?;
    scenario(|lab| {
        assert_eq!(table, defined(lab)?, "(left: the book, right: the server)");
        Ok(())
    })
}

#[test]
fn the_commands_and_their_flags_are_those_of_the_help() -> Result<()> {
    let chapter = Chapter::read(&source(), "reference/commands.md")?;
    let sections = flags_by_section(&chapter);
    let list = chapter.blocks.first().context("no list of commands")?;
    let listed = list.text.lines().filter_map(|line| {
        let mut words = line.strip_prefix("walden ")?.split_whitespace();
        words.next().map(str::to_owned)
    });
    let listed: BTreeSet<String> = listed.collect();
    scenario(|lab| {
        let whole = help(lab, &[])?;
        let common = flags_in_help(&whole);
        assert_eq!(sections.get("Flags of every command"), Some(&common));
        let commands = commands_in_help(&whole);
        assert!(commands.len() >= 6, "{commands:?}");
        assert_eq!(listed, commands, "(left: the list, right: the help)");
        for command in &commands {
            let own: BTreeSet<String> = flags_in_help(&help(lab, &[command])?)
                .difference(&common)
                .cloned()
                .collect();
            let written = sections.get(&format!("walden {command}"));
            assert_eq!(
                written,
                Some(&own),
                "walden {command} (left: the book, right: the help)"
            );
        }
        let suite = run(lab.command("walden-conformance").arg("--help"))?.success()?;
        let written = sections.get("walden-conformance");
        assert_eq!(written, Some(&flags_in_help(&suite)));
        let written = sections
            .keys()
            .filter_map(|heading| heading.strip_prefix("walden "));
        assert_eq!(
            written.map(str::to_owned).collect::<BTreeSet<_>>(),
            commands
        );
        Ok(())
    })
}

#[test]
fn the_exit_statuses_are_those_of_the_program() -> Result<()> {
    let chapter = Chapter::read(&source(), "reference/exit-status.md")?;
    let rows = table(&chapter, "outcome")?;
    let status = |outcome: &str, column: usize| -> Result<Vec<i32>> {
        let row = rows
            .iter()
            .find(|row| row.first().is_some_and(|cell| cell == outcome));
        let cell = row
            .and_then(|row| row.get(column))
            .with_context(|| format!("no {outcome:?}"))?;
        Ok(cell
            .split(',')
            .filter_map(|number| number.trim().parse().ok())
            .collect())
    };
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let (place, gone) = (archive.text(), format!("{}/gone", archive.text()));
        let segment = "000000010000000000000001";
        std::fs::write(
            archive.path().join("00000002.history"),
            "1\t0/3000000\tno recovery target\n",
        )?;
        let to = lab.dir().join("to").display().to_string();
        let leaves = |arguments: &[&str]| -> Result<Vec<i32>> {
            let outcome = run(lab.command("walden").args(arguments))?;
            Ok(outcome.status.code().into_iter().collect())
        };
        let restore = ["-A", &place, "restore"];
        let ask = |name: &str| leaves(&[&restore[..], &[name, &to]].concat());
        assert_eq!(ask("00000002.history")?, status("done", 1)?);
        assert_eq!(ask(segment)?, status("absent", 1)?);
        let lost = leaves(&["-A", &gone, "restore", "--timeout", "0", segment, &to])?;
        assert_eq!(lost, status("could not tell, or failed", 1)?);
        assert_eq!(ask("no name")?, status("usage error", 1)?);

        assert_eq!(leaves(&["-A", &place, "list"])?, status("done", 2)?);
        assert_eq!(
            leaves(&["-A", &gone, "list"])?,
            status("could not tell, or failed", 2)?
        );
        assert_eq!(
            leaves(&["list", "--no-such-flag"])?,
            status("usage error", 2)?
        );

        // Nothing makes it panic; the help names those statuses.
        let help = help(lab, &[])?
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        for (column, words) in [(1, "internal error"), (2, "internal error")] {
            let [number] = status("bug", column)?[..] else {
                panic!("no status of a bug");
            };
            assert!(
                help.contains(&format!("{number} {words}")),
                "{number} {words}: {help}"
            );
        }
        Ok(())
    })
}

#[test]
fn the_fields_of_walden_json_are_those_of_a_real_one() -> Result<()> {
    let chapter = Chapter::read(&source(), "reference/files.md")?;
    let rows = table(&chapter, "field")?;
    let written: BTreeSet<&str> = rows
        .iter()
        .filter_map(|row| row.first().map(String::as_str))
        .collect();
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let server = lab.cluster("server", 16, lab.walden_settings(&archive)?)?;
        server.start()?;
        server.archive_everything()?;
        let binding = std::fs::read_to_string(archive.path().join("walden.json"))?;
        // Names of fields are the texts before colons; the one other colon stands within a text.
        let fields: BTreeSet<&str> = binding
            .split("\":")
            .filter_map(|before| before.rsplit('"').next())
            .filter(|name| {
                name.chars()
                    .all(|letter| letter.is_ascii_lowercase() || letter == '_')
            })
            .collect();
        assert_eq!(written, fields, "(left: the book, right: {binding})");
        let segments = archive.segments()?;
        assert!(!segments.is_empty(), "no segment is archived");
        for segment in segments {
            let stored = std::fs::read(archive.path().join(&segment))?;
            assert!(
                stored.starts_with(&[0x28, 0xB5, 0x2F, 0xFD]),
                "{segment} is not stored as the page says"
            );
        }
        Ok(())
    })
}

/// Which options the URLs of each kind of store take, by a table that says "yes" in the columns of these.
fn options_by_scheme(chapter: &Chapter) -> Result<BTreeMap<&'static str, BTreeSet<String>>> {
    let rows = table(chapter, "option")?;
    let schemes = ["s3", "gs", "az"].iter().zip(1..);
    let takes = |column: usize| {
        let rows = rows.iter();
        let rows = rows.filter(|row| row.get(column).is_some_and(|cell| cell == "yes"));
        rows.filter_map(|row| row.first().cloned()).collect()
    };
    Ok(schemes
        .map(|(scheme, column)| (*scheme, takes(column)))
        .collect())
}

/// The options that the hint of a refused one lists.
fn options_in_hint(said: &str) -> Option<BTreeSet<String>> {
    let (_, list) = said.split_once("Options are: ")?;
    let (list, _) = list.split_once('.')?;
    Some(list.split(", ").map(str::to_owned).collect())
}

#[test]
fn the_options_of_object_stores_are_those_that_the_program_takes() -> Result<()> {
    let written = options_by_scheme(&Chapter::read(&source(), "object-stores.md")?)?;
    scenario(|lab| {
        for (scheme, written) in &written {
            let url = format!("{scheme}://bucket?no_such_option=1");
            let refused = run(lab.command("walden").args(["list", "-A", &url]))?;
            let known = options_in_hint(&refused.stderr);
            let known = known.with_context(|| format!("no options in {:?}", refused.stderr))?;
            assert_eq!(
                *written, known,
                "{scheme}: (left: the book, right: the program)"
            );
        }
        Ok(())
    })
}

#[test]
fn an_option_that_the_table_leaves_out_is_noticed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let page = "| option | s3 | gs | az | meaning |\n|---|---|---|---|---|\n\
                | `one` | yes | | yes | it |\n| `two` | yes | yes | | yes |\n";
    std::fs::write(folder.path().join("p.md"), page)?;
    let by_scheme = options_by_scheme(&Chapter::read(folder.path(), "p.md")?)?;
    let hint = |text: &str| options_in_hint(&format!("hint: Options are: {text}.\n"));
    assert_eq!(by_scheme.get("s3").cloned(), hint("two, one"));
    assert_ne!(by_scheme.get("gs").cloned(), hint("two, one"));
    assert_eq!(by_scheme.get("az").cloned(), hint("one"));
    assert_eq!(options_in_hint("refused"), None);
    Ok(())
}

#[test]
fn tables_that_differ_from_the_truth_are_noticed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let page = "# P\n\n| parameter | type | default | unit | bounds | context | meaning |\n|---|---|---|---|---|---|---|\n\
                | `walden.x` | integer | `60` | `s` | 1 to 5 | sighup | it |\n\n\
                ## `walden go`\n\n| flag | |\n|---|---|\n| `-A`, `--archive URL` | x |\n| `--json` | y |\n";
    std::fs::write(folder.path().join("p.md"), page)?;
    let chapter = Chapter::read(folder.path(), "p.md")?;
    let row = ["integer", "60", "s", "1 to 5", "sighup"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(
        documented(&chapter)?,
        BTreeMap::from([("walden.x".to_owned(), row)])
    );
    assert!(table(&chapter, "outcome").is_err());
    let flags = flags_by_section(&chapter);
    let text = "Usage: walden go [--other]\n\nOptions:\n  -A, --archive <URL>  Not --this one\n\
                \x20     --json  J\n  -h, --help  H\n";
    assert_eq!(flags.get("walden go"), Some(&flags_in_help(text)));
    assert_ne!(
        flags.get("walden go"),
        Some(&flags_in_help(&text.replace("--json", "--yaml")))
    );
    let commands =
        commands_in_help("A\n\nCommands:\n  go    Go\n        on\n  stop  S\n\nOptions:\n  -v\n");
    assert_eq!(
        commands,
        BTreeSet::from(["go".to_owned(), "stop".to_owned()])
    );
    Ok(())
}
