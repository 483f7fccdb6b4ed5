//! What digests are. One is made with a cluster's secret (`format/secret.rs`), noted in the header of an encrypted file, and
//! carried by the error that says that such a file cannot be opened; the other is noted with an object that is not encrypted.

/// A digest of a file's name and contents, and which secret it was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest {
    /// Tells secrets apart and tells nothing else of them.
    pub(crate) secret: [u8; 8],
    pub(crate) value: [u8; 32],
}

/// SHA-256 of a file's contents, as the server has them: neither compressed nor encrypted.
pub type ContentsDigest = [u8; 32];
