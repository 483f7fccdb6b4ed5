//! There are three jobs, and this is none of them.
// says: the jobs of a recovery module are restore, archive_cleanup, recovery_end

struct Keeper;

impl module::Module for Keeper {
    fn startup(_: module::Process) -> Result<Self, module::Failure> {
        Ok(Keeper)
    }
}

module::export! {
    recovery: Keeper { fetch },
}
