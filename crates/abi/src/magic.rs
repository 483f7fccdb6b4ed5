//! The magic block: what a server asks of a library before anything else (`fmgr.h`, `dfmgr.c`).
//!
//! 15 to 17 compare the whole 56 bytes; 18 and later compare the same fields and carry a name and a version
//! behind them, 72 bytes in all.

use core::ffi::{c_char, c_int};
use core::mem::{offset_of, size_of};

/// Room for the server's `FMGR_ABI_EXTRA`, zero padded.
pub const ABI_EXTRA_BYTES: usize = 32;

/// The fields every supported major compares (`Pg_abi_values` in 18 and later).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct AbiValues {
    /// `PG_VERSION_NUM / 100`: 1500 for all of 15.
    pub version: c_int,
    /// `FUNC_MAX_ARGS`.
    pub funcmaxargs: c_int,
    /// `INDEX_MAX_KEYS`.
    pub indexmaxkeys: c_int,
    /// `NAMEDATALEN`.
    pub namedatalen: c_int,
    /// `FLOAT8PASSBYVAL`: 1 wherever a `Datum` has 8 bytes.
    pub float8byval: c_int,
    /// `FMGR_ABI_EXTRA`: "PostgreSQL", or what a fork puts there.
    pub abi_extra: [c_char; ABI_EXTRA_BYTES],
}

/// The block of 15 to 17 (`Pg_magic_struct`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Magic15 {
    /// `sizeof` the block.
    pub len: c_int,
    /// What is compared.
    pub abi: AbiValues,
}

/// The block of 18 and later.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Magic18 {
    /// `sizeof` the block.
    pub len: c_int,
    /// What is compared.
    pub abi: AbiValues,
    /// Shown by `pg_get_loaded_modules()`; may be null.
    pub name: *const c_char,
    /// Shown by `pg_get_loaded_modules()`; may be null.
    pub version: *const c_char,
}

const _: () = assert!(size_of::<AbiValues>() == 52);
const _: () = assert!(size_of::<Magic15>() == 56);
const _: () = assert!(offset_of!(Magic15, abi) == 4);
const _: () = assert!(size_of::<Magic18>() == 72);
const _: () = assert!(offset_of!(Magic18, abi) == 4);
const _: () = assert!(offset_of!(Magic18, name) == 56);
const _: () = assert!(offset_of!(Magic18, version) == 64);
