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

/// What an object has become by being packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// How many bytes its contents are.
    pub bytes: u64,
    /// How many bytes are stored.
    pub stored_bytes: u64,
    /// SHA-256 of the bytes that are stored, so that it says nothing of contents that are encrypted.
    pub stored_digest: [u8; 32],
}
