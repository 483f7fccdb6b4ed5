//! What the servers of one cluster know and the archive does not, and the digests made with it.
//!
//! An archiver that encrypts cannot read its own files, and must yet tell whether the file that it finds under a name
//! is the one it was given. So an encrypted file carries a digest of its contents. A plain digest would let anyone
//! who holds the archive test guesses of those contents; one that is keyed with [`ClusterSecret`] does not.
//!
//! Guarantees: the secret is overwritten in memory when it is dropped, and debug output does not show it. Left to
//! others: where the secret comes from, and where digests are kept (`seal.rs`).

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use wal::WalFileName;
use zeroize::Zeroizing;

use crate::base::digest::Digest;
use crate::error::Error;

/// Bytes of a cluster's secret (`MOCK_AUTH_NONCE_LEN`, `pg_control.h`, 15 to 18).
pub const CLUSTER_SECRET_BYTES: usize = 32;

/// Keeps apart what is derived from one secret.
const DIGEST_LABEL: &[u8] = b"walden digest of a sealed file, 1";
const NAME_LABEL: &[u8] = b"walden name of a cluster secret, 1";

/// 32 random bytes that `initdb` has made (`InitControlFile`, xlog.c, 15 to 18), the same on a primary and on its
/// standbys, which stand in `pg_control` and never in WAL.
#[derive(Clone)]
pub struct ClusterSecret {
    bytes: Zeroizing<[u8; CLUSTER_SECRET_BYTES]>,
}

impl ClusterSecret {
    /// None if the bytes are all zero: then the control file was guessed (`pg_resetwal`), and they are no secret.
    pub fn new(bytes: [u8; CLUSTER_SECRET_BYTES]) -> Option<ClusterSecret> {
        let bytes = Zeroizing::new(bytes);
        let known = bytes.iter().any(|byte| *byte != 0);
        known.then_some(ClusterSecret { bytes })
    }

    /// Begins a digest of the contents of this file.
    pub(crate) fn digesting(&self, name: &WalFileName) -> Result<Digesting, Error> {
        let key = Zeroizing::new(self.derived(DIGEST_LABEL)?);
        let mut mac = keyed(&*key)?;
        mac.update(format!("{name}\n").as_bytes());
        let [a, b, c, d, e, f, g, h, ..] = self.derived(NAME_LABEL)?;
        Ok(Digesting {
            mac,
            secret: [a, b, c, d, e, f, g, h],
        })
    }

    fn derived(&self, label: &[u8]) -> Result<[u8; 32], Error> {
        let mut mac = keyed(&*self.bytes)?;
        mac.update(label);
        Ok(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(not shown)")
    }
}

fn keyed(key: &[u8]) -> Result<Hmac<Sha256>, Error> {
    // HMAC takes keys of any length, so this does not fail.
    Hmac::new_from_slice(key)
        .map_err(|cause| Error::unavailable(format!("could not begin a digest: {cause}")))
}

/// A digest in the making.
pub(crate) struct Digesting {
    mac: Hmac<Sha256>,
    secret: [u8; 8],
}

impl Digesting {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.mac.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        Digest {
            secret: self.secret,
            value: self.mac.finalize().into_bytes().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(secret: u8, name: &str, contents: &[u8]) -> Digest {
        let secret = ClusterSecret::new([secret; 32]).unwrap();
        let mut digesting = secret.digesting(&name.parse().unwrap()).unwrap();
        for chunk in contents.chunks(3) {
            digesting.feed(chunk);
        }
        digesting.finish()
    }

    #[test]
    fn a_digest_depends_on_secret_name_and_contents_and_on_nothing_else() {
        let one = digest(1, "00000002.history", b"contents");
        assert_eq!(one, digest(1, "00000002.history", b"contents"));
        assert_ne!(one.value, digest(1, "00000002.history", b"content").value);
        assert_ne!(one.value, digest(1, "00000003.history", b"contents").value);
        let other = digest(2, "00000002.history", b"contents");
        assert_ne!(one.value, other.value);
        assert_ne!(one.secret, other.secret);
    }

    #[test]
    fn a_secret_of_zeros_is_none_and_no_secret_is_shown() {
        assert!(ClusterSecret::new([0; 32]).is_none());
        let secret = ClusterSecret::new([7; 32]).unwrap();
        assert_eq!(format!("{secret:?}"), "ClusterSecret(not shown)");
    }
}
