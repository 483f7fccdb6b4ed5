//! The one macro that turns a crate into a library the server can load.

/// Exports a library's entry points.
///
/// ```text
/// module::export! {
///     settings: [DIRECTORY, INTERVAL],     // optional: statics, or a &'static [&'static dyn Setting]
///     load: on_load,                       // optional: fn(Loading) -> Result<(), Failure>
///     archive: Archiver,                   // optional: an ArchiveModule
///     recovery: Recovery { restore, archive_cleanup, recovery_end },   // optional, any of the three
///     backup_target: Target,               // optional, several: a BackupTarget
///     worker: my_worker => work,           // optional, several: symbol => fn(Process) -> Result<(), Failure>
/// }
/// ```
///
/// The order is fixed. The crate must be a `cdylib`, and there is one such line in it. One type may be
/// archive module and recovery module; the archiver and the recovery worker are two processes, and each has
/// its own.
///
/// What the line expands to are exported symbols, which Rust counts as unsafe code, and it allows them
/// itself: a crate that uses it can and should deny `unsafe_code` (it cannot forbid it).
#[macro_export]
macro_rules! export {
    (settings: [$($setting:path),* $(,)?], $($rest:tt)*) => {
        $crate::export! { @with { &[$(&$setting),*] } $($rest)* }
    };
    (settings: $settings:expr, $($rest:tt)*) => {
        $crate::export! { @with { $settings } $($rest)* }
    };
    (
        @with { $settings:expr }
        $(load: $load:path,)?
        $(archive: $archive:ty,)?
        $(recovery: $recovery:ty { $($job:ident),+ $(,)? },)?
        $(backup_target: $target:ty,)*
        $(worker: $symbol:ident => $main:path,)*
    ) => {
        /// Asked for by the server right after it opened the library.
        #[allow(unsafe_code)]
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
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        pub extern "C-unwind" fn _PG_init() {
            static SETTINGS: &[&dyn $crate::settings::Setting] = $settings;
            #[allow(unused_mut, unused_assignments)]
            let mut on_load: Option<$crate::boundary::load::OnLoad> = None;
            $(on_load = Some($load);)?
            static TARGETS: &[$crate::boundary::backup::Registration] =
                &[$($crate::boundary::backup::Registration::of::<$target>()),*];
            // SAFETY: the server calls this once per process, on its main thread.
            unsafe { $crate::boundary::load::init(SETTINGS, on_load, TARGETS) };
        }

        $($crate::export! { @implements $target, $crate::BackupTarget })*

        $(
            $crate::export! { @is archive $archive }

            /// Called by the archiver; both dialects.
            #[allow(unsafe_code)]
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
            $($crate::export! { @is $job $recovery })+

            /// Called by the recovery worker.
            #[allow(unsafe_code)]
            #[unsafe(no_mangle)]
            pub extern "C-unwind" fn _PG_recovery_module_init() -> *const ::core::ffi::c_void {
                static CALLBACKS: $crate::boundary::recovery::Callbacks =
                    $crate::boundary::recovery::Table::<$recovery>::new()$(.$job())+.callbacks();
                (&raw const CALLBACKS).cast()
            }
        )?

        $(
            /// Main function of a background worker.
            #[allow(unsafe_code)]
            #[unsafe(no_mangle)]
            pub extern "C-unwind" fn $symbol(_argument: usize) {
                // SAFETY: the server calls this as the main function of a background worker.
                unsafe { $crate::boundary::worker::run($main) };
            }
        )*
    };
    // Not needed for anything to work: these make the compiler say plainly what is missing.
    (@is archive $module:ty) => { $crate::export! { @implements $module, $crate::ArchiveModule } };
    (@is restore $module:ty) => { $crate::export! { @implements $module, $crate::RestoreModule } };
    (@is archive_cleanup $module:ty) => {
        $crate::export! { @implements $module, $crate::ArchiveCleanupModule }
    };
    (@is recovery_end $module:ty) => {
        $crate::export! { @implements $module, $crate::RecoveryEndModule }
    };
    (@is $job:ident $module:ty) => {
        ::core::compile_error!(
            "the jobs of a recovery module are restore, archive_cleanup, recovery_end"
        );
    };
    (@implements $module:ty, $job:path) => {
        const _: () = {
            const fn implements<M: $job>() {}
            implements::<$module>()
        };
    };
    (@ $($rest:tt)*) => {
        ::core::compile_error!(
            "module::export! takes, in this order: settings, load, archive, recovery, backup_target, worker; \
             each is optional and ends with a comma"
        );
    };
    ($($rest:tt)*) => {
        $crate::export! { @with { &[] } $($rest)* }
    };
}
