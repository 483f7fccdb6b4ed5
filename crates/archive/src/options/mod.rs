//! What an archive is told about its work: compression, encryption, checks; and where it is.

pub(crate) mod compression;
pub(crate) mod identity;
pub(crate) mod location;
pub(crate) mod number;
pub mod parameter;
pub(crate) mod recipients;
pub(crate) mod settings;

use std::fmt;
use std::str::FromStr;

use self::compression::Compression;
use self::identity::IdentityFile;
use self::recipients::Recipients;
use crate::error::Error;

/// How thoroughly segments are checked before they are archived and before they are restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Verify {
    /// Every record of segments and partial segments up to the end of WAL, and what [`Verify::Header`] checks. WAL of a
    /// format that is not known is checked as with [`Verify::Header`], unless it is from a server whose major version is
    /// known ([`Options::server_major`]): that is an error.
    #[default]
    Records,
    /// The first page's long header and the file's size, for segments and partial segments.
    Header,
    /// No look at WAL contents. Compressed objects are still checked against their checksums.
    Off,
}

impl FromStr for Verify {
    type Err = Error;

    /// Accepts `records`, `header` and `off` in any case; anything else is [`ErrorKind::Unusable`].
    fn from_str(text: &str) -> Result<Verify, Error> {
        match text.to_ascii_lowercase().as_str() {
            "records" => Ok(Verify::Records),
            "header" => Ok(Verify::Header),
            "off" => Ok(Verify::Off),
            _ => Err(
                Error::unusable(format!("verification \"{text}\" is not known"))
                    .with_hint("Available values: records, header, off."),
            ),
        }
    }
}

impl fmt::Display for Verify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verify::Records => "records",
            Verify::Header => "header",
            Verify::Off => "off",
        })
    }
}

/// How an archive does its work.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// How new segments are stored. Whatever is stored already is read as its first bytes say.
    pub compression: Compression,
    /// Whom new files are encrypted for.
    pub recipients: Recipients,
    /// File with the identities that open encrypted files; `None` if there is none.
    pub identity_file: Option<IdentityFile>,
    /// How segments are checked, on the way in and on the way out.
    pub verify: Verify,
    /// The major version of the server that this is done for, where that can be told.
    pub server_major: Option<u32>,
}
