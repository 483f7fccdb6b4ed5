//! The region: one section for each writer, guarded by a sequence counter.
//!
//! Guarantees: [`Section::read`] gives what one [`Section::write`] wrote, whole, or nothing; it waits for nothing and takes
//! no lock. A writer that dies in the middle leaves a section that reads as nothing until the next writer. Leaves to
//! writers: that a section has one writer at a time.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Words of the whole region: 64 kB.
pub const WORDS: usize = 8192;

/// How often a reader tries that meets a writer at work. One write takes some microseconds.
const READ_TRIES_MAX: usize = 64;

/// Words before a section's bytes: sequence counter, process identifier of the writer, number of bytes.
const HEADER: usize = 3;

/// Who writes a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// The server's archiver.
    Archiver,
    /// Walden's recovery worker.
    Recovery,
}

impl Writer {
    /// First word of the section and the one behind the last. What is left is for writers to come.
    fn place(self) -> (usize, usize) {
        match self {
            Writer::Archiver => (0, 3072),
            Writer::Recovery => (3072, 6144),
        }
    }
}

/// One section of the region.
#[derive(Debug, Clone, Copy)]
pub struct Section<'a> {
    words: &'a [AtomicU64],
}

/// What a section held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Process identifier of the writer.
    pub pid: u32,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl<'a> Section<'a> {
    /// The writer's section of a region; `None` if the region is too small.
    #[must_use]
    pub fn of(region: &'a [AtomicU64], writer: Writer) -> Option<Section<'a>> {
        let (first, end) = writer.place();
        region.get(first..end).map(|words| Section { words })
    }

    /// Most bytes that fit.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.words.len().saturating_sub(HEADER) * size_of::<u64>()
    }

    /// Writes the whole section. Bytes that do not fit are not written at all: false.
    pub fn write(&self, pid: u32, bytes: &[u8]) -> bool {
        let [sequence, writer, length, content @ ..] = self.words else {
            return false;
        };
        if bytes.len() > self.bytes_max() {
            return false;
        }
        // Odd while it is written. It may be odd already, if another writer died in the middle.
        let odd = sequence.load(Ordering::Relaxed) | 1;
        sequence.store(odd, Ordering::Relaxed);
        fence(Ordering::Release);
        writer.store(u64::from(pid), Ordering::Relaxed);
        length.store(bytes.len() as u64, Ordering::Relaxed);
        for (word, chunk) in content.iter().zip(bytes.chunks(size_of::<u64>())) {
            let mut padded = [0; size_of::<u64>()];
            for (to, from) in padded.iter_mut().zip(chunk) {
                *to = *from;
            }
            word.store(u64::from_ne_bytes(padded), Ordering::Relaxed);
        }
        sequence.store(odd.wrapping_add(1), Ordering::Release);
        true
    }

    /// What was written last; `None` if nothing was, or if it is being written all the time.
    #[must_use]
    pub fn read(&self) -> Option<Written> {
        (0..READ_TRIES_MAX).find_map(|_| self.read_once())?
    }

    /// The outer `None`: a writer was at work. The inner: nothing has been written.
    fn read_once(&self) -> Option<Option<Written>> {
        let [sequence, writer, length, content @ ..] = self.words else {
            return Some(None);
        };
        let before = sequence.load(Ordering::Acquire);
        if before == 0 {
            return Some(None);
        }
        if before % 2 == 1 {
            std::hint::spin_loop();
            return None;
        }
        let pid = writer.load(Ordering::Relaxed);
        // Bounded by the words that are there, whatever the length says.
        let length = usize::try_from(length.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        let mut bytes: Vec<u8> = content
            .iter()
            .take(length.div_ceil(size_of::<u64>()))
            .flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes())
            .collect();
        bytes.truncate(length);
        fence(Ordering::Acquire);
        if sequence.load(Ordering::Relaxed) != before {
            return None;
        }
        let pid = u32::try_from(pid).unwrap_or(0);
        Some(Some(Written { pid, bytes }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn region() -> Vec<AtomicU64> {
        (0..WORDS).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn what_was_written_is_read_and_nothing_before_that() {
        let region = region();
        let section = Section::of(&region, Writer::Recovery).unwrap();
        assert_eq!(section.read(), None);
        for text in ["", "x", "eight by", "a text that takes more than one word"] {
            assert!(section.write(7, text.as_bytes()));
            let written = section.read().unwrap();
            assert_eq!((written.pid, written.bytes), (7, text.as_bytes().to_vec()));
        }
        let other = Section::of(&region, Writer::Archiver).unwrap();
        assert_eq!(other.read(), None, "sections overlap");
    }

    #[test]
    fn what_does_not_fit_leaves_the_section_as_it_was() {
        let region = region();
        let section = Section::of(&region, Writer::Archiver).unwrap();
        assert!(section.write(1, b"before"));
        assert!(!section.write(1, &vec![1; section.bytes_max() + 1]));
        assert_eq!(section.read().unwrap().bytes, b"before");
        assert!(section.write(1, &vec![2; section.bytes_max()]));
        assert_eq!(section.read().unwrap().bytes.len(), section.bytes_max());
    }

    #[test]
    fn a_section_whose_writer_died_in_the_middle_reads_as_nothing_until_the_next_write() {
        let region = region();
        let section = Section::of(&region, Writer::Archiver).unwrap();
        assert!(section.write(1, b"whole"));
        // As a writer that is killed after its first store leaves it.
        region[0].fetch_or(1, Ordering::Relaxed);
        assert_eq!(section.read(), None);
        assert!(section.write(2, b"next"));
        assert_eq!(section.read().unwrap().pid, 2);
    }

    #[test]
    fn a_reader_never_sees_parts_of_two_writes() {
        let region = region();
        let done = AtomicBool::new(false);
        let section = Section::of(&region, Writer::Archiver).unwrap();
        let mut seen = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..20_000_u32 {
                    let byte = round.to_ne_bytes()[0];
                    section.write(u32::from(byte), &vec![byte; 64 + usize::from(byte) * 8]);
                }
                done.store(true, Ordering::Relaxed);
            });
            while !done.load(Ordering::Relaxed) || seen == 0 {
                if let Some(written) = section.read() {
                    let byte = written.bytes[0];
                    assert!(written.bytes.iter().all(|other| *other == byte), "torn");
                    assert_eq!(written.pid, u32::from(byte));
                    assert_eq!(written.bytes.len(), 64 + usize::from(byte) * 8);
                    seen += 1;
                }
            }
        });
        assert!(seen > 0);
    }
}
