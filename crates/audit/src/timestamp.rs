//! Timestamps as people write and read them.
//!
//! Guarantees times to the microsecond, as `timestamp with time zone` has them, written in UTC and read with any offset.
//! Names of time zones are left to the server.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use wal::Timestamp;

/// Hours that an offset from UTC may have, as the server takes them (`MAX_TZDISP_HOUR`, `datetime.h`, 15 to 18).
const OFFSET_HOURS_MAX: i64 = 15;

/// The last second of the year 9999, from 1970 on.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// `2026-11-21T10:00:00.123456Z`. A time before 1970 or after 9999, which only a broken clock gives, is shown as the nearest
/// that the form can express.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    let epoch = SystemTime::UNIX_EPOCH;
    let time = at.to_system_time().unwrap_or(epoch);
    let since = time.duration_since(epoch).unwrap_or_default().min(LAST);
    humantime::format_rfc3339_micros(epoch + since).to_string()
}

/// `2026-11-21 10:00:00.123456+00`: as the server prints it where the time zone is UTC, and reads it in
/// `recovery_target_time`; without a fraction that is zero.
#[must_use]
pub fn readable(at: Timestamp) -> String {
    let text = rfc3339(at).replace('T', " ");
    let text = text.trim_end_matches('Z').trim_end_matches('0');
    format!("{}+00", text.trim_end_matches('.'))
}

/// A text that is no timestamp.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{}\" is not a time such as \"2026-11-21 10:00\", \"2026-11-21 10:00:00.5 UTC\" or \"2026-11-21T12:00:00+02\"",
    text.escape_debug()
)]
pub struct InvalidTimestamp {
    /// The text, as it was given.
    pub text: String,
}

/// Reads a date, a time, and an offset: `2026-11-21`, `2026-11-21 10:00`, `2026-11-21T10:00:00.123456Z`,
/// `2026-11-21 12:00 +02:00`. Without an offset it is UTC.
///
/// # Errors
/// [`InvalidTimestamp`], with the text.
pub fn parse(text: &str) -> Result<Timestamp, InvalidTimestamp> {
    parsed(text.trim()).ok_or_else(|| InvalidTimestamp {
        text: text.to_owned(),
    })
}

fn parsed(text: &str) -> Option<Timestamp> {
    let (date, rest) = match text.find(['T', ' ']) {
        Some(end) => (text.get(..end)?, text.get(end + 1..)?.trim()),
        None => (text, "00:00"),
    };
    let zone_at = rest
        .find(['+', '-', 'Z', 'z', 'U', ' '])
        .unwrap_or(rest.len());
    let (clock, zone) = rest.split_at_checked(zone_at)?;
    let seconds = match clock.matches(':').count() {
        1 => ":00",
        _ => "",
    };
    let utc = humantime::parse_rfc3339(&format!("{date}T{clock}{seconds}Z")).ok()?;
    let micros = Timestamp::from_system_time(utc)?;
    let offset = offset_seconds(zone.trim())?.checked_mul(1_000_000)?;
    micros.0.checked_sub(offset).map(Timestamp)
}

/// Seconds east of UTC.
fn offset_seconds(zone: &str) -> Option<i64> {
    if matches!(zone, "" | "Z" | "z" | "UTC") {
        return Some(0);
    }
    let (sign, digits) = match zone.strip_prefix('+') {
        Some(digits) => (1, digits),
        None => (-1, zone.strip_prefix('-')?),
    };
    let (hours, minutes) = match digits.len() {
        1 | 2 => (digits, "0"),
        4 => digits.split_at_checked(2)?,
        _ => digits
            .split_once(':')
            .filter(|(_, minutes)| minutes.len() == 2)?,
    };
    let number = |digits: &str| {
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        i64::from_str(digits).ok().filter(|_| plain)
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours <= OFFSET_HOURS_MAX && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_read_with_its_offset_and_without_one_as_utc() {
        let ten = parse("2026-11-21T10:00:00Z").unwrap();
        for text in [
            "2026-11-21 10:00",
            "2026-11-21 10:00:00",
            " 2026-11-21T10:00:00.000000Z ",
            "2026-11-21 10:00 UTC",
            "2026-11-21 10:00:00+00",
            "2026-11-21 12:00:00+02",
            "2026-11-21 12:30 +02:30",
            "2026-11-21T05:30:00-0430",
            "2026-11-22 00:00:00+14",
        ] {
            assert_eq!(parse(text), Ok(ten), "{text}");
        }
        let day = parse("2026-11-21").unwrap();
        assert_eq!(ten.0 - day.0, 36_000_000_000);
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        for micros in [0, 1, 848_000_000_123_456, 848_000_000_100_000] {
            let at = Timestamp(micros);
            assert_eq!(parse(&rfc3339(at)), Ok(at));
            assert_eq!(parse(&readable(at)), Ok(at), "{}", readable(at));
        }
        assert_eq!(readable(Timestamp(0)), "2000-01-01 00:00:00+00");
        assert_eq!(readable(Timestamp(100_000)), "2000-01-01 00:00:00.1+00");
    }

    #[test]
    fn what_is_no_timestamp_is_refused_and_quoted() {
        for text in [
            "",
            "yesterday",
            "10:00",
            "2026-13-01",
            "2026-11-21 10",
            "2026-11-21 10:00 +16",
            "2026-11-21 10:00 +2:3",
            "2026-11-21 10:00 Europe/Vienna",
            "2026-11-21 10:00++1",
            "2026-11-21 10:00 -",
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.text, text);
        }
    }
}
