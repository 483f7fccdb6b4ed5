//! A certificate authority for one store, made by openssl(1).
//!
//! Guarantees a certificate for `127.0.0.1` and `localhost` that is valid by this authority only, for a day. The
//! authority's own key is not kept.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::lab::Lab;
use crate::program::run;

/// The authority's certificate in a store's directory.
pub(super) const AUTHORITY: &str = "ca.pem";

const EXTENSIONS: &str = "\
subjectAltName=IP:127.0.0.1,DNS:localhost
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth
";

/// The files that a server with TLS needs.
pub(super) struct Made {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// Makes both in a directory, unless they are there.
pub(super) fn make(lab: &Lab, dir: &Path) -> Result<Made> {
    let made = Made {
        certificate: dir.join("server.pem"),
        key: dir.join("server.key"),
    };
    if made.certificate.exists() {
        return Ok(made);
    }
    let extensions = dir.join("server.ext");
    fs::write(&extensions, EXTENSIONS)?;
    let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for arguments in [
        format!(
            "req -x509 {new_key} -days 1 -subj /CN=walden-lab-ca -keyout ca.key -out {AUTHORITY} \
             -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign"
        ),
        format!("req {new_key} -subj /CN=walden-lab-store -keyout server.key -out server.csr"),
        format!(
            "x509 -req -in server.csr -CA {AUTHORITY} -CAkey ca.key -CAcreateserial -days 1 \
             -extfile server.ext -out server.pem"
        ),
    ] {
        run(lab
            .server_command("openssl")
            .current_dir(dir)
            .args(arguments.split_whitespace()))?
        .success()
        .context("openssl could not make a certificate")?;
    }
    fs::write(dir.join("ca.key"), "").context("could not forget the key of the authority")?;
    Ok(made)
}
