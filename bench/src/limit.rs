//! The limits that contenders are measured against: what plain programs get out of the same disk.
//!
//! Two of them. *A file each*: one thread reads each segment and writes it to a file of its own, which it syncs
//! before it goes on; nothing is compressed, no directory is synced, no server is asked. *One file*: all bytes
//! into one file, with one fsync at the end; no archive can answer "archived" like that.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::Lab;

use crate::results::number;

/// Bytes moved at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Writes `bytes` into one new file below the lab's directory and syncs it: MB/s.
///
/// # Errors
///
/// When the disk cannot be written to.
pub(crate) fn disk_speed(lab: &Lab, bytes: u64) -> Result<f64> {
    let path = lab.dir().join("disk-speed");
    let chunk: Vec<u8> = (0_u8..=255).cycle().take(CHUNK_BYTES).collect();
    let begun = Instant::now();
    let mut file = File::create_new(&path)?;
    for _ in 0..bytes / number_of_bytes(CHUNK_BYTES) {
        file.write_all(&chunk)?;
    }
    file.sync_all()?;
    let took = begun.elapsed();
    drop(file);
    fs::remove_file(&path)?;
    Ok(number(bytes) / 1e6 / took.as_secs_f64())
}

fn number_of_bytes(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Copies each file into `into`, syncing each before the next.
///
/// # Errors
///
/// When a file cannot be read or written.
pub(crate) fn a_file_each(files: &[PathBuf], into: &Path) -> Result<Duration> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let begun = Instant::now();
    for from in files {
        let name = from.file_name().context("a file without a name")?;
        let mut to = File::create_new(into.join(name))?;
        append(from, &mut to, &mut chunk)?;
        to.sync_all()?;
    }
    Ok(begun.elapsed())
}

/// Copies all files into one, and syncs that once.
///
/// # Errors
///
/// When a file cannot be read or written.
pub(crate) fn one_file(files: &[PathBuf], into: &Path) -> Result<Duration> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let begun = Instant::now();
    let mut to = File::create_new(into.join("all"))?;
    for from in files {
        append(from, &mut to, &mut chunk)?;
    }
    to.sync_all()?;
    Ok(begun.elapsed())
}

fn append(from: &Path, to: &mut File, chunk: &mut [u8]) -> Result<()> {
    let mut from =
        File::open(from).with_context(|| format!("could not open \"{}\"", from.display()))?;
    loop {
        let read = from.read(chunk)?;
        let Some(bytes) = chunk.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        to.write_all(bytes)?;
    }
}
