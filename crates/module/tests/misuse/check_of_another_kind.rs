//! A check of texts cannot say anything of numbers.
// error: E0277
// says: Check

use module::settings::{About, Check, IntSetting};

struct NotEmpty;

impl Check for NotEmpty {
    fn check(value: &str) -> Result<(), String> {
        if value.is_empty() { Err("It is empty.".to_owned()) } else { Ok(()) }
    }
}

static COUNT: IntSetting =
    IntSetting::checked::<NotEmpty>(About::reload(c"m.count", c"Sets how many."), 1, 0..=9);
