//! Plain connections: names are looked up, and what fails is told apart.

use std::io;

use tokio::net::{TcpStream, lookup_host};

/// Connects to `host` (an IPv6 address without brackets), at the first of its addresses that answers. Small pieces go out at
/// once: requests and health answers must not wait for each other.
///
/// # Errors
/// When the name is not known, with words of our own, because systems have different ones; else what the last address said.
pub async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let found = lookup_host((host, port)).await.map_err(|_| {
        io::Error::new(
            io::ErrorKind::HostUnreachable,
            format!("no address is known for the host `{host}`"),
        )
    })?;
    let mut failed = None;
    for address in found {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(e) => failed = Some(e),
        }
    }
    Err(failed.unwrap_or_else(|| io::Error::other(format!("the host `{host}` has no address"))))
}
