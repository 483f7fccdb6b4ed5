//! Blocks of settings and of SQL, on real servers.

use std::fs;

use anyhow::{Context, Result, ensure};
use lab::{Cluster, Lab, Settings, scenario, timed};

use crate::for_each_at_once;
use crate::markdown::{Block, Kind, chapters};
use crate::session::PLACE;

/// Parameters whose values are libraries, which a session has to load before it knows their parameters.
const LIBRARY_PARAMETERS: [&str; 6] = [
    "archive_library",
    "walden.archive_libraries",
    "walden.restore_library",
    "walden.archive_cleanup_library",
    "walden.recovery_end_library",
    "shared_preload_libraries",
];

/// Reads `name = value` lines; `None` for a line that is something else.
fn settings(text: &str) -> Option<Vec<(String, String)>> {
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or(line).trim());
    lines
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (name, value) = line.split_once('=')?;
            let value = value.trim();
            let value = value
                .strip_prefix('\'')
                .and_then(|value| value.strip_suffix('\''))
                .unwrap_or(value);
            Some((name.trim().to_owned(), value.to_owned()))
        })
        .collect()
}

/// Starts a server with these settings and asks it for each of them.
fn accepted(lab: &Lab, name: &str, text: &str) -> Result<()> {
    let wanted = settings(text).context("there is a line that sets nothing")?;
    ensure!(!wanted.is_empty(), "there is no setting");
    lab.require_library("walden")?;
    let place = lab.dir().display().to_string();
    let mut all: Settings = lab.settings();
    let mut loads = String::new();
    for (name, value) in &wanted {
        let value = value.replace(PLACE, &place);
        for library in value
            .split(',')
            .filter(|_| LIBRARY_PARAMETERS.contains(&name.as_str()))
        {
            loads.push_str(&format!("load '{}';\n", library.trim()));
        }
        all.set(name, &value);
    }
    let server = lab.cluster(name, 16, all)?;
    server.start()?;
    let errors = server.sql("select name, error from pg_file_settings where error is not null")?;
    ensure!(errors.is_empty(), "the server says: {errors}");
    for (name, _) in &wanted {
        known(&server, &loads, name)?;
    }
    Ok(())
}

fn known(server: &Cluster, loads: &str, name: &str) -> Result<()> {
    // A name that only stands in the file is a placeholder, which pg_settings does not show.
    let source = server.sql(&format!(
        "{loads} select source from pg_settings where name = lower('{name}')"
    ))?;
    ensure!(
        ["configuration file", "override"].contains(&source.as_str()),
        "{name} is no parameter of the server or not set by the file (source: {source:?})"
    );
    Ok(())
}

#[test]
fn servers_accept_every_block_of_settings() -> Result<()> {
    let chapters = chapters()?;
    let blocks: Vec<_> = chapters
        .iter()
        .flat_map(|chapter| &chapter.blocks)
        .filter(|block| block.kind == Kind::Ini)
        .collect();
    let accepted = |block: &&Block| {
        scenario(|lab| accepted(lab, "server", &block.text)).with_context(|| block.place.clone())
    };
    let tried = timed(|| for_each_at_once(&blocks, accepted))?;
    assert!(tried > 0, "there is none: the search is blind");
    Ok(())
}

#[test]
fn a_server_with_walden_runs_every_block_of_sql() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let server = lab.cluster("server", 16, lab.walden_settings(&archive)?)?;
        server.start()?;
        let mut tried = 0;
        for chapter in chapters()? {
            for block in chapter
                .blocks
                .iter()
                .filter(|block| block.kind == Kind::Sql)
            {
                tried += 1;
                // Its files are not installed in the server.
                if block.text.trim() == "create extension walden;" {
                    server.create_walden_views(lab)?;
                    continue;
                }
                server
                    .sql(&block.text)
                    .with_context(|| block.place.clone())?;
            }
        }
        assert!(tried > 0, "there is none: the search is blind");
        assert!(server.sql("select nothing_of_this_name").is_err());
        Ok(())
    })
}

#[test]
fn settings_that_a_server_does_not_know_are_noticed() -> Result<()> {
    scenario(|lab| {
        let preload = "shared_preload_libraries = 'walden'\n";
        accepted(
            lab,
            "right",
            &format!("{preload}walden.archive = '{PLACE}/a' # there\n"),
        )?;
        for (name, wrong) in [
            ("misspelt", "archive_libary = 'walden'\n"),
            (
                "misspelt_walden",
                "shared_preload_libraries = 'walden'\nwalden.archives = '/x'\n",
            ),
            ("not_loaded", "walden.archive = '/x'\n"),
            ("nothing", "# nothing\n"),
            ("no_setting", "archive_mode on\n"),
        ] {
            // A misspelt name without a dot keeps the server from starting at all.
            assert!(accepted(lab, name, wrong).is_err(), "{name}");
        }
        Ok(())
    })
}

#[test]
fn the_settings_in_the_readme_are_those_of_the_book() -> Result<()> {
    // One text to keep right: what stands in the README as settings stands in a checked block too.
    let readme = fs::read_to_string(crate::markdown::repository().join("README.md"))?;
    let mut book = Vec::new();
    for chapter in chapters()? {
        for block in chapter.blocks {
            if let (Kind::Ini | Kind::Append(_), Some(settings)) =
                (&block.kind, settings(&block.text))
            {
                book.extend(settings.into_iter().map(|(name, _)| name));
            }
        }
    }
    let mut seen = 0;
    for block in readme.split("```ini\n").skip(1) {
        let text = block.split("```").next().unwrap_or_default();
        for (name, _) in settings(text).context("a line that sets nothing")? {
            seen += 1;
            assert!(
                book.contains(&name),
                "{name} is in the README and in no checked block"
            );
        }
    }
    assert!(seen > 3, "only {seen} settings found in the README");
    Ok(())
}
