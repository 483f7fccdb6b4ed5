//! A server's configuration, read from its files as the server reads them, for when no server can be asked.
//!
//! Guarantees: the last setting of a name wins, names are case-insensitive, includes are followed in place
//! and to the server's depth, `postgresql.auto.conf` comes after, and options of the last start's command
//! line (`postmaster.opts`) come last. Sources: `guc-file.l` and `ParseConfigFp` (15 to 18),
//! `CreateOptsFile`.
//!
//! Left out, knowingly: per-role and per-database settings, and whether a parameter exists at all.
//!
//! The file is long because more than half of it are tests, one for each way in which a server finds its configuration.

mod error;
mod line;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::line::{Setting, parse_line};

pub use error::{Error, ErrorKind};

/// How deep includes may nest: `CONF_FILE_MAX_DEPTH`, 15 to 18.
const INCLUDE_DEPTH_MAX: u32 = 10;

/// The largest configuration file believed, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How many configuration files are read in all: includes that include several others grow without end long before they are
/// too deep.
const FILES_MAX: u32 = 1000;

/// How many bytes they may have in all.
const ALL_BYTES_MAX: u64 = 4 * FILE_BYTES_MAX;

/// Where Debian keeps the configuration of each cluster, apart from its data (`pg_createcluster`).
const DEBIAN_CONFIGURATIONS: &str = "/etc/postgresql";

/// The settings of a server's configuration files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerConf {
    /// By lower-case name.
    values: BTreeMap<String, String>,
    read: Read,
}

/// How much has been read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Read {
    files: u32,
    bytes: u64,
}

impl ServerConf {
    /// Reads the configuration of the server with this data directory.
    ///
    /// The configuration file is the one named on the command line of its last start, else
    /// `postgresql.conf` in the data directory, else in the configuration directory that the last start was given for
    /// this data directory. Fails with [`ErrorKind::Unusable`] for a file that
    /// the server would refuse, naming file and line, or if there is none;
    /// [`ErrorKind::Unavailable`] if one cannot be read.
    pub fn read(data_dir: &Path) -> Result<ServerConf, Error> {
        ServerConf::read_beside(data_dir, Path::new(DEBIAN_CONFIGURATIONS))
    }

    fn read_beside(data_dir: &Path, debian: &Path) -> Result<ServerConf, Error> {
        let options = command_line(data_dir)?;
        let own = data_dir.join("postgresql.conf");
        let named = options.settings.iter().rev();
        let mut named = named.filter(|option| option.name == "config_file");
        let file = match named.next() {
            Some(option) => data_dir.join(&option.value),
            None => own.clone(),
        };
        let mut conf = ServerConf::default();
        if file == own && !own.exists() {
            // As `postgres -D DIRECTORY` was started, with `data_directory` in its configuration.
            let apart = options.directory.as_deref();
            conf = apart
                .and_then(|directory| read_apart(directory, data_dir).transpose())
                .unwrap_or_else(|| Err(no_configuration(&own, data_dir, debian)))?;
        } else {
            conf.read_files(&file, data_dir)?;
        }
        for option in options.settings {
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

    /// Names of the parameters that something sets, in lower case, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
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
        self.read.files += 1;
        self.read.bytes += text.len() as u64;
        if self.read.files > FILES_MAX || self.read.bytes > ALL_BYTES_MAX {
            return Err(Error::unusable(format!(
                "could not read configuration file \"{}\": more than {FILES_MAX} files, or {ALL_BYTES_MAX} bytes, are \
                 included",
                file.display()
            )));
        }
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
        let what = format!(
            "could not open configuration directory \"{}\"",
            dir.display()
        );
        Error::io(&what, &cause)
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(could_not)? {
        let entry = entry.map_err(could_not)?;
        if files.len() > FILES_MAX as usize {
            // One more than may be read is enough to say so.
            break;
        }
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
        let what = format!("could not open configuration file \"{}\"", file.display());
        let error = Error::io(&what, &cause);
        if cause.kind() == io::ErrorKind::NotFound {
            Error::unusable(error.to_string())
        } else {
            error
        }
    };
    let opened = match open_without_waiting(file) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound && !required => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    // An empty device, "/dev/null", is an empty file to the server too; a fifo would be waited for.
    let kind = opened.metadata().map_err(failed)?.file_type();
    if !kind.is_file() && !kind.is_char_device() {
        let shown = file.display();
        return Err(Error::unusable(format!(
            "configuration file \"{shown}\" is not a regular file"
        )));
    }
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

/// Opens whatever it is for reading: a fifo without waiting for somebody to write into it.
fn open_without_waiting(path: &Path) -> io::Result<fs::File> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    fs::File::options()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)
}

/// What the server's last start was told.
#[derive(Debug, Default)]
struct CommandLine {
    settings: Vec<Setting>,
    /// `-D`, if it is an absolute path: what a relative one was relative to nobody knows.
    directory: Option<PathBuf>,
}

/// The command line of the server's last start: `-c name=value`, `-cname=value`, `--name=value`, `-D directory`.
fn command_line(data_dir: &Path) -> Result<CommandLine, Error> {
    let mut given = CommandLine::default();
    let Some(text) = read_text(&data_dir.join("postmaster.opts"), false)? else {
        return Ok(given);
    };
    let line = text.lines().next().unwrap_or_default();
    // The program, then every argument in double quotes, which are not escaped inside.
    let arguments = line
        .split_once(" \"")
        .map(|(_, rest)| rest.trim_end().trim_end_matches('"'));
    let mut arguments = arguments.into_iter().flat_map(|rest| rest.split("\" \""));
    while let Some(argument) = arguments.next() {
        let directory = match argument {
            "-D" => arguments.next(),
            _ => argument.strip_prefix("-D"),
        };
        if let Some(directory) = directory {
            given.directory = Some(PathBuf::from(directory)).filter(|path| path.is_absolute());
            continue;
        }
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
            given.settings.push(Setting {
                name,
                value: value.to_owned(),
            });
        }
    }
    Ok(given)
}

/// The configuration in a directory of its own, if it is this data directory's: `postmaster.opts` may have been copied with
/// the data of another server, whose configuration is none of ours.
fn read_apart(directory: &Path, data_dir: &Path) -> Result<Option<ServerConf>, Error> {
    let file = directory.join("postgresql.conf");
    if !file.exists() {
        return Ok(None);
    }
    let mut conf = ServerConf::default();
    conf.read_files(&file, directory)?;
    let named = conf.get("data_directory").unwrap_or_default();
    let named = directory.join(named).canonicalize().ok();
    let is_ours = named.is_some() && named == data_dir.canonicalize().ok();
    Ok(is_ours.then_some(conf))
}

/// There is no `postgresql.conf` where it should be. Debian keeps it apart, below a directory of the same two last parts.
fn no_configuration(file: &Path, data_dir: &Path, debian: &Path) -> Error {
    let error = match read_text(file, true) {
        Err(error) => error,
        // It has come back meanwhile.
        Ok(_) => Error::unavailable(format!("file \"{}\" was not there", file.display())),
    };
    let full = data_dir.canonicalize().unwrap_or_default();
    let parts = full
        .file_name()
        .zip(full.parent().and_then(Path::file_name));
    let beside = parts.map(|(cluster, version)| debian.join(version).join(cluster));
    match beside.filter(|directory| directory.join("postgresql.conf").is_file()) {
        Some(directory) => error.with_hint(format!(
            "This cluster's configuration is elsewhere: use -D {}.",
            directory.display()
        )),
        None => error.with_hint(
            "Where the configuration lies in a directory of its own, give that one with -D; it names the data directory.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn a_fifo_is_refused_at_once_wherever_a_file_is_expected() {
        for name in [
            "postgresql.conf",
            "postgresql.auto.conf",
            "postmaster.opts",
            "d/x.conf",
        ] {
            let dir = tempdir().unwrap();
            write(&dir, "d/none", "");
            write(&dir, "postgresql.conf", "include_dir 'd'\n");
            let fifo = dir.path().join(name);
            let _ = fs::remove_file(&fifo);
            let made = std::process::Command::new("mkfifo").arg(&fifo).status();
            assert!(made.unwrap().success());
            let error = ServerConf::read(dir.path()).unwrap_err();
            assert!(
                error.to_string().contains("is not a regular file"),
                "{name}: {error}"
            );
        }
        let dir = tempdir().unwrap();
        write(&dir, "postgresql.conf", "include '/dev/null'\na = 1\n");
        assert_eq!(ServerConf::read(dir.path()).unwrap().get("a"), Some("1"));
    }

    #[test]
    fn includes_that_fan_out_are_an_error_and_take_no_time() {
        let dir = tempdir().unwrap();
        // Nine levels of ten: a thousand million files to the server.
        for level in 0..9 {
            let next = level + 1;
            write(
                &dir,
                &format!("{level}.conf"),
                &format!("include '{next}.conf'\n").repeat(10),
            );
        }
        write(&dir, "9.conf", "a = 1\n");
        write(&dir, "postgresql.conf", "include '0.conf'\n");
        let error = ServerConf::read(dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unusable);
        assert!(
            error.to_string().contains("more than 1000 files"),
            "{error}"
        );
    }

    /// A data directory without a configuration, and a configuration that names it.
    fn apart() -> (TempDir, TempDir) {
        let (dir, etc) = (tempdir().unwrap(), tempdir().unwrap());
        write(&dir, "postgresql.auto.conf", "walden.verify = off\n");
        let text = format!(
            "data_directory = '{}'\nwalden.archive = '/etc'\n",
            dir.path().display()
        );
        write(&etc, "postgresql.conf", &text);
        (dir, etc)
    }

    #[test]
    fn the_configuration_directory_of_the_last_start_is_found_from_the_data_directory() {
        let (dir, etc) = apart();
        for form in [r#""-D" "{}""#, r#""-D{}""#] {
            let directory = form.replace("{}", &etc.path().display().to_string());
            write(
                &dir,
                "postmaster.opts",
                &format!("/x/postgres {directory}\n"),
            );
            let conf = ServerConf::read(dir.path()).unwrap();
            assert_eq!(conf.get("walden.archive"), Some("/etc"));
            assert_eq!(conf.get("walden.verify"), Some("off"));
        }
    }

    #[test]
    fn the_configuration_of_another_data_directory_is_not_taken_for_this_ones() {
        let (original, etc) = apart();
        let copy = tempdir().unwrap();
        let opts = format!("/x/postgres \"-D\" \"{}\"\n", etc.path().display());
        write(&original, "postmaster.opts", &opts);
        write(&copy, "postmaster.opts", &opts);
        ServerConf::read(original.path()).unwrap();
        let error = ServerConf::read(copy.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unusable, "{error}");
    }

    #[test]
    fn without_a_command_line_the_error_names_debians_directory() {
        let (var, etc) = (tempdir().unwrap(), tempdir().unwrap());
        write(&var, "15/main/PG_VERSION", "15\n");
        let data = var.path().join("15/main");
        let error = ServerConf::read_beside(&data, etc.path()).unwrap_err();
        assert!(error.hint().unwrap().contains("-D"), "{error:?}");
        write(&etc, "15/main/postgresql.conf", "");
        let error = ServerConf::read_beside(&data, etc.path()).unwrap_err();
        let directory = etc.path().join("15/main");
        assert_eq!(error.kind(), ErrorKind::Unusable);
        assert_eq!(
            error.hint(),
            Some(
                format!(
                    "This cluster's configuration is elsewhere: use -D {}.",
                    directory.display()
                )
                .as_str()
            )
        );
    }
}
