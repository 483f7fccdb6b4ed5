//! The part of `walden check` that reads a server's configuration.
//!
//! Guarantees: of the files only what they say is judged; what a running server was told otherwise (its command
//! line, say) is not seen. A server that runs is asked what it refuses of its files. Left to others: reading the files
//! (`pgconf`), what a value may be (`archive::parameter`), the archive itself.

use crate::check_line::{Line, some_of};
use crate::living::psql::Psql;
use archive::parameter::PARAMETERS;
use archive::{Error, ErrorKind, Location};
use pgconf::ServerConf;
use serde::Deserialize;
use std::path::Path;

/// The three jobs that a library and a command can both be set for.
const JOBS: [(&str, &str); 3] = [
    ("walden.restore_library", "restore_command"),
    ("walden.archive_cleanup_library", "archive_cleanup_command"),
    ("walden.recovery_end_library", "recovery_end_command"),
];

/// What the names of Walden's parameters begin with.
const PREFIX: &str = "walden.";

/// What is judged by itself, with what else has to be said of it.
const JUDGED: &str = "walden.archive";

/// What the server finds wrong in its own configuration files, in order; what only takes a restart is none of it.
const REFUSED: &str = "\
select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
    'name', f.name, 'file', f.sourcefile, 'line', f.sourceline, 'error', f.error)
    order by f.seqno), '[]')
from pg_catalog.pg_file_settings f left join pg_catalog.pg_settings s on s.name = f.name
where f.name like 'walden.%' and f.error is not null and s.context is distinct from 'postmaster'";

/// Whether the role may ask for that.
const MAY_ASK: &str = "\
select pg_catalog.has_table_privilege('pg_catalog.pg_file_settings', 'select')
   and pg_catalog.has_function_privilege('pg_catalog.pg_show_all_file_settings()', 'execute')";

/// Judges the configuration.
pub(crate) fn check(conf: &ServerConf, data_dir: Option<&Path>, lines: &mut Vec<Line>) {
    let recovers = data_dir.is_some_and(|dir| {
        ["standby.signal", "recovery.signal"]
            .iter()
            .any(|signal| dir.join(signal).exists())
    });
    check_settings(
        &|name| conf.get(name).filter(|value| !value.is_empty()),
        recovers,
        lines,
    );
    let names = conf.names().filter(|name| name.starts_with(PREFIX));
    let of_name = |name: &str| PARAMETERS.iter().find(|it| it.name == name);
    let (known, unknown): (Vec<&str>, Vec<&str>) = names.partition(|name| of_name(name).is_some());
    lines.push(if unknown.is_empty() {
        Line::passed("every walden parameter that is set is known")
    } else {
        Line::failed(
            format!("unknown parameter is set: {}", some_of(&unknown)),
            "Correct its name, or remove it.",
        )
    });
    let checked = known.into_iter().filter(|name| *name != JUDGED);
    let checked = checked.filter_map(|name| Some(of_name(name)?.check(conf.get(name)?)));
    let wrong: Vec<Error> = checked.filter_map(Result::err).collect();
    let judged = of_name(JUDGED).zip(conf.get(JUDGED));
    let other = match judged.map(|(it, value)| it.check(value)) {
        Some(Err(_)) => "other ",
        Some(Ok(())) | None => "",
    };
    if wrong.is_empty() {
        lines.push(Line::passed(format!(
            "every {other}value of a walden parameter can be used"
        )));
    }
    for error in wrong {
        lines.push(Line::error(&error, "Correct it and reload."));
    }
}

/// A line of a configuration file that the server refuses.
#[derive(Debug, Deserialize)]
struct Refused {
    name: String,
    file: Option<String>,
    line: Option<u64>,
    error: String,
}

/// What the server itself finds wrong in its configuration files, where the role may ask for that.
pub(crate) fn refused_by_server(session: &mut Psql) -> Vec<Line> {
    let mut ask = || -> Result<Vec<Refused>, Error> {
        if session.ask(MAY_ASK)?.trim() != "t" {
            return Ok(Vec::new());
        }
        let answer = session.ask(REFUSED)?;
        serde_json::from_str(&answer).map_err(|cause| {
            let message = format!("the server's answer is not understood: {cause}");
            Error::new(ErrorKind::Unavailable, message)
        })
    };
    match ask() {
        Ok(refused) => refused.iter().map(Refused::line).collect(),
        Err(error) => vec![Line::unknown(
            format!("what the server finds wrong in its configuration files: {error}"),
            "Ask again in a moment.",
        )],
    }
}

impl Refused {
    fn line(&self) -> Line {
        let Refused {
            name, file, error, ..
        } = self;
        let file = file.as_deref().unwrap_or("an unknown file");
        let line = self.line.unwrap_or_default();
        Line::failed(
            format!("the server does not take \"{name}\" of \"{file}\", line {line}: {error}"),
            "Correct it and reload; the server's log has what is wrong with it.",
        )
    }
}

/// The same on any source of settings; `get` gives nothing for what is unset or empty.
/// `recovers`: the server is a standby, or on its way to a target.
fn check_settings<'a>(
    get: &dyn Fn(&str) -> Option<&'a str>,
    recovers: bool,
    lines: &mut Vec<Line>,
) {
    archiving(get, recovers, lines);
    preloading(get, lines);
    for (library, command) in JOBS {
        exclusive(library, command, get, lines);
    }
}

fn archiving<'a>(get: &dyn Fn(&str) -> Option<&'a str>, recovers: bool, lines: &mut Vec<Line>) {
    lines.push(match get("walden.archive") {
        Some(archive) => match archive.parse::<Location>() {
            Ok(location) => Line::passed(format!("walden.archive is \"{location}\"")),
            // One that is refused is not repeated, since it may hold a secret.
            Err(error) => Line::error(&error, "Correct walden.archive and reload."),
        },
        None => Line::failed(
            "walden.archive is not set",
            "Set walden.archive and reload.",
        ),
    });
    let is_off = get("archive_mode").is_none_or(|mode| {
        ["off", "false", "no", "0"].contains(&mode.to_ascii_lowercase().as_str())
    });
    if recovers && is_off {
        lines.push(Line::passed(
            "archive_mode is \"off\", this server only restores",
        ));
        return;
    }
    lines.push(
        match get("archive_mode")
            .unwrap_or("off")
            .to_ascii_lowercase()
            .as_str()
        {
            "always" => Line::passed("archive_mode is \"always\""),
            "on" | "true" | "yes" | "1" => Line::passed("archive_mode is \"on\""),
            other => Line::failed(
                format!("archive_mode is \"{other}\", nothing is archived"),
                "Set archive_mode = on and restart the server.",
            ),
        },
    );
    lines.push(match get("archive_library") {
        Some(library) if is_walden(library) => Line::passed("archive_library is Walden"),
        Some(library) => Line::failed(
            format!("archive_library is \"{library}\""),
            "Set archive_library = 'walden' and reload.",
        ),
        None if get("archive_command").is_some_and(runs_walden) => {
            Line::passed("archive_command runs Walden")
        }
        None => Line::failed(
            "archive_library is not set",
            "Set archive_library = 'walden' and reload.",
        ),
    });
    if get("archive_library").is_some() && get("archive_command").is_some() {
        lines.push(Line::failed(
            "archive_library and archive_command are both set",
            "Set archive_command = '': from version 16 on the archiver fails, and 15 ignores it.",
        ));
    }
    match get("wal_level").unwrap_or("replica") {
        level if level.eq_ignore_ascii_case("minimal") => lines.push(Line::failed(
            "wal_level is \"minimal\", which cannot be archived",
            "Set wal_level = replica and restart the server.",
        )),
        level => lines.push(Line::passed(format!("wal_level is \"{level}\""))),
    }
}

fn preloading<'a>(get: &dyn Fn(&str) -> Option<&'a str>, lines: &mut Vec<Line>) {
    let preloaded = get("shared_preload_libraries")
        .is_some_and(|list| list.split(',').any(|name| is_walden(name.trim())));
    let needed = JOBS.iter().find(|(library, _)| get(library).is_some());
    let cure = "Add walden to shared_preload_libraries and restart the server.";
    lines.push(match (preloaded, needed) {
        (true, _) => Line::passed("shared_preload_libraries has Walden"),
        (false, Some((library, _))) => {
            let found = format!(
                "{library} is set, but shared_preload_libraries does not have Walden, so it has no effect"
            );
            Line::failed(found, cure)
        }
        (false, None) => {
            Line::warning("shared_preload_libraries does not have Walden, recovery libraries need it", cure)
        }
    });
}

fn exclusive<'a>(
    library: &str,
    command: &str,
    get: &dyn Fn(&str) -> Option<&'a str>,
    lines: &mut Vec<Line>,
) {
    let (Some(name), Some(line)) = (get(library), get(command)) else {
        return;
    };
    lines.push(if runs_walden(line) {
        Line::passed(format!(
            "{library} is \"{name}\", {command} is Walden's own client"
        ))
    } else {
        Line::failed(
            format!("{library} and {command} are both set"),
            format!(
                "With both the server does not start. To keep the library, set {command} = ''."
            ),
        )
    });
}

/// Whether a library's name means Walden's: `walden`, `$libdir/walden`, `/path/walden.so`.
fn is_walden(library: &str) -> bool {
    let library = library.trim_matches('"');
    Path::new(library)
        .file_name()
        .is_some_and(|name| name == "walden" || name == "walden.so")
}

/// Whether a command's first word, or the one after `exec`, is this program, quoted or not.
fn runs_walden(command: &str) -> bool {
    let command = command.trim_start();
    let command = command
        .strip_prefix("exec ")
        .map_or(command, str::trim_start);
    let program = match command.strip_prefix(['\'', '"']) {
        Some(quoted) => quoted.split(['\'', '"']).next(),
        None => command.split_whitespace().next(),
    };
    program.is_some_and(|program| {
        Path::new(program)
            .file_name()
            .is_some_and(|name| name == "walden")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check_line::Verdict;

    /// How many lines failed and warned under these settings.
    fn verdicts(settings: &[(&str, &'static str)]) -> (usize, usize) {
        let get = |name: &str| {
            settings
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| *value)
        };
        let mut lines = Vec::new();
        check_settings(&get, false, &mut lines);
        let count = |verdict| {
            lines
                .iter()
                .filter(|line| line.verdict() == verdict)
                .count()
        };
        (count(Verdict::Failed), count(Verdict::Warning))
    }

    const GOOD: [(&str, &str); 5] = [
        ("walden.archive", "/srv/wal"),
        ("archive_mode", "on"),
        ("archive_library", "walden"),
        ("shared_preload_libraries", "pg_stat_statements, walden"),
        ("walden.restore_library", "walden"),
    ];

    #[test]
    fn the_recommended_configuration_passes() {
        assert_eq!(verdicts(&GOOD), (0, 0));
    }

    #[test]
    fn an_unconfigured_server_fails_in_archive_mode_and_library_and_warns_of_preloading() {
        assert_eq!(verdicts(&[]), (3, 1));
    }

    #[test]
    fn a_library_beside_a_foreign_command_fails_and_beside_waldens_client_passes() {
        for (command, failed) in [
            ("cp /srv/wal/%f %p", 1),
            ("walden restore %f %p", 0),
            (
                "'/usr/lib/postgresql/15/bin/walden' restore --library 'walden' \"%f\"",
                0,
            ),
            ("exec '/usr/bin/walden' restore --library 'walden' %f", 0),
            ("exec cp /srv/wal/%f %p", 1),
        ] {
            let settings = [&GOOD[..], &[("restore_command", command)]].concat();
            assert_eq!(verdicts(&settings).0, failed, "{command}");
        }
    }

    #[test]
    fn a_recovery_library_without_preloading_fails() {
        let settings: Vec<_> = GOOD
            .into_iter()
            .filter(|(name, _)| *name != "shared_preload_libraries")
            .collect();
        assert_eq!(verdicts(&settings), (1, 0));
    }

    #[test]
    fn minimal_wal_and_two_ways_of_archiving_fail() {
        let settings = [
            &GOOD[..],
            &[("wal_level", "minimal"), ("archive_command", "true")],
        ]
        .concat();
        assert_eq!(verdicts(&settings), (2, 0));
    }
}
