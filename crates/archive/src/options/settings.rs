//! The parameters that the worker, the module and the command all read, from texts to types, in one place.
//!
//! Guarantees: every text is checked here and nowhere else, and an error names its parameter. Where the texts
//! come from (the server's parameter table, a configuration file, a command line) is the caller's choice.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;
use crate::options::Options;
use crate::options::location::Location;

/// What archive recovery does when it meets a hole (`walden.missing_segment`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MissingSegment {
    /// Refuse to go on: WAL that existed is missing.
    #[default]
    Error,
    /// End recovery there, with a WARNING.
    End,
}

impl FromStr for MissingSegment {
    type Err = Error;

    /// Accepts `error` and `end` in any case; anything else is [`crate::ErrorKind::Unusable`].
    fn from_str(text: &str) -> Result<MissingSegment, Error> {
        match text.to_ascii_lowercase().as_str() {
            "error" => Ok(MissingSegment::Error),
            "end" => Ok(MissingSegment::End),
            _ => Err(
                Error::unusable(format!("missing_segment \"{text}\" is not known"))
                    .with_hint("Available values: error, end."),
            ),
        }
    }
}

impl fmt::Display for MissingSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MissingSegment::Error => "error",
            MissingSegment::End => "end",
        })
    }
}

/// What an archive's user must know before opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `walden.archive`
    pub location: Location,
    /// `walden.compression`, `walden.recipients`, `walden.identity_file` and `walden.verify`
    pub options: Options,
    /// `walden.missing_segment`
    pub missing_segment: MissingSegment,
}

impl Settings {
    /// Reads the settings through `get`, which gives a parameter's text by its full name, such as
    /// `walden.archive`, or `None` where it is not set.
    ///
    /// Fails with [`crate::ErrorKind::Unusable`], naming the parameter.
    pub fn read<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Settings, Error> {
        let archive = get("walden.archive").unwrap_or_default();
        if archive.is_empty() {
            return Err(Error::unusable("parameter \"walden.archive\" is not set"));
        }
        Ok(Settings {
            location: parse("walden.archive", archive)?,
            options: Options {
                compression: parse_or_default("walden.compression", &get)?,
                recipients: parse_or_default("walden.recipients", &get)?,
                identity_file: get("walden.identity_file")
                    .filter(|text| !text.is_empty())
                    .map(|text| parse("walden.identity_file", text))
                    .transpose()?,
                verify: parse_or_default("walden.verify", &get)?,
                server_major: None,
            },
            missing_segment: parse_or_default("walden.missing_segment", &get)?,
        })
    }
}

fn parse_or_default<'a, T>(
    parameter: &str,
    get: &impl Fn(&str) -> Option<&'a str>,
) -> Result<T, Error>
where
    T: FromStr<Err = Error> + Default,
{
    get(parameter).map_or_else(|| Ok(T::default()), |text| parse(parameter, text))
}

fn parse<T: FromStr<Err = Error>>(parameter: &str, text: &str) -> Result<T, Error> {
    text.parse::<T>()
        .map_err(|error: Error| named(parameter, &error))
}

/// The error of a value, with the name of its parameter.
pub(super) fn named(parameter: &str, error: &Error) -> Error {
    let message = format!("invalid value for parameter \"{parameter}\": {error}");
    let named = Error::new(error.kind(), message);
    match error.hint() {
        Some(hint) => named.with_hint(hint),
        None => named,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Compression, Verify};

    #[test]
    fn unset_parameters_have_their_documented_defaults() {
        let settings =
            Settings::read(|name| (name == "walden.archive").then_some("/srv/wal")).unwrap();
        assert_eq!(settings.options.compression, Compression::Zstd(3));
        assert_eq!(settings.options.verify, Verify::Records);
        assert_eq!(settings.missing_segment, MissingSegment::Error);
    }

    #[test]
    fn an_error_names_the_parameter_and_keeps_the_hint() {
        let error = Settings::read(|name| match name {
            "walden.archive" => Some("/srv/wal"),
            "walden.missing_segment" => Some("maybe"),
            _ => None,
        })
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid value for parameter \"walden.missing_segment\": missing_segment \"maybe\" is not known"
        );
        assert!(error.hint().is_some());
        assert!(
            Settings::read(|_| None)
                .unwrap_err()
                .to_string()
                .contains("walden.archive")
        );
    }
}
