//! What a digest is: made with a cluster's secret (`format/secret.rs`), noted in the header of an encrypted file, and carried by
//! the error that says that such a file cannot be opened.

/// A digest of a file's name and contents, and which secret it was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest {
    /// Tells secrets apart and tells nothing else of them.
    pub(crate) secret: [u8; 8],
    pub(crate) value: [u8; 32],
}
