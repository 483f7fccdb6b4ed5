//! There is no negative time to wait.
// error: E0080
// says: a duration cannot be negative

use module::settings::{About, DurationSetting, TimeUnit};

static PAUSE: DurationSetting =
    DurationSetting::new(About::reload(c"m.pause", c"Sets how long."), 0, -1..=9, TimeUnit::Seconds);
