//! How new objects are compressed: the value of `walden.compression`. The compressing itself is in `format/codec.rs`.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// The zstd level used when none is named: zstd's own default, which on WAL gives most of the ratio that
/// higher levels reach at a speed (hundreds of MB/s a core) that few servers outrun.
pub const ZSTD_LEVEL_DEFAULT: i32 = 3;

/// The highest zstd level accepted: the highest the library has.
pub const ZSTD_LEVEL_MAX: i32 = 22;

/// How new segments are compressed (`walden.compression`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Stored as they are, readable by `restore_command = 'cp …'`.
    None,
    /// zstd with this level, 1 to [`ZSTD_LEVEL_MAX`].
    Zstd(i32),
    /// lz4, in the frame format.
    Lz4,
}

impl Default for Compression {
    fn default() -> Compression {
        Compression::Zstd(ZSTD_LEVEL_DEFAULT)
    }
}

impl FromStr for Compression {
    type Err = Error;

    /// Accepts `none`, `zstd`, `zstd:LEVEL` and `lz4`, in any case as the server does for its own
    /// enumerations; anything else is [`crate::ErrorKind::Unusable`].
    fn from_str(text: &str) -> Result<Compression, Error> {
        let lower = text.to_ascii_lowercase();
        match lower.as_str() {
            "none" => return Ok(Compression::None),
            "zstd" => return Ok(Compression::default()),
            "lz4" => return Ok(Compression::Lz4),
            _ => {}
        }
        let Some(level) = lower.strip_prefix("zstd:") else {
            return Err(
                Error::unusable(format!("compression \"{text}\" is not known"))
                    .with_hint("Available values: none, zstd, zstd:LEVEL, lz4."),
            );
        };
        match level.parse::<i32>() {
            Ok(level) if (1..=ZSTD_LEVEL_MAX).contains(&level) => Ok(Compression::Zstd(level)),
            _ => Err(
                Error::unusable(format!("zstd level \"{level}\" is not valid"))
                    .with_hint(format!("Valid levels are 1 to {ZSTD_LEVEL_MAX}.")),
            ),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compression::None => f.write_str("none"),
            Compression::Zstd(level) if *level == ZSTD_LEVEL_DEFAULT => f.write_str("zstd"),
            Compression::Zstd(level) => write!(f, "zstd:{level}"),
            Compression::Lz4 => f.write_str("lz4"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_reads_back_as_itself() {
        for text in ["none", "zstd", "zstd:1", "zstd:22", "lz4"] {
            assert_eq!(text.parse::<Compression>().unwrap().to_string(), text);
        }
        assert_eq!(
            "ZSTD:3".parse::<Compression>().unwrap(),
            Compression::default()
        );
    }

    #[test]
    fn unknown_compressions_and_levels_are_refused() {
        for text in [
            "", "gzip", "zstd:", "zstd:0", "zstd:23", "zstd:x", "lz4:1", "none:1",
        ] {
            assert!(text.parse::<Compression>().is_err(), "{text}");
        }
    }
}
