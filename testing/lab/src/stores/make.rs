//! The kinds of stores, and how each of them is started.
//!
//! Guarantees that they listen on loopback only, on ports of their own, and that they send no reports. Their
//! programs are those that `make stores` puts into `.cache/stores`.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::lab::Lab;
use crate::stores::ports::Port;
use crate::stores::tls;

/// The account of Azurite and its key, both published with it.
pub(super) const AZURITE_ACCOUNT: &str = "devstoreaccount1";
pub(super) const AZURITE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Which of the ports of [`Make::SeaweedFsTls`] is the one with TLS, and which tells the numbers of requests.
pub(super) const TLS_PORT: usize = 8;
pub(super) const METRICS_PORT: usize = 9;

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    /// S3, and it keeps its promises.
    SeaweedFs,
    /// The same with TLS: [`Store::url`](crate::stores::Store::url) is of `https`, by a certificate authority of the
    /// lab's own. It has a plain port too, for the proxy and for the lab, and counts its requests.
    SeaweedFsTls,
    /// Azure's store, and it keeps its promises.
    Azurite,
    /// A fake of Google's store, in this process: see [`crate::stores`].
    GcsFake,
    /// S3, and it lies: it overwrites an object in spite of `If-None-Match: *`.
    S3Rver,
    /// S3, and it lies: of several that create an object at the same time, several win.
    S3sFs,
}

impl Make {
    /// Those that keep their promises, one for each protocol.
    pub const HONEST: [Make; 3] = [Make::SeaweedFs, Make::Azurite, Make::GcsFake];

    /// Those that break the promise of a conditional create.
    pub const LIARS: [Make; 2] = [Make::S3Rver, Make::S3sFs];

    /// The folder of its programs in `.cache/stores`, and the name of its directory.
    pub(super) fn name(self) -> &'static str {
        match self {
            Make::SeaweedFs | Make::SeaweedFsTls => "seaweedfs",
            Make::Azurite => "azurite",
            Make::GcsFake => "gcs-fake",
            Make::S3Rver => "s3rver",
            Make::S3sFs => "s3s-fs",
        }
    }

    /// How many ports it needs; the first is the one that clients use.
    pub(super) fn ports(self) -> usize {
        match self {
            Make::SeaweedFs => 8,
            Make::SeaweedFsTls => 10,
            Make::GcsFake => 0,
            Make::Azurite | Make::S3Rver | Make::S3sFs => 1,
        }
    }

    /// The signal that ends it without losing what it has acknowledged.
    pub(super) fn stops_at(self) -> Signal {
        match self {
            // It keeps the list of its blobs in memory for some seconds.
            Make::Azurite => Signal::TERM,
            // SeaweedFS takes a quarter of a minute when it is asked, and has written what it has acknowledged.
            _ => Signal::KILL,
        }
    }

    /// Access key and secret key, where it speaks S3.
    pub(super) fn s3_keys(self) -> (&'static str, &'static str) {
        match self {
            // Not to be changed from outside.
            Make::S3Rver => ("S3RVER", "S3RVER"),
            _ => ("walden-lab", "the-secret-of-the-lab"),
        }
    }

    /// What starts it, in its directory. The fake is not started like this.
    pub(super) fn command(self, lab: &Lab, dir: &Path, ports: &[Port]) -> Result<Command> {
        let home = stores()?;
        let port = ports.first().map_or(0, Port::number).to_string();
        let node = || -> Result<Command> {
            Ok(lab.server_command(&program(&home, "node/bin/node")?.to_string_lossy()))
        };
        let mut command = match self {
            Make::SeaweedFs | Make::SeaweedFsTls => {
                let program = program(&home, "seaweedfs/weed")?;
                let mut command = lab.server_command(&program.to_string_lossy());
                command.args(seaweedfs(self, lab, dir, ports)?);
                command
            }
            Make::Azurite => {
                let mut command = node()?;
                command.arg(program(
                    &home,
                    "azurite/node_modules/azurite/dist/src/blob/main.js",
                )?);
                command.args(["--silent", "--disableTelemetry", "--skipApiVersionCheck"]);
                command.args(["--blobHost", "127.0.0.1", "--blobPort", &port]);
                command.arg("--location").arg(dir);
                command
            }
            Make::S3Rver => {
                let mut command = node()?;
                command.arg(program(&home, "s3rver/node_modules/s3rver/bin/s3rver.js")?);
                command.args(["--silent", "--address", "127.0.0.1", "--port", &port]);
                command
                    .arg("--directory")
                    .arg(lab_directory(lab, dir, "data")?);
                command
            }
            Make::S3sFs => {
                let program = program(&home, "s3s-fs/bin/s3s-fs")?;
                let mut command = lab.server_command(&program.to_string_lossy());
                let (access, secret) = self.s3_keys();
                command.args(["--host", "127.0.0.1", "--port", &port]);
                command.args(["--access-key", access, "--secret-key", secret]);
                command.arg(lab_directory(lab, dir, "data")?);
                command
            }
            Make::GcsFake => anyhow::bail!("the fake is no program"),
        };
        command.current_dir(dir);
        Ok(command)
    }
}

impl fmt::Display for Make {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.name())?;
        to.write_str(if *self == Make::SeaweedFsTls {
            "-tls"
        } else {
            ""
        })
    }
}

/// SeaweedFS in one process, with one user, who has to sign. It puts sockets into `/tmp` as well: see [`sockets`].
fn seaweedfs(make: Make, lab: &Lab, dir: &Path, ports: &[Port]) -> Result<Vec<String>> {
    let data = lab_directory(lab, dir, "data")?;
    let (access, secret) = make.s3_keys();
    let config = dir.join("s3.json");
    let identity = format!(
        "{{\"identities\":[{{\"name\":\"lab\",\"credentials\":[{{\"accessKey\":\"{access}\",\
         \"secretKey\":\"{secret}\"}}],\"actions\":[\"Admin\",\"Read\",\"Write\",\"List\",\"Tagging\"]}}]}}"
    );
    fs::write(&config, identity).context("could not write the users of a store")?;
    let mut args = vec!["-logtostderr=true".to_owned(), "server".to_owned()];
    let flags = [
        "s3.port",
        "s3.port.grpc",
        "master.port",
        "master.port.grpc",
        "volume.port",
        "volume.port.grpc",
        "filer.port",
        "filer.port.grpc",
        "s3.port.https",
        "metricsPort",
    ];
    for (flag, port) in flags.iter().zip(ports) {
        args.push(format!("-{flag}={}", port.number()));
    }
    args.extend(
        [
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-filer",
            "-s3",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",
            "-master.telemetry=false",
            // The defaults are for disks of another size. New volumes are a second without writing.
            "-master.volumeSizeLimitMB=1024",
            "-volume.max=20",
            // Else it waits for other masters when it starts again, for some 20 s.
            "-master.resumeState=false",
        ]
        .map(str::to_owned),
    );
    args.push(format!("-dir={}", data.display()));
    args.push(format!("-s3.config={}", config.display()));
    for name in ["filer", "s3"] {
        let socket = dir.join(format!("{name}.sock"));
        args.push(format!("-{name}.localSocket={}", socket.display()));
    }
    if make == Make::SeaweedFsTls {
        let made = tls::make(lab, dir)?;
        args.push(format!("-s3.cert.file={}", made.certificate.display()));
        args.push(format!("-s3.key.file={}", made.key.display()));
    }
    Ok(args)
}

/// The sockets that SeaweedFS makes outside its directory, by its ports; not all of them go with it.
pub(super) fn sockets(ports: &[Port]) -> Vec<PathBuf> {
    let grpc = ["s3", "master", "volume", "filer"];
    // Every second port, as they are listed above.
    grpc.iter()
        .zip(ports.iter().skip(1).step_by(2))
        .map(|(name, port)| format!("/tmp/seaweedfs-{name}-grpc-{}.sock", port.number()).into())
        .collect()
}

/// A directory in a store's own, which may be there from before.
fn lab_directory(lab: &Lab, dir: &Path, name: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    fs::create_dir_all(&path)
        .with_context(|| format!("could not create \"{}\"", path.display()))?;
    lab.own(&path)?;
    Ok(path)
}

/// `.cache/stores` of the repository that this is run in.
fn stores() -> Result<PathBuf> {
    let here = std::env::current_dir().context("no current directory")?;
    here.ancestors()
        .find_map(|folder| folder.join(".cache/stores").canonicalize().ok())
        .with_context(|| {
            format!(
                "there are no object stores in or above \"{}\": run `make stores`",
                here.display()
            )
        })
}

/// The folder of one of the programs that `make stores` fetches.
///
/// # Errors
///
/// When it is not there.
pub fn folder(name: &str) -> Result<PathBuf> {
    let folder = stores()?.join(name);
    ensure!(
        folder.is_dir(),
        "there is no {name} in \"{}\": run `make stores`",
        folder.display()
    );
    Ok(folder)
}

fn program(stores: &Path, path: &str) -> Result<PathBuf> {
    let program = stores.join(path);
    ensure!(
        program.exists(),
        "there is no \"{}\": run `make stores`",
        program.display()
    );
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_was_not_fetched_is_a_failure_that_names_the_cure() {
        let nothing = tempfile::tempdir().unwrap();
        let missing = program(nothing.path(), "seaweedfs/weed").unwrap_err();
        assert!(missing.to_string().contains("`make stores`"), "{missing}");
    }
}
