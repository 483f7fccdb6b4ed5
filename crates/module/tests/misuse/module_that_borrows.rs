//! A module lives as long as the process; what it borrows would have to as well.
// error: E0478
// says: lifetime

use module::{Failure, Module, Process};

struct Borrower<'a>(&'a str);

impl<'a> Module for Borrower<'a> {
    fn startup(_: Process) -> Result<Self, Failure> {
        Ok(Borrower(""))
    }
}
