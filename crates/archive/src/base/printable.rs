//! Text from outside, made fit to be shown: what a store has answered, what stands in a file or in a URL.
//!
//! Guarantees: one line of bounded length, without anything that a terminal or a log viewer obeys (control characters,
//! escape sequences, marks that change the direction of writing or are not seen). Everything of that kind that goes into a
//! message goes through here. Leaves to the caller not to show secrets at all.

use std::fmt::Write as _;

/// The longest text that is repeated, in bytes as shown.
pub const PRINTABLE_BYTES_MAX: usize = 300;

/// The text as it may be shown, cut if it is long.
pub fn printable(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars() {
        let before = shown.len();
        if is_plain(character) {
            shown.push(character);
        } else {
            // As Rust writes it, so that it can be told what stood there. Writing into a string does not fail.
            let _ = write!(shown, "{}", character.escape_unicode());
        }
        if shown.len() > PRINTABLE_BYTES_MAX {
            shown.truncate(before);
            shown.push_str("...");
            break;
        }
    }
    shown
}

/// Whether a text can be shown as it is, but for its length.
pub(crate) fn is_plain_text(text: &str) -> bool {
    text.chars().all(is_plain)
}

/// A message of ours with text from outside in it: the same as [`printable`], but it may be so long, and have lines if that
/// is said.
pub(crate) fn message(text: String, bytes_max: usize, has_lines: bool) -> String {
    let is_right = |character| is_plain(character) || (has_lines && character == '\n');
    if text.len() <= bytes_max && text.chars().all(is_right) {
        return text;
    }
    let mut shown = String::new();
    for character in text.chars() {
        if shown.len() >= bytes_max {
            shown.push_str("...");
            break;
        }
        if is_right(character) {
            shown.push(character);
        } else {
            let _ = write!(shown, "{}", character.escape_unicode());
        }
    }
    shown
}

/// Whether a character stands for itself and for nothing else: letters and signs of all scripts, and the blank. The rest of
/// them can be told from how the standard library would write it.
fn is_plain(character: char) -> bool {
    let is_mark = matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}');
    let is_quoted = matches!(character, '"' | '\'' | '\\');
    is_quoted || (!is_mark && character.escape_debug().len() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_shown_as_it_is() {
        for text in [
            "",
            "could not, \"so\"",
            "C:\\x",
            "müde Überläufer",
            "日本語",
            "a & b <c>",
        ] {
            assert_eq!(printable(text), text);
        }
    }

    #[test]
    fn what_a_terminal_obeys_is_shown_and_not_obeyed() {
        assert_eq!(printable("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(printable("x\u{202e}gpj.exe"), "x\\u{202e}gpj.exe");
        for odd in
            "\0\n\r\t\u{7f}\u{9b}\u{200b}\u{200e}\u{2066}\u{2069}\u{feff}\u{2028}\u{ad}\u{e0041}"
                .chars()
        {
            let shown = printable(&odd.to_string());
            assert!(shown.starts_with("\\u{") && shown.is_ascii(), "{shown}");
        }
    }

    #[test]
    fn what_is_long_is_cut() {
        for text in [
            "x".repeat(100_000),
            "\u{1b}".repeat(100_000),
            "ä".repeat(100_000),
        ] {
            let shown = printable(&text);
            assert!(shown.len() <= PRINTABLE_BYTES_MAX + 3 && shown.ends_with("..."));
        }
    }
}
