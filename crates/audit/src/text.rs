//! The vocabulary of WAL in JSON: places and names as the server writes them, timestamps in microseconds since 2000.
//!
//! Guarantees that what is written can be read again, exactly; a text that is none is refused. For programs of our own;
//! documents for others show them as texts.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wal::{Lsn, TimelineId, Timestamp};

/// Writes a value as its text.
pub(crate) fn write<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

/// Reads a value from its text.
pub(crate) fn read<'de, T, D>(from: D) -> Result<T, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    let text = <Cow<'de, str>>::deserialize(from)?;
    text.parse().map_err(D::Error::custom)
}

/// `16/B374D848`; names and system identifiers likewise.
pub(crate) mod plain {
    pub(crate) use super::{read as deserialize, write as serialize};
}

/// An LSN, or null.
pub(crate) mod maybe_lsn {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &Option<Lsn>, to: S) -> Result<S::Ok, S::Error> {
        value.map(|value| value.to_string()).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Lsn>, D::Error> {
        let text = <Option<String>>::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom))
            .transpose()
    }
}

/// A number from 1.
pub(crate) mod timeline {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &TimelineId, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u32(value.get())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<TimelineId, D::Error> {
        TimelineId::new(u32::deserialize(from)?)
            .ok_or_else(|| D::Error::custom("there is no timeline 0"))
    }
}

/// Microseconds since 2000.
pub(crate) mod timestamp {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(value.0)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(from).map(Timestamp)
    }
}

/// Microseconds since 2000, or null.
pub(crate) mod maybe_timestamp {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<Timestamp>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(|value| value.0).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        Ok(<Option<i64>>::deserialize(from)?.map(Timestamp))
    }
}

/// Timestamps as texts, for documents that others read.
pub(crate) mod shown {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&crate::timestamp::rfc3339(*value))
    }
}

/// A timestamp as text, or null.
pub(crate) mod maybe_shown {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<Timestamp>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(crate::timestamp::rfc3339).serialize(to)
    }
}

/// `16.0 MB`, in units of 1024 as the server shows sizes.
#[must_use]
pub fn size(bytes: u64) -> String {
    let mut amount = bytes as f64 / 1024.0;
    for unit in ["kB", "MB", "GB"] {
        if amount < 1024.0 {
            return format!("{amount:.1} {unit}");
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_the_unit_that_fits() {
        for (bytes, shown) in [
            (0, "0.0 kB"),
            (1536, "1.5 kB"),
            (16 << 20, "16.0 MB"),
            (5 << 40, "5.0 TB"),
            (5 << 50, "5120.0 TB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
    }
}
