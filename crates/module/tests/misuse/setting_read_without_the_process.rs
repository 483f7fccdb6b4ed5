//! The server changes values on its main thread; code without a `Process` may run on another.
// error: E0061
// says: argument

use module::settings::{About, BoolSetting};

static LOUD: BoolSetting = BoolSetting::new(About::reload(c"m.loud", c"Says more."), false);

fn is_loud() -> bool {
    LOUD.get()
}
