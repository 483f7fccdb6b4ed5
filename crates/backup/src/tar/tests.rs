//! Tar files made here, as the server makes them, and as none should be.

use super::*;

/// A header as the server makes it.
pub(crate) fn header(name: &str, kind: u8, bytes: u64, link: &str) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000600 ");
    put(108, b"0000000 0000000 ");
    if bytes < 1 << 33 {
        put(124, format!("{bytes:011o} ").as_bytes());
    } else {
        put(124, &[0x80, 0, 0, 0]);
        put(128, &bytes.to_be_bytes());
    }
    put(136, b"15070707070 ");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    put(265, b"postgres");
    seal(&mut block);
    block
}

fn seal(block: &mut [u8; BLOCK_BYTES]) {
    let sum = checksum(block);
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A tar file of these files, without its end.
pub(crate) fn members(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, contents) in files {
        tar.extend(header(name, b'0', contents.len() as u64, ""));
        tar.extend(*contents);
        tar.resize(tar.len().next_multiple_of(BLOCK_BYTES), 0);
    }
    tar
}

/// The same with its end.
pub(crate) fn whole(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = members(files);
    tar.extend(TRAILER);
    tar
}

/// Notes what it is told.
#[derive(Default)]
struct Notes {
    members: Vec<(Member, Vec<u8>)>,
    ended: usize,
    all: Vec<u8>,
}

impl Visitor for Notes {
    fn member(&mut self, member: &Member, header: &[u8]) -> Result<(), Error> {
        self.members.push((member.clone(), Vec::new()));
        self.all.extend(header);
        Ok(())
    }

    fn contents(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.members.last_mut().unwrap().1.extend(bytes);
        self.all.extend(bytes);
        Ok(())
    }

    fn padding(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.all.extend(bytes);
        Ok(())
    }

    fn member_ends(&mut self) -> Result<(), Error> {
        self.ended += 1;
        Ok(())
    }
}

fn read(tar: &[u8], piece: usize) -> Result<Notes, Error> {
    let mut notes = Notes::default();
    let mut parser = Parser::new("x.tar".to_owned());
    for piece in tar.chunks(piece) {
        parser.feed(piece, &mut notes)?;
    }
    parser.finish()?;
    Ok(notes)
}

#[test]
fn members_are_told_with_their_contents_whatever_pieces_the_file_comes_in() {
    let long = vec![7; 1500];
    let mut tar = members(&[
        ("backup_label", b"x"),
        ("empty", b""),
        ("base/1/1259", &long),
    ]);
    tar.extend(header("./pg_wal/archive_status", b'5', 0, ""));
    tar.extend(header("pg_tblspc/16384", b'2', 0, "/somewhere"));
    let body = tar.clone();
    tar.extend(TRAILER);
    for piece in [1, 3, 511, 512, 513, 1024, 100_000] {
        let notes = read(&tar, piece).unwrap();
        let told: Vec<(&[u8], u64, usize)> = notes
            .members
            .iter()
            .map(|(member, contents)| (member.name.as_slice(), member.bytes, contents.len()))
            .collect();
        let expected: [(&[u8], u64, usize); 5] = [
            (b"backup_label", 1, 1),
            (b"empty", 0, 0),
            (b"base/1/1259", 1500, 1500),
            (b"./pg_wal/archive_status", 0, 0),
            (b"pg_tblspc/16384", 0, 0),
        ];
        assert_eq!(told, expected, "pieces of {piece}");
        assert_eq!(notes.members[4].0.what, What::Link(b"/somewhere".to_vec()));
        assert_eq!((notes.ended, notes.members[0].0.mode), (5, 0o600));
        assert_eq!(notes.all, body);
    }
}

#[test]
fn a_size_beyond_octal_digits_is_read() {
    let block = header("base/1/1", b'0', 20 << 30, "");
    assert_eq!(parse(&block).unwrap().bytes, 20 << 30);
    assert_eq!(parse(&block).unwrap().bytes_in_tar(), (20 << 30) + 512);
    let largest = header("x", b'0', i64::MAX.unsigned_abs(), "");
    assert!(parse(&largest).is_ok());
    let larger = header("x", b'0', u64::MAX, "");
    assert!(parse(&larger).unwrap_err().contains("cannot have"));
}

#[test]
fn a_file_that_breaks_off_anywhere_is_not_whole() {
    let tar = whole(&[("a", b"contents"), ("b", &[1; 600])]);
    for end in 0..tar.len() {
        assert!(read(&tar[..end], 4096).is_err(), "cut at {end}");
    }
    assert!(read(&tar, 4096).is_ok());
    let more = [tar.as_slice(), &[0; 9000]].concat();
    assert!(read(&more, 4096).is_ok(), "GNU tar fills up its records");
    let more = [tar.as_slice(), b"x"].concat();
    assert!(read(&more, 4096).is_err());
}

#[test]
fn a_flipped_bit_in_a_header_is_seen() {
    let tar = whole(&[("a", b"contents")]);
    for bit in 0..BLOCK_BYTES * 8 {
        let mut flipped = tar.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let refused = read(&flipped, 4096).is_err();
        // Blanks and NULs around the digits of the checksum say nothing.
        assert!(refused || (148..156).contains(&(bit / 8)), "bit {bit}");
    }
}

#[test]
fn what_the_server_does_not_write_is_refused_and_named() {
    for kind in [b'1', b'3', b'L', b'K', b'x', b'g', b'S', b'7'] {
        let mut tar = header("odd", kind, 0, "").to_vec();
        tar.extend(TRAILER);
        let error = read(&tar, 4096).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.to_string().contains("\"odd\" is of type"), "{error}");
    }
    let mut other = header("a", b'0', 0, "");
    other[257] = b'U';
    seal(&mut other);
    assert!(parse(&other).unwrap_err().contains("ustar"));
    let mut nameless = header("", b'0', 0, "");
    seal(&mut nameless);
    assert!(parse(&nameless).unwrap_err().contains("no name"));
    assert!(
        parse(&header("d", b'5', 7, ""))
            .unwrap_err()
            .contains("cannot have")
    );
}
