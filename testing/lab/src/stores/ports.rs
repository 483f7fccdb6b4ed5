//! Ports on loopback that stay reserved for as long as they are held, also while nothing listens there.
//!
//! Guarantees that no two labs, in this process or another, get the same port: each is bound, without listening,
//! by a socket that is kept. The kernel gives such a port to no process that asks for any; a server that asks for this
//! very one gets it, if it sets SO_REUSEADDR, as Go, Node.js and tokio do (ip(7) allows it while none listens).
//! Meanwhile a client that connects is refused.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen};
use rustix::net::{socket_with, sockopt};

/// How many connections may wait to be taken.
const BACKLOG: i32 = 256;

/// A port of 127.0.0.1, reserved until this is dropped.
pub struct Port {
    _held: OwnedFd,
    number: u16,
}

impl Port {
    /// Takes a free port and holds it.
    ///
    /// # Errors
    ///
    /// When the kernel has none.
    pub fn take() -> Result<Port> {
        let socket = bound(0)?;
        let address = getsockname(&socket).context("could not ask for a port's number")?;
        let address = SocketAddr::try_from(address).context("a port of no address")?;
        Ok(Port {
            _held: socket,
            number: address.port(),
        })
    }

    /// The TCP port's number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Listens there, in this process.
    pub(super) fn listen(&self) -> Result<TcpListener> {
        let socket = bound(self.number)?;
        listen(&socket, BACKLOG)
            .with_context(|| format!("could not listen on port {}", self.number))?;
        let listener = TcpListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(listener)
    }
}

fn bound(port: u16) -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("could not bind port {port}"))?;
    Ok(socket)
}
