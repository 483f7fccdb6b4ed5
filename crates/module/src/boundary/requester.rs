//! Who asks: the role of a session, and what it may.

use super::guard::{ServerError, guard};
use super::process::Process;
use crate::Failure;
use std::ffi::CString;

/// The role that has asked a walsender for something: known for as long as the target's detail is looked at.
///
/// It cannot be kept for later, since looking at a role ends a transaction, which closes the files that the server has open
/// for a backup (fd.c, `AtEOXact_Files`, 15 to 19).
#[derive(Clone, Copy, Debug)]
pub struct Requester<'call> {
    process: &'call Process,
}

impl<'call> Requester<'call> {
    pub(super) fn of(process: &'call Process) -> Self {
        Self { process }
    }

    /// Whether it has the privileges of this role: it is the role, a member that inherits from it, or a superuser.
    ///
    /// # Errors
    /// That there is no such role, or what else the server raises.
    pub fn has_privileges_of(self, role: &str) -> Result<bool, Failure> {
        let role = CString::new(role)
            .map_err(|_| Failure::new("the name of a role contains a NUL byte"))?;
        let role = role.as_c_str();
        self.in_a_transaction(move || {
            // SAFETY: NUL-terminated; in a transaction, as all three ask.
            let wanted = unsafe { abi::process::get_role_oid(role.as_ptr(), false) };
            // SAFETY: as above.
            let member = unsafe { abi::process::GetUserId() };
            // SAFETY: as above.
            unsafe { abi::process::has_privs_of_role(member, wanted) }
        })
        .map_err(Failure::from)
    }

    /// Runs server calls that look into catalogs, which a walsender may do between its commands' own work
    /// (contrib/basebackup_to_shell does it in the same place, 15 to 19).
    fn in_a_transaction<T: Copy>(self, body: impl FnOnce() -> T + Copy) -> Result<T, ServerError> {
        // SAFETY: a plain variable of the server.
        let memory = unsafe { abi::process::CurrentMemoryContext };
        let answer = guard(*self.process, move || {
            // SAFETY: a replication command runs outside any transaction (walsender.c, exec_replication_command).
            unsafe { abi::process::StartTransactionCommand() };
            let answer = body();
            // SAFETY: ends what was begun above.
            unsafe { abi::process::CommitTransactionCommand() };
            answer
        });
        if answer.is_err() {
            // SAFETY: ends what was begun above; where nothing was, it does nothing. A failure to do so is met by the server
            // when it aborts the command.
            let _ = guard(*self.process, || unsafe {
                abi::process::AbortCurrentTransaction()
            });
        }
        // SAFETY: the caller's context, which outlives the transaction.
        unsafe { abi::process::CurrentMemoryContext = memory };
        answer
    }
}
