//! Plain connections: names are looked up, what fails is told apart, and a peer that has vanished is noticed.

use std::io;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};

use crate::limits::{TCP_KEEPALIVE, TCP_PROBE_INTERVAL, TCP_PROBES, TCP_UNCONFIRMED};

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
                tune(&stream)?;
                return Ok(stream);
            }
            Err(e) => failed = Some(e),
        }
    }
    Err(failed.unwrap_or_else(|| io::Error::other(format!("the host `{host}` has no address"))))
}

/// Sets a connection up. A daemon whose machine or link is gone ends it after at most two minutes, also when nothing is sent.
/// One that is only stopped does not: its system still answers.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(TCP_KEEPALIVE)
        .with_interval(TCP_PROBE_INTERVAL);
    #[cfg(unix)]
    let keepalive = keepalive.with_retries(TCP_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(TCP_UNCONFIRMED))?;
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_system_is_told_to_look_after_the_peer() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("its address");
        let stream = TcpStream::connect(address).await.expect("a connection");
        tune(&stream).expect("options");
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().expect("keepalive") && socket.tcp_nodelay().expect("nodelay"));
        assert_eq!(socket.tcp_keepalive_time().expect("time"), TCP_KEEPALIVE);
        assert_eq!(
            socket.tcp_keepalive_interval().expect("interval"),
            TCP_PROBE_INTERVAL
        );
        assert_eq!(socket.tcp_keepalive_retries().expect("probes"), TCP_PROBES);
        assert_eq!(socket.tcp_user_timeout().expect("bound"), Some(TCP_UNCONFIRMED));
    }
}
