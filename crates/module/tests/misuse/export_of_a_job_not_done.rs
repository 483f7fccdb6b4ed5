//! A module that only begins is exported for a job.
// error: E0277
// says: `Keeper` is not a module that restores
// says: it does not implement `module::RestoreModule`

struct Keeper;

impl module::Module for Keeper {
    fn startup(_: module::Process) -> Result<Self, module::Failure> {
        Ok(Keeper)
    }
}

module::export! {
    recovery: Keeper { restore },
}
