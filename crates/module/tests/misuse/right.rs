//! A module without a mistake: the others are this one with one mistake each.

use module::settings::{About, IntSetting, StringSetting};
use module::{ArchiveModule, Archived, Failure, Module, Process, WalFileName};
use std::path::Path;

static PLACE: StringSetting = StringSetting::new(About::reload(c"m.place", c"Sets where."), c"");
static COUNT: IntSetting = IntSetting::new(About::reload(c"m.count", c"Sets how many."), 1, 0..=9);

struct Keeper;

impl Module for Keeper {
    fn startup(_: Process) -> Result<Self, Failure> {
        Ok(Keeper)
    }
}

impl ArchiveModule for Keeper {
    fn archive_file(&mut self, _: Process, _: &WalFileName, _: &Path) -> Result<Archived, Failure> {
        Ok(Archived::NotYet)
    }
}

module::export! {
    settings: [PLACE, COUNT],
    archive: Keeper,
}
