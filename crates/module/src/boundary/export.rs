//! The one macro that turns a crate into a library the server can load.

/// Exports a library's entry points.
///
/// ```text
/// module::export! {
///     settings: SETTINGS,                  // &'static [&'static dyn Setting]
///     load: on_load,                       // optional: fn(Loading) -> Result<(), Failure>
///     archive: Archiver,                   // optional: an ArchiveModule
///     recovery: Recovery { restore, archive_cleanup, recovery_end },   // optional, any of the three
///     worker: my_worker_main => my_worker, // optional, several: symbol => fn(Process) -> Result<(), Failure>
/// }
/// ```
///
/// The crate must be a `cdylib`.  Where `unsafe_code` is denied, as it should be, the module with this line
/// alone allows it.
#[macro_export]
macro_rules! export {
    (
        settings: $settings:expr,
        $(load: $load:path,)?
        $(archive: $archive:ty,)?
        $(recovery: $recovery:ty { $($job:ident),+ $(,)? },)?
        $(worker: $symbol:ident => $main:path,)*
    ) => {
        /// Asked for by the server right after it opened the library.
        #[unsafe(no_mangle)]
        pub extern "C-unwind" fn Pg_magic_func() -> *const ::core::ffi::c_void {
            const fn text(text: &'static str) -> &'static ::core::ffi::CStr {
                match ::core::ffi::CStr::from_bytes_with_nul(text.as_bytes()) {
                    Ok(text) => text,
                    Err(_) => c"",
                }
            }
            const NAME: &::core::ffi::CStr = text(concat!(env!("CARGO_PKG_NAME"), "\0"));
            const VERSION: &::core::ffi::CStr = text(concat!(env!("CARGO_PKG_VERSION"), "\0"));
            // SAFETY: the server calls this once it has opened the library, on its main thread.
            unsafe { $crate::boundary::load::magic(NAME, VERSION) }
        }

        /// Called by the server once per process.
        #[unsafe(no_mangle)]
        pub extern "C-unwind" fn _PG_init() {
            #[allow(unused_mut, unused_assignments)]
            let mut on_load: Option<$crate::boundary::load::OnLoad> = None;
            $(on_load = Some($load);)?
            // SAFETY: the server calls this once per process, on its main thread.
            unsafe { $crate::boundary::load::init($settings, on_load) };
        }

        $(
            /// Called by the archiver; both dialects.
            #[unsafe(no_mangle)]
            pub extern "C-unwind" fn _PG_archive_module_init(
                to_fill: *mut ::core::ffi::c_void,
            ) -> *const ::core::ffi::c_void {
                // SAFETY: the archiver calls this in its own dialect (pgarch.c, LoadArchiveLibrary).
                unsafe {
                    $crate::boundary::archive::Table::<$archive>::init(to_fill.cast()).cast()
                }
            }
        )?

        $(
            /// Called by the recovery worker.
            #[unsafe(no_mangle)]
            pub extern "C-unwind" fn _PG_recovery_module_init() -> *const ::core::ffi::c_void {
                static CALLBACKS: $crate::boundary::recovery::Callbacks =
                    $crate::boundary::recovery::Table::<$recovery>::new()$(.$job())+.callbacks();
                (&raw const CALLBACKS).cast()
            }
        )?

        $(
            /// Main function of a background worker.
            #[unsafe(no_mangle)]
            pub extern "C-unwind" fn $symbol(_argument: usize) {
                // SAFETY: the server calls this as the main function of a background worker.
                unsafe { $crate::boundary::worker::run($main) };
            }
        )*
    };
}
