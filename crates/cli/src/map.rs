//! `walden map`: what an archive can be recovered to, as a picture.
//!
//! Guarantees that a page is written whole or not at all. Left to others: what is drawn (`audit`).

use crate::exit::Outcome;
use crate::flags::{Global, Map};
use crate::say;
use crate::survey;
use archive::Error;
use audit::map::{Blocks, Chart, Division, blocks, page};
use audit::targets::report;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The width of a terminal that does not tell it, and of a file.
const WIDTH: u16 = 80;

/// Draws the chart on the terminal, or into a file as a page.
pub(crate) fn run(flags: &Map, global: &Global) -> Outcome {
    let survey = match survey::read(&flags.survey, global) {
        Ok((_, survey)) => survey,
        Err(error) => {
            say::failure(&error);
            return Outcome::Failed;
        }
    };
    let Some(path) = &flags.output else {
        let how = Blocks {
            width: usize::from(width()),
            ascii: !is_utf8(),
        };
        return say::output(&blocks(&survey, how));
    };
    let text = page(&Chart::of(&survey, Division::Round), &report(&survey));
    match write(path, &text) {
        Ok(()) => Outcome::Done,
        Err(cause) => {
            let what = format!("could not write \"{}\"", path.display());
            say::failure(&Error::io(what, cause));
            Outcome::Failed
        }
    }
}

/// Writes beside the place, and puts it there; through what is no plain file, such as a pipe, it writes at once.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return write_through(path, text);
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mut staged = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder.unwrap_or(Path::new(".")))?;
    staged.write_all(text.as_bytes())?;
    staged.persist(path).map_err(|failed| failed.error)?;
    Ok(())
}

/// Writes into a pipe or a device. A pipe without a reader is an error, not something to wait for.
fn write_through(path: &Path, text: &str) -> std::io::Result<()> {
    let opened = File::options()
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path);
    let mut file = opened.map_err(|cause| match cause.raw_os_error() {
        Some(code) if code == Errno::NXIO.raw_os_error() => {
            std::io::Error::new(cause.kind(), "it has no reader")
        }
        _ => cause,
    })?;
    let flags = fcntl_getfl(&file)?;
    fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    file.write_all(text.as_bytes())
}

fn width() -> u16 {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return WIDTH;
    }
    rustix::termios::tcgetwinsize(&stdout)
        .map(|size| size.ws_col)
        .ok()
        .filter(|width| *width > 0)
        .unwrap_or(WIDTH)
}

/// Whether the locale has characters beyond ASCII, by the first of the variables that is set.
fn is_utf8() -> bool {
    let set = |name: &&str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(set);
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}
