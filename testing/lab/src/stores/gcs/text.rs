//! How names and times are written in the fake's requests and answers.
//!
//! Guarantees nothing about what is malformed: it is taken as it stands.

use std::time::SystemTime;

/// A percent-encoded text; in a query `+` is a space.
pub(super) fn decoded(text: &str, is_query: bool) -> String {
    let mut out = Vec::new();
    let mut bytes = text.as_bytes().iter();
    while let Some(&byte) = bytes.next() {
        let rest = bytes.as_slice();
        let code = rest
            .get(..2)
            .and_then(|code| std::str::from_utf8(code).ok());
        let code = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        match (byte, code) {
            (b'%', Some(code)) => {
                out.push(code);
                bytes.nth(1);
            }
            (b'+', _) if is_query => out.push(b' '),
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A text escaped for XML.
pub(super) fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

/// A date and time in UTC.
pub(super) struct Date {
    year: u64,
    month: usize,
    day: u64,
    weekday: usize,
    second: u64,
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// The epoch was a Thursday.
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];

impl Date {
    pub(super) fn of(time: SystemTime) -> Date {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        let seconds = since.unwrap_or_default().as_secs();
        let days = seconds / 86_400;
        let (mut year, mut day) = (1970, days);
        let is_leap = |year: u64| {
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
        };
        while day >= 365 + u64::from(is_leap(year)) {
            day -= 365 + u64::from(is_leap(year));
            year += 1;
        }
        let february = 28 + u64::from(is_leap(year));
        let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let mut month = 0;
        for length in lengths {
            if day < length {
                break;
            }
            day -= length;
            month += 1;
        }
        Date {
            year,
            month,
            day: day + 1,
            weekday: usize::try_from(days % 7).unwrap_or_default(),
            second: seconds % 86_400,
        }
    }

    fn clock(&self) -> String {
        let (hour, minute) = (self.second / 3600, self.second / 60 % 60);
        format!("{hour:02}:{minute:02}:{:02}", self.second % 60)
    }

    /// The date as in XML: ISO 8601.
    pub(super) fn iso(&self) -> String {
        let (year, month, day) = (self.year, self.month + 1, self.day);
        format!("{year:04}-{month:02}-{day:02}T{}Z", self.clock())
    }

    /// The date as in HTTP headers.
    pub(super) fn http(&self) -> String {
        let weekday = WEEKDAYS.get(self.weekday).copied().unwrap_or_default();
        let month = MONTHS.get(self.month).copied().unwrap_or_default();
        let (day, year) = (self.day, self.year);
        format!("{weekday}, {day:02} {month} {year:04} {} GMT", self.clock())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let date = |seconds| Date::of(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(date(0).http(), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date(951_826_554).http(), "Tue, 29 Feb 2000 12:15:54 GMT");
        assert_eq!(date(951_826_554).iso(), "2000-02-29T12:15:54Z");
        assert_eq!(date(1_798_761_599).iso(), "2026-12-31T23:59:59Z");
    }

    #[test]
    fn names_are_decoded_and_encoded() {
        assert_eq!(
            decoded("00000002%2Ehistory%2fx+%2", false),
            "00000002.history/x+%2"
        );
        assert_eq!(decoded("a+b", true), "a b");
        assert_eq!(
            escaped("<a href=\"&\">"),
            "&lt;a href=&quot;&amp;&quot;&gt;"
        );
    }
}
