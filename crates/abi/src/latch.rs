//! The process latch (`storage/latch.h`; in 18 the events moved to `storage/waiteventset.h`).

use core::ffi::{c_int, c_long};

/// The server's `Latch`: only pointers to it are passed on.
#[repr(C)]
#[derive(Debug)]
pub struct Latch {
    _private: [u8; 0],
}

/// The latch was set.
pub const WL_LATCH_SET: c_int = 1 << 0;
/// The descriptor is readable.
pub const WL_SOCKET_READABLE: c_int = 1 << 1;
/// The time is up.
pub const WL_TIMEOUT: c_int = 1 << 3;
/// The postmaster is gone.
pub const WL_POSTMASTER_DEATH: c_int = 1 << 4;
/// `PGINVALID_SOCKET`.
pub const NO_SOCKET: c_int = -1;
/// `PG_WAIT_EXTENSION`: shown in `pg_stat_activity` as wait event type "Extension".
pub const PG_WAIT_EXTENSION: u32 = 0x0700_0000;

unsafe extern "C-unwind" {
    /// Waits for the latch, a descriptor or a time in milliseconds; answers which.
    pub fn WaitLatchOrSocket(
        latch: *mut Latch,
        wake_events: c_int,
        sock: c_int,
        timeout_ms: c_long,
        wait_event_info: u32,
    ) -> c_int;
    /// Sets a latch.
    pub fn SetLatch(latch: *mut Latch);
    /// Clears the own latch.
    pub fn ResetLatch(latch: *mut Latch);
}

unsafe extern "C" {
    /// The own process's latch.
    pub static mut MyLatch: *mut Latch;
}
