//! A server's configuration, read from its files as the server reads them, for when no server can be asked.
//!
//! Guarantees: the last setting of a name wins, names are case-insensitive, includes are followed in place
//! and to the server's depth, `postgresql.auto.conf` comes after, and options of the last start's command
//! line (`postmaster.opts`) come last. Sources: `guc-file.l` and `ParseConfigFp` (15 to 18),
//! `CreateOptsFile`.
//!
//! Left out, knowingly: per-role and per-database settings, and whether a parameter exists at all.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::conf_line::{Setting, parse_line};
use crate::error::Error;

/// How deep includes may nest: `CONF_FILE_MAX_DEPTH`, 15 to 18.
const INCLUDE_DEPTH_MAX: u32 = 10;

/// The largest configuration file believed, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The settings of a server's configuration files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerConf {
    /// By lower-case name.
    values: BTreeMap<String, String>,
}

impl ServerConf {
    /// Reads the configuration of the server with this data directory.
    ///
    /// The configuration file is the one named on the command line of its last start, else
    /// `postgresql.conf` in the data directory. Fails with [`crate::ErrorKind::Unusable`] for a file that
    /// the server would refuse, naming file and line, or if there is none;
    /// [`crate::ErrorKind::Unavailable`] if one cannot be read.
    pub fn read(data_dir: &Path) -> Result<ServerConf, Error> {
        let options = command_line(data_dir)?;
        let mut conf = ServerConf::default();
        let file = match options
            .iter()
            .rev()
            .find(|option| option.name == "config_file")
        {
            Some(option) => data_dir.join(&option.value),
            None => data_dir.join("postgresql.conf"),
        };
        conf.read_files(&file, data_dir)?;
        for option in options {
            conf.set(&option);
        }
        Ok(conf)
    }

    /// Reads one configuration file and the data directory's `postgresql.auto.conf`, but no command line.
    ///
    /// Fails as [`ServerConf::read`] does.
    pub fn read_file(config_file: &Path, data_dir: &Path) -> Result<ServerConf, Error> {
        let mut conf = ServerConf::default();
        conf.read_files(config_file, data_dir)?;
        Ok(conf)
    }

    /// A parameter's value as written, without its quotes; `None` if nothing sets it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values
            .get(&name.to_ascii_lowercase())
            .map(String::as_str)
    }

    fn set(&mut self, setting: &Setting) {
        self.values
            .insert(setting.name.to_ascii_lowercase(), setting.value.clone());
    }

    fn read_files(&mut self, config_file: &Path, data_dir: &Path) -> Result<(), Error> {
        self.include(config_file, true, 0)?;
        // A configuration directory of its own names the data directory, where ALTER SYSTEM writes.
        let data_dir = match self.get("data_directory") {
            Some(named) if !named.is_empty() => data_dir.join(named),
            _ => data_dir.to_owned(),
        };
        self.include(&data_dir.join("postgresql.auto.conf"), false, 0)
    }

    /// Reads one file. A missing one is an error only if it is `required`.
    fn include(&mut self, file: &Path, required: bool, depth: u32) -> Result<(), Error> {
        if depth > INCLUDE_DEPTH_MAX {
            return Err(Error::unusable(format!(
                "could not open configuration file \"{}\": maximum nesting depth exceeded",
                file.display()
            )));
        }
        let Some(text) = read_text(file, required)? else {
            return Ok(());
        };
        for (line, number) in text.split('\n').zip(1_u64..) {
            let setting = parse_line(line).map_err(|near| {
                Error::unusable(format!(
                    "syntax error in file \"{}\" line {number}, near \"{near}\"",
                    file.display()
                ))
            })?;
            if let Some(setting) = setting {
                self.obey(&setting, file, number, depth)?;
            }
        }
        Ok(())
    }

    /// A setting is kept; an include is followed, relative to the file it stands in.
    fn obey(&mut self, setting: &Setting, file: &Path, line: u64, depth: u32) -> Result<(), Error> {
        let name = setting.name.to_ascii_lowercase();
        if !matches!(
            name.as_str(),
            "include" | "include_if_exists" | "include_dir"
        ) {
            self.set(setting);
            return Ok(());
        }
        let here = |error: Error| {
            let kind = error.kind();
            let place = format!("in file \"{}\" line {line}", file.display());
            // An error from further down names its own place already.
            if error.to_string().contains("\" line ") {
                error
            } else {
                Error::new(kind, format!("{error} ({place})"))
            }
        };
        if setting.value.trim().is_empty() {
            return Err(here(Error::unusable(format!(
                "empty file or directory name for \"{name}\""
            ))));
        }
        let target = match file.parent() {
            Some(parent) => parent.join(&setting.value),
            None => PathBuf::from(&setting.value),
        };
        if name == "include_dir" {
            for file in conf_files(&target).map_err(here)? {
                self.include(&file, true, depth + 1).map_err(here)?;
            }
            return Ok(());
        }
        self.include(&target, name == "include", depth + 1)
            .map_err(here)
    }
}

/// The `*.conf` files of a directory, sorted by bytes, hidden ones and directories left out.
fn conf_files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let could_not = |cause: io::Error| {
        Error::io(
            format!(
                "could not open configuration directory \"{}\"",
                dir.display()
            ),
            cause,
        )
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(could_not)? {
        let entry = entry.map_err(could_not)?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if !name.starts_with(b".") && name.ends_with(b".conf") && !entry.path().is_dir() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// A file's text. Bytes that are not UTF-8 are replaced: the settings Walden asks for are texts.
fn read_text(file: &Path, required: bool) -> Result<Option<String>, Error> {
    let failed = |cause: io::Error| {
        let missing = cause.kind() == io::ErrorKind::NotFound;
        let what = format!("could not open configuration file \"{}\"", file.display());
        let error = Error::io(what, cause);
        if missing {
            error.with_kind(crate::ErrorKind::Unusable)
        } else {
            error
        }
    };
    let opened = match fs::File::open(file) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound && !required => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    opened
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let shown = file.display();
        return Err(Error::unusable(format!(
            "configuration file \"{shown}\" is longer than {FILE_BYTES_MAX} bytes"
        )));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The settings on the command line of the server's last start: `-c name=value`, `-cname=value`,
/// `--name=value`.
fn command_line(data_dir: &Path) -> Result<Vec<Setting>, Error> {
    let Some(text) = read_text(&data_dir.join("postmaster.opts"), false)? else {
        return Ok(Vec::new());
    };
    let line = text.lines().next().unwrap_or_default();
    // The program, then every argument in double quotes, which are not escaped inside.
    let arguments = line
        .split_once(" \"")
        .map(|(_, rest)| rest.trim_end().trim_end_matches('"'));
    let mut settings = Vec::new();
    let mut arguments = arguments.into_iter().flat_map(|rest| rest.split("\" \""));
    while let Some(argument) = arguments.next() {
        let setting = if argument == "-c" {
            arguments.next()
        } else {
            argument
                .strip_prefix("--")
                .or_else(|| argument.strip_prefix("-c"))
        };
        if let Some((name, value)) = setting.and_then(|setting| setting.split_once('=')) {
            // ParseLongOption: dashes in the name mean underscores.
            let name = name.replace('-', "_").to_ascii_lowercase();
            settings.push(Setting {
                name,
                value: value.to_owned(),
            });
        }
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use tempfile::{TempDir, tempdir};

    fn write(dir: &TempDir, name: &str, text: &str) {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_last_setting_wins_and_auto_conf_comes_after() {
        let dir = tempdir().unwrap();
        write(
            &dir,
            "postgresql.conf",
            "walden.archive = '/a'\nWALDEN.Archive = '/b'\nport = 1\n",
        );
        let conf = ServerConf::read(dir.path()).unwrap();
        assert_eq!(conf.get("walden.archive"), Some("/b"));
        assert_eq!(conf.get("Walden.Archive"), Some("/b"));
        assert_eq!(conf.get("walden.verify"), None);
        write(
            &dir,
            "postgresql.auto.conf",
            "# by ALTER SYSTEM\nwalden.archive = '/c'\n",
        );
        assert_eq!(
            ServerConf::read(dir.path()).unwrap().get("walden.archive"),
            Some("/c")
        );
    }

    #[test]
    fn includes_are_followed_in_place_relative_to_their_file() {
        let dir = tempdir().unwrap();
        write(
            &dir,
            "postgresql.conf",
            "a=1\ninclude 'sub/more.conf'\ninclude_if_exists 'none'\nc=9\n",
        );
        write(
            &dir,
            "sub/more.conf",
            "a = 2\nb = 2\nc = 2\ninclude_dir 'd'\n",
        );
        write(&dir, "sub/d/02.conf", "b = 4\n");
        write(&dir, "sub/d/01.conf", "b = 3\nd = 3\n");
        write(&dir, "sub/d/.hidden.conf", "d = 5\n");
        write(&dir, "sub/d/03.conf.bak", "d = 6\n");
        let conf = ServerConf::read(dir.path()).unwrap();
        let values = ["a", "b", "c", "d"].map(|name| conf.get(name).unwrap().to_owned());
        assert_eq!(values, ["2", "4", "9", "3"]);
    }

    #[test]
    fn an_error_names_file_and_line() {
        let dir = tempdir().unwrap();
        write(&dir, "postgresql.conf", "a = 1\n\nwalden.archive = /srv\n");
        let error = ServerConf::read(dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unusable);
        assert!(
            error
                .to_string()
                .ends_with("postgresql.conf\" line 3, near \"/srv\""),
            "{error}"
        );
        write(&dir, "postgresql.conf", "include 'missing.conf'\n");
        let error = ServerConf::read(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("missing.conf") && error.contains("line 1"),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_includes_itself_is_an_error_and_no_endless_loop() {
        let dir = tempdir().unwrap();
        write(&dir, "postgresql.conf", "include 'postgresql.conf'\n");
        let error = ServerConf::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("maximum nesting depth exceeded"), "{error}");
    }

    #[test]
    fn the_command_line_of_the_last_start_names_the_file_and_overrides_it() {
        let (dir, etc) = (tempdir().unwrap(), tempdir().unwrap());
        write(
            &etc,
            "x.conf",
            "walden.archive = '/etc'\nwalden.verify = off\n",
        );
        let opts = format!(
            "/usr/lib/postgresql/15/bin/postgres \"-D\" \"{}\" \"-c\" \"config_file={}/x.conf\" \
             \"--walden.archive=/with space\" \"-clog-statement=all\"\n",
            dir.path().display(),
            etc.path().display()
        );
        write(&dir, "postmaster.opts", &opts);
        let conf = ServerConf::read(dir.path()).unwrap();
        assert_eq!(conf.get("walden.archive"), Some("/with space"));
        assert_eq!(conf.get("walden.verify"), Some("off"));
        assert_eq!(conf.get("log_statement"), Some("all"));
    }

    #[test]
    fn a_configuration_directory_leads_to_the_data_directorys_auto_conf() {
        let (dir, etc) = (tempdir().unwrap(), tempdir().unwrap());
        let text = format!("data_directory = '{}'\n", dir.path().display());
        write(&etc, "postgresql.conf", &text);
        write(&dir, "postgresql.auto.conf", "walden.archive = '/auto'\n");
        assert_eq!(
            ServerConf::read(etc.path()).unwrap().get("walden.archive"),
            Some("/auto")
        );
    }
}
