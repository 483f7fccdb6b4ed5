//! The server would refuse its own default.
// error: E0080
// says: the default is out of bounds

use module::settings::{About, IntSetting};

static COUNT: IntSetting = IntSetting::new(About::reload(c"m.count", c"Sets how many."), 10, 0..=9);
