//! Whole numbers with a unit, as a configuration file has them: `90`, `90s`, `1.5 min`, `1GB`.
//!
//! Guarantees that a text is taken or refused as the server takes or refuses it, and means the same. Leaves to the caller the
//! name of the parameter.

use crate::error::Error;

/// What a number counts, if nothing is written behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Pieces: no unit may be written.
    None,
    /// Seconds.
    Seconds,
    /// Megabytes.
    Megabytes,
}

impl Unit {
    /// The units that may be written, the smallest first, and how many of this one each has (`time_unit_conversion_table` and
    /// `memory_unit_conversion_table`, guc.c, 15 to 19).
    fn written(self) -> &'static [(&'static str, f64)] {
        const KILO: f64 = 1024.0;
        match self {
            Unit::None => &[],
            Unit::Seconds => &[
                ("us", 1e-6),
                ("ms", 1e-3),
                ("s", 1.0),
                ("min", 60.0),
                ("h", 3600.0),
                ("d", 86_400.0),
            ],
            Unit::Megabytes => &[
                ("B", 1.0 / (KILO * KILO)),
                ("kB", 1.0 / KILO),
                ("MB", 1.0),
                ("GB", KILO),
                ("TB", KILO * KILO),
            ],
        }
    }
}

/// A parameter that is a whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number {
    /// What it is if nothing sets it.
    pub default: i32,
    /// The least that it may be.
    pub min: i32,
    /// The most that it may be.
    pub max: i32,
    /// What it counts.
    pub unit: Unit,
}

impl Number {
    /// Reads what is written (`parse_int`, guc.c, 15 to 19).
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unusable`] for what is no number, has a unit that there is not, or is out of bounds.
    pub fn parse(&self, text: &str) -> Result<i32, Error> {
        let value = self.value(text).ok_or_else(|| self.no_number(text))?;
        // Half of one counts as the even one beside it, as in C.
        let value = value.round_ties_even();
        let Number { min, max, .. } = *self;
        if value < f64::from(min) || value > f64::from(max) {
            return Err(Error::unusable(format!(
                "{value} is outside the valid range ({min} .. {max})"
            )));
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "it is whole and within bounds"
        )]
        Ok(value as i32)
    }

    fn value(&self, text: &str) -> Option<f64> {
        let text = text.trim_ascii();
        let (value, rest) = whole(text)
            .filter(|(_, rest)| !rest.starts_with(['.', 'e', 'E']))
            .or_else(|| fraction(text))?;
        match rest.trim_ascii() {
            "" => Some(value),
            unit => {
                let units = self.unit.written();
                let at = units.iter().position(|(name, _)| *name == unit)?;
                let (_, of_ours) = units.get(at)?;
                let value = value * of_ours;
                // A fraction counts in whole ones of the next smaller unit, if there is one (`convert_to_base_unit`, guc.c).
                let smaller = at.checked_sub(1).and_then(|at| units.get(at));
                Some(smaller.map_or(value, |(_, smaller)| {
                    (value / smaller).round_ties_even() * smaller
                }))
            }
        }
    }

    fn no_number(&self, text: &str) -> Error {
        let error = Error::unusable(format!("{text:?} is not a number"));
        let units = self.unit.written().iter().map(|(name, _)| *name);
        match units.collect::<Vec<_>>().as_slice() {
            [] => error.with_hint("Give a whole number without a unit."),
            units => error.with_hint(format!(
                "Give a number, with one of these units behind it or none: {}.",
                units.join(", ")
            )),
        }
    }
}

/// What `strtol` takes of a text in any base, and what it leaves.
fn whole(text: &str) -> Option<(f64, &str)> {
    let digits_at = usize::from(text.starts_with(['+', '-']));
    let (sign, digits) = text.split_at_checked(digits_at)?;
    let sign = if sign == "-" { -1.0 } else { 1.0 };
    let hexadecimal = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"));
    let (digits, radix) = match hexadecimal {
        Some(digits) => (digits, 16),
        None if digits.starts_with('0') => (digits, 8),
        None => (digits, 10),
    };
    let end = digits.find(|c: char| !c.is_digit(radix));
    let (digits, rest) = digits.split_at_checked(end.unwrap_or(digits.len()))?;
    let mut value = 0.0;
    for digit in digits.chars() {
        value = value * f64::from(radix) + f64::from(digit.to_digit(radix)?);
    }
    (!digits.is_empty()).then_some((sign * value, rest))
}

/// What `strtod` takes of a decimal fraction, and what it leaves.
fn fraction(text: &str) -> Option<(f64, &str)> {
    let mut ends = (1..=text.len())
        .rev()
        .filter_map(|end| text.split_at_checked(end));
    ends.find_map(|(number, rest)| {
        // Not "inf" and "nan", which no bound admits.
        let is_decimal = number.ends_with(|c: char| c.is_ascii_digit() || c == '.');
        let value = number.parse().ok().filter(|_| is_decimal)?;
        Some((value, rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Number = Number {
        default: 60,
        min: 1,
        max: 3600,
        unit: Unit::Seconds,
    };

    #[test]
    fn numbers_mean_what_they_mean_to_the_server() {
        for (text, seconds) in [
            ("90", 90),
            ("90s", 90),
            (" 90 s ", 90),
            ("1500 ms", 2),
            ("2500ms", 2),
            ("2min", 120),
            ("0.5h", 1800),
            (".5h", 1800),
            ("1h", 3600),
            ("0x10", 16),
            ("010", 8),
            ("1e2", 100),
            ("+7", 7),
            ("59.6", 60),
            ("0.51h", 1860),
            ("1.005h", 3600),
            ("1.51min", 91),
            ("1.5004 s", 2),
        ] {
            assert_eq!(TIME.parse(text).unwrap(), seconds, "{text}");
        }
        let memory = Number {
            default: 128,
            min: 16,
            max: 65_536,
            unit: Unit::Megabytes,
        };
        for (text, megabytes) in [
            ("1GB", 1024),
            ("65536kB", 64),
            ("128", 128),
            ("0.1GB", 102),
            ("0.0625TB", 65_536),
        ] {
            assert_eq!(memory.parse(text).unwrap(), megabytes, "{text}");
        }
    }

    #[test]
    fn what_is_no_number_or_out_of_bounds_is_refused_and_the_units_are_named() {
        for text in [
            "", "s", "5 weeks", "1 S", "9.", "x", "08", "1 s s", "nan", "inf", "1,5",
        ] {
            // "9." is one to C and to us; "08" is an octal zero and an eight behind it.
            let parsed = TIME.parse(text);
            assert_eq!(parsed.is_ok(), text == "9.", "{text}: {parsed:?}");
        }
        for text in ["0", "-1", "3601", "2h", "99999999999999999999"] {
            let error = TIME.parse(text).unwrap_err().to_string();
            assert!(error.contains("(1 .. 3600)"), "{text}: {error}");
        }
        let error = TIME.parse("5 weeks").unwrap_err();
        assert!(
            error
                .hint()
                .is_some_and(|hint| hint.contains("us, ms, s, min, h, d"))
        );
        let pieces = Number {
            unit: Unit::None,
            ..TIME
        };
        assert!(pieces.parse("4").is_ok() && pieces.parse("4s").is_err());
    }
}
