//! One line of a server's configuration file: `name [=] value [# comment]`, by the rules of `guc-file.l`
//! (15 to 18).
//!
//! Guarantees: accepts what the server accepts and nothing else, so that Walden never reads a setting that
//! the server would refuse. Files and includes are `lib.rs`'s.

/// A parameter and its value, quotes and escapes resolved.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// Reads one line. `Ok(None)` for an empty one or a comment; the error is the text near which it goes wrong.
pub(crate) fn parse_line(line: &str) -> Result<Option<Setting>, String> {
    let rest = skip_blanks(line);
    if ends(rest) {
        return Ok(None);
    }
    let (name, rest) = take_name(rest).ok_or_else(|| near(rest))?;
    let rest = skip_blanks(rest);
    let rest = skip_blanks(rest.strip_prefix('=').unwrap_or(rest));
    let (value, rest) = match rest.strip_prefix('\'') {
        Some(quoted) => take_quoted(quoted).ok_or_else(|| near(rest))?,
        None => take_plain(rest).ok_or_else(|| near(rest))?,
    };
    let rest = skip_blanks(rest);
    if !ends(rest) {
        return Err(near(rest));
    }
    Ok(Some(Setting {
        name: name.to_owned(),
        value,
    }))
}

/// `[ \t\r]+`; a form feed or a vertical tab is not blank to the server.
fn skip_blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\r'])
}

fn ends(text: &str) -> bool {
    text.is_empty() || text.starts_with('#')
}

/// What to quote in the message: the offending word.
fn near(text: &str) -> String {
    let word = text.split([' ', '\t']).next().unwrap_or_default();
    if word.is_empty() {
        "end of line".to_owned()
    } else {
        word.to_owned()
    }
}

fn is_letter(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn is_letter_or_digit(c: char) -> bool {
    is_letter(c) || c.is_ascii_digit()
}

/// `{ID}` or `{ID}.{ID}`, which may not run into anything else.
fn take_name(text: &str) -> Option<(&str, &str)> {
    let first = id_length(text)?;
    let after = text.get(first..)?;
    let length = match after.strip_prefix('.').and_then(id_length) {
        Some(second) => first + 1 + second,
        None => first,
    };
    Some((text.get(..length)?, text.get(length..)?))
}

fn id_length(text: &str) -> Option<usize> {
    text.starts_with(is_letter)
        .then(|| text.find(|c| !is_letter_or_digit(c)).unwrap_or(text.len()))
}

/// A word (`{LETTER}({LETTER_OR_DIGIT}|[-._:/])*`) or a number with a unit, up to a blank or a comment.
fn take_plain(text: &str) -> Option<(String, &str)> {
    let end = text
        .find([' ', '\t', '\r', '#', '\'', '='])
        .unwrap_or(text.len());
    let (plain, rest) = (text.get(..end)?, text.get(end..)?);
    let in_word = |c: char| is_letter_or_digit(c) || "-._:/".contains(c);
    let is_word = plain.starts_with(is_letter) && plain.chars().all(in_word);
    (is_word || is_number(plain)).then(|| (plain.to_owned(), rest))
}

/// `{SIGN}?({DIGIT}+|0x{HEXDIGIT}+){UNIT_LETTER}*`, or `{SIGN}?{DIGIT}*"."{DIGIT}*` with an exponent or
/// without.
fn is_number(text: &str) -> bool {
    let number = text.strip_prefix(['-', '+']).unwrap_or(text);
    is_integer(number) || is_real(number)
}

fn is_integer(text: &str) -> bool {
    let hexadecimal = text
        .strip_prefix("0x")
        .map(|hex| hex.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
    let decimal = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_unit = |rest: &str| rest.chars().all(|c| c.is_ascii_alphabetic());
    (decimal.len() < text.len() && is_unit(decimal)) || hexadecimal.is_some_and(is_unit)
}

fn is_real(text: &str) -> bool {
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    let Some((whole, rest)) = text.split_once('.') else {
        return false;
    };
    let (fraction, exponent) = match rest.split_once(['e', 'E']) {
        Some((fraction, exponent)) => (
            fraction,
            Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent)),
        ),
        None => (rest, None),
    };
    digits(whole) && digits(fraction) && exponent.is_none_or(|e| !e.is_empty() && digits(e))
}

/// After the opening quote: up to the closing one. `''` is a quote; a backslash escapes as in `GUC_scanstr`.
fn take_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let mut chars = rest.chars();
        let c = chars.next()?;
        rest = chars.as_str();
        match c {
            '\'' => match rest.strip_prefix('\'') {
                Some(after) => {
                    value.push('\'');
                    rest = after;
                }
                None => return Some((value, rest)),
            },
            '\\' => rest = take_escape(rest, &mut value)?,
            c => value.push(c),
        }
    }
}

/// After a backslash: `b f n r t`, up to three octal digits, or any character for itself.
fn take_escape<'a>(text: &'a str, value: &mut String) -> Option<&'a str> {
    let octal = text
        .chars()
        .take(3)
        .take_while(|c| ('0'..='7').contains(c))
        .count();
    if octal > 0 {
        let (digits, rest) = text.split_at_checked(octal)?;
        // Like the server, which keeps the low eight bits. Above ASCII that is a byte of some encoding that
        // nobody can know here; it is read as Latin-1.
        let code = u32::from_str_radix(digits, 8).ok()? & 0xFF;
        value.push(char::from_u32(code)?);
        return Some(rest);
    }
    let mut chars = text.chars();
    value.push(match chars.next()? {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        other => other,
    });
    Some(chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(line: &str) -> String {
        parse_line(line).unwrap().unwrap().value
    }

    #[test]
    fn the_equals_sign_blanks_and_comments_are_optional() {
        for line in [
            "walden.archive = '/srv/wal'",
            "walden.archive='/srv/wal'",
            "  walden.archive '/srv/wal' # where",
            "\twalden.archive\t=\t'/srv/wal'#where\r",
        ] {
            let setting = parse_line(line).unwrap().unwrap();
            assert_eq!(setting.name, "walden.archive", "{line}");
            assert_eq!(setting.value, "/srv/wal", "{line}");
        }
        for line in ["", "   ", "# x = 1", "\t#"] {
            assert_eq!(parse_line(line).unwrap(), None);
        }
    }

    #[test]
    fn quoted_values_may_hold_quotes_and_escapes() {
        assert_eq!(value("x = 'it''s'"), "it's");
        assert_eq!(value(r"x = 'it\'s'"), "it's");
        assert_eq!(value(r"x = 'a\tb\\c\101\q'"), "a\tb\\cAq");
        assert_eq!(value("x = ''"), "");
        assert_eq!(value("x = 'a # b'"), "a # b");
    }

    // In this test and the next, each line was given to a server of version 15, which answered the same.
    #[test]
    fn plain_values_are_words_and_numbers() {
        for plain in [
            "on", "zstd:3", "a.b-c/d", "16MB", "-1", "0x1F", "0x1FMB", "0x", "1.5", "1.5e-3",
            "+7s", "60s", "1e", ".5", "5.",
        ] {
            assert_eq!(value(&format!("x.y = {plain}# z")), plain);
        }
    }

    #[test]
    fn what_the_server_refuses_is_refused() {
        for line in [
            "x = /srv/wal",
            "x = 'open",
            "x",
            "x =",
            "x = a b",
            "1x = 1",
            "x = 'a' 'b'",
            "x.y.z = 1",
            "= 1",
            "x == 1",
            r"x = 'a\",
            "x = 1.2.3",
            "x = -",
            "x.= 1",
            "x = 1e-3",
            "x = 1.5GB",
            "x = 1e5MB",
            "x = 1-2",
            "x = a=b",
            "x = 'a'b",
            "x = a'b'",
            "x = a$b",
        ] {
            assert!(parse_line(line).is_err(), "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_quoted_text_reads_back_and_no_line_is_too_strange(text in "[^\n]*") {
            let quoted = text.replace('\\', "\\\\").replace('\'', "''");
            proptest::prop_assert_eq!(value(&format!("x = '{quoted}' # y")), text.clone());
            // Whatever it says, it says it without a panic.
            let _ = parse_line(&text);
            let _ = parse_line(&format!("x = '{text}"));
        }
    }
}
