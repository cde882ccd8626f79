//! One `up` or `down` at a time for each workspace.
//!
//! The lock is a listener with an abstract name, which the kernel takes back however this program ends. Whoever waits
//! is connected to it and learns of the end by the connection's.

use super::layout::Layout;
use crate::run::Result;
use std::io::Read;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

/// The right to change what runs; ends when dropped.
pub(crate) struct Lock {
    _listener: UnixListener,
}

impl Lock {
    /// Waits until nobody else has it.
    pub(crate) fn take(layout: &Layout) -> Result<Lock> {
        let address = SocketAddr::from_abstract_name(layout.run().as_os_str().as_encoded_bytes())?;
        loop {
            match UnixListener::bind_addr(&address) {
                Ok(listener) => return Ok(Lock { _listener: listener }),
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                    if let Ok(mut holder) = UnixStream::connect_addr(&address) {
                        eprintln!("waiting for another `cargo xtask` that starts or stops daemons ...");
                        // Nothing is ever sent: any outcome means that the holder is gone.
                        let _ = holder.read(&mut [0]);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
