//! A type that is exported as a module has to be one.
// error: E0277
// says: `Stranger` is not an archive module
// says: it does not implement `module::ArchiveModule`

struct Stranger;

module::export! {
    archive: Stranger,
}
