//! A tar file as the server writes it, read from pieces of any length.
//!
//! The server writes ustar headers (`tarCreateHeader`, src/port/tar.c, 15 to 19): regular files, directories, symbolic links;
//! names of less than 100 bytes and no extension headers, which it refuses to need; a size that has no room in octal digits
//! stands in base 256, as GNU tar has it. Two blocks of zeros end the file.
//!
//! Guarantees that a header is believed only with its checksum, that anything else than the above is an error, and that a file
//! without its end is told from a whole one. Left to others: whether a name is to be trusted.

use archive::{Error, ErrorKind, printable};

/// The length of a block, in bytes: headers are one, contents are filled up to a multiple of it.
pub(crate) const BLOCK_BYTES: usize = 512;

/// What ends a tar file.
pub(crate) const TRAILER: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    File,
    Directory,
    /// A symbolic link, and where it leads to.
    Link(Vec<u8>),
}

/// A member of a tar file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its name as it stands there: not to be trusted.
    pub(crate) name: Vec<u8>,
    pub(crate) what: What,
    /// How many bytes its contents have; 0 unless it is a file.
    pub(crate) bytes: u64,
    /// Its permissions, the nine lowest bits.
    pub(crate) mode: u32,
}

impl Member {
    /// How many bytes it takes up, its header included.
    pub(crate) fn bytes_in_tar(&self) -> u64 {
        let block = BLOCK_BYTES as u64;
        self.bytes
            .div_ceil(block)
            .saturating_add(1)
            .saturating_mul(block)
    }

    /// Its name for messages.
    pub(crate) fn shown(&self) -> String {
        printable(&String::from_utf8_lossy(&self.name))
    }
}

/// Who is told what is in a tar file, in its order.
pub(crate) trait Visitor {
    /// A member begins. `header` are its bytes.
    fn member(&mut self, member: &Member, header: &[u8]) -> Result<(), Error>;

    /// So many bytes of the member's contents.
    fn contents(&mut self, bytes: &[u8]) -> Result<(), Error>;

    /// What fills its last block up.
    fn padding(&mut self, bytes: &[u8]) -> Result<(), Error>;

    /// The member is over.
    fn member_ends(&mut self) -> Result<(), Error>;
}

/// Reads one tar file.
#[derive(Debug)]
pub(crate) struct Parser {
    /// What messages call it.
    shown: String,
    state: State,
}

#[derive(Debug)]
enum State {
    /// So many bytes of the next header have come.
    Header {
        block: Box<[u8; BLOCK_BYTES]>,
        filled: usize,
    },
    /// So many bytes of a member are to come, and so many that fill it up.
    Contents {
        left: u64,
        padding: usize,
    },
    Padding {
        left: usize,
    },
    /// The end has begun, and so many bytes of it have come.
    Trailer {
        zeros: u64,
    },
}

impl State {
    fn header() -> State {
        State::Header {
            block: Box::new([0; BLOCK_BYTES]),
            filled: 0,
        }
    }
}

impl Parser {
    pub(crate) fn new(shown: String) -> Parser {
        Parser {
            shown,
            state: State::header(),
        }
    }

    /// Reads on. Fails with [`ErrorKind::Damaged`] if that is no tar file, or one that the server does not write, and as the
    /// visitor does.
    pub(crate) fn feed(
        &mut self,
        mut bytes: &[u8],
        visitor: &mut dyn Visitor,
    ) -> Result<(), Error> {
        while !bytes.is_empty() {
            let (taken, next) = self.step(bytes, visitor)?;
            bytes = bytes.get(taken..).unwrap_or_default();
            if let Some(next) = next {
                self.state = next;
            }
        }
        Ok(())
    }

    /// Takes some of the bytes, at least one; tells how many, and the state that follows.
    fn step(
        &mut self,
        bytes: &[u8],
        visitor: &mut dyn Visitor,
    ) -> Result<(usize, Option<State>), Error> {
        match &mut self.state {
            State::Header { block, filled } => {
                let room = block.get_mut(*filled..).unwrap_or_default();
                let taken = room.len().min(bytes.len());
                for (to, from) in room.iter_mut().zip(bytes) {
                    *to = *from;
                }
                *filled += taken;
                if *filled < BLOCK_BYTES {
                    return Ok((taken, None));
                }
                if block.iter().all(|byte| *byte == 0) {
                    let zeros = BLOCK_BYTES as u64;
                    return Ok((taken, Some(State::Trailer { zeros })));
                }
                let member = parse(block).map_err(|why| damaged(&self.shown, &why))?;
                visitor.member(&member, block.as_slice())?;
                let padding = member.bytes.next_multiple_of(BLOCK_BYTES as u64) - member.bytes;
                let padding = usize::try_from(padding).unwrap_or_default();
                let next = contents_or_on(member.bytes, padding, visitor)?;
                Ok((taken, Some(next)))
            }
            State::Contents { left, padding } => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                let now = bytes.get(..most).unwrap_or(bytes);
                visitor.contents(now)?;
                *left -= now.len() as u64;
                let next = match *left {
                    0 => Some(padding_or_on(*padding, visitor)?),
                    _ => None,
                };
                Ok((now.len(), next))
            }
            State::Padding { left } => {
                let now = bytes.get(..*left).unwrap_or(bytes);
                visitor.padding(now)?;
                *left -= now.len();
                let next = match *left {
                    0 => Some(padding_or_on(0, visitor)?),
                    _ => None,
                };
                Ok((now.len(), next))
            }
            State::Trailer { zeros } => {
                if bytes.iter().any(|byte| *byte != 0) {
                    return Err(damaged(&self.shown, "something follows its end"));
                }
                *zeros += bytes.len() as u64;
                Ok((bytes.len(), None))
            }
        }
    }

    /// Whether the file has come to its end.
    ///
    /// Fails with [`ErrorKind::Damaged`] if it breaks off.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        match self.state {
            State::Trailer { zeros } if zeros >= TRAILER.len() as u64 => Ok(()),
            _ => Err(damaged(&self.shown, "it breaks off")),
        }
    }
}

fn contents_or_on(left: u64, padding: usize, visitor: &mut dyn Visitor) -> Result<State, Error> {
    if left == 0 {
        padding_or_on(padding, visitor)
    } else {
        Ok(State::Contents { left, padding })
    }
}

fn padding_or_on(left: usize, visitor: &mut dyn Visitor) -> Result<State, Error> {
    if left == 0 {
        visitor.member_ends()?;
        Ok(State::header())
    } else {
        Ok(State::Padding { left })
    }
}

fn damaged(shown: &str, why: &str) -> Error {
    let what = format!("\"{shown}\" is not a tar file as PostgreSQL writes it: {why}");
    Error::new(ErrorKind::Damaged, what)
}

/// What a header says; why it is none, if so.
fn parse(block: &[u8; BLOCK_BYTES]) -> Result<Member, String> {
    let field = |at: usize, bytes: usize| block.get(at..at + bytes).unwrap_or_default();
    let text = |at, bytes| {
        let field: &[u8] = field(at, bytes);
        let end = field.iter().position(|byte| *byte == 0);
        field
            .get(..end.unwrap_or(bytes))
            .unwrap_or_default()
            .to_vec()
    };
    let number = |at, bytes, what: &str| {
        number(field(at, bytes)).ok_or_else(|| format!("its {what} is not a number"))
    };
    if number(148, 8, "checksum of a header")? != checksum(block) {
        return Err("the checksum of a header is wrong".to_owned());
    }
    if field(257, 6) != b"ustar\0" {
        return Err("a header is not of the form \"ustar\"".to_owned());
    }
    let (name, prefix) = (text(0, 100), text(345, 155));
    let name = if prefix.is_empty() {
        name
    } else {
        [prefix.as_slice(), b"/", &name].concat()
    };
    let shown = || printable(&String::from_utf8_lossy(&name));
    let bytes = number(124, 12, "size of a member")?;
    let kind = field(156, 1).first().copied().unwrap_or_default();
    let what = match kind {
        b'0' | 0 => What::File,
        b'5' => What::Directory,
        b'2' => What::Link(text(157, 100)),
        other => {
            let kind = char::from(other).escape_default();
            return Err(format!("member \"{}\" is of type \"{kind}\"", shown()));
        }
    };
    if name.is_empty() {
        return Err("a member has no name".to_owned());
    }
    if bytes > i64::MAX.unsigned_abs() || (what != What::File && bytes > 0) {
        return Err(format!("member \"{}\" cannot have {bytes} bytes", shown()));
    }
    let mode = number(100, 8, "mode of a member")? & 0o777;
    Ok(Member {
        name,
        what,
        bytes,
        mode: u32::try_from(mode).unwrap_or_default(),
    })
}

/// A number as `print_tar_number` writes it: octal digits, or, where they have no room, base 256 behind a byte 0x80.
fn number(field: &[u8]) -> Option<u64> {
    if let Some((0x80, digits)) = field.split_first() {
        return digits.iter().try_fold(0_u64, |number, byte| {
            number.checked_mul(256)?.checked_add(u64::from(*byte))
        });
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let digits = field.iter().skip_while(|byte| **byte == b' ');
    let mut number = None;
    let mut is_over = false;
    for byte in digits {
        match byte {
            b'0'..=b'7' if !is_over => {
                let digit = u64::from(byte - b'0');
                number = Some(number.unwrap_or(0_u64).checked_mul(8)?.checked_add(digit)?);
            }
            byte if blank(byte) => is_over = true,
            _ => return None,
        }
    }
    number
}

/// The sum of a header's bytes, those of the checksum itself taken for blanks (`tarChecksum`).
fn checksum(block: &[u8; BLOCK_BYTES]) -> u64 {
    let bytes = block.iter().enumerate();
    bytes
        .map(|(at, byte)| match at {
            148..156 => u64::from(b' '),
            _ => u64::from(*byte),
        })
        .sum()
}

#[cfg(test)]
pub(crate) mod tests;
