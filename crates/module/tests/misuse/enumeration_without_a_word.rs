//! An enumerated parameter needs a default, which is its first word.
// error: E0080
// says: no choices

use module::settings::{About, EnumSetting};

static PACE: EnumSetting<u8> = EnumSetting::new(About::reload(c"m.pace", c"Sets the pace."), &[]);
