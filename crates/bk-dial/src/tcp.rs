//! Plain connections: names are looked up, what fails is told apart, and a peer that has vanished is noticed.
//!
//! The rule: an address that leads nowhere holds up none of the others that a host has.

use std::{io, net::SocketAddr};

use bk_build::Obstacle;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpStream, lookup_host},
    task::JoinSet,
    time::timeout,
};

#[cfg(unix)]
use crate::limits::TCP_PROBES;
#[cfg(target_os = "linux")]
use crate::limits::TCP_UNCONFIRMED;
use crate::limits::{NEXT_ADDRESS, TCP_KEEPALIVE, TCP_PROBE_INTERVAL};

/// Connects to `host` (an IPv6 address without brackets), at the first of its addresses that answers: they are tried in the
/// system's order, both families by turns, and the next one when one has failed or been silent for [`NEXT_ADDRESS`]. Small
/// pieces go out at once: requests and health answers must not wait for each other.
///
/// # Errors
/// When the name is not known, with words of our own, because systems have different ones; else what the last address said.
pub async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let found = lookup_host((host, port)).await.map_err(|_| {
        let text = format!("no address is known for the host `{host}`");
        Obstacle::Host.error(io::ErrorKind::HostUnreachable, text)
    })?;
    let stream = race(by_turns(found), TcpStream::connect)
        .await?
        .ok_or_else(|| io::Error::other(format!("the host `{host}` has no address")))?;
    tune(&stream)?;
    Ok(stream)
}

/// The same addresses, those of the first one's family and of the other one by turns.
fn by_turns(all: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let all: Vec<_> = all.collect();
    let first_is_v6 = all.first().is_some_and(SocketAddr::is_ipv6);
    let (own, other): (Vec<_>, Vec<_>) = all.into_iter().partition(|a| a.is_ipv6() == first_is_v6);
    let (mut own, mut other) = (own.into_iter(), other.into_iter());
    let mut turns = Vec::new();
    loop {
        let before = turns.len();
        turns.extend(own.next());
        turns.extend(other.next());
        if turns.len() == before {
            return turns;
        }
    }
}

/// What the first address gives that gives anything; nothing when there is none. All that still try end with the future.
async fn race<T, F>(addresses: Vec<SocketAddr>, connect: impl Fn(SocketAddr) -> F) -> io::Result<Option<T>>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    let mut left = addresses.into_iter();
    let mut trying = JoinSet::new();
    let mut failed = None;
    loop {
        if let Some(address) = left.next() {
            trying.spawn(connect(address));
        }
        let next = trying.join_next();
        let done = match left.len() {
            0 => next.await,
            // An address that leads nowhere says nothing, ever.
            _ => match timeout(NEXT_ADDRESS, next).await {
                Ok(done) => done,
                Err(_) => continue,
            },
        };
        match done {
            Some(Ok(Ok(done))) => return Ok(Some(done)),
            Some(Ok(Err(e))) => failed = Some(e),
            Some(Err(e)) => failed = Some(io::Error::other(e)),
            None => return failed.map_or(Ok(None), Err),
        }
    }
}

/// Sets a connection up. A daemon whose machine or link is gone ends it after at most two minutes, also when nothing is sent.
/// One that is only stopped does not: its system still answers.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(TCP_KEEPALIVE)
        .with_interval(TCP_PROBE_INTERVAL);
    // Windows has its own number, and older ones let nobody set it.
    #[cfg(unix)]
    let keepalive = keepalive.with_retries(TCP_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(TCP_UNCONFIRMED))?;
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{future::pending, time::Instant};

    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().expect(text)).collect()
    }

    #[test]
    fn families_take_turns_and_keep_the_order_of_the_system() {
        let all = ["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.0:1", "2.0.0.0:1"];
        let turns = by_turns(addresses(&all).into_iter());
        let wanted = ["[::1]:1", "1.0.0.0:1", "[::2]:1", "2.0.0.0:1", "[::3]:1"];
        assert_eq!(turns, addresses(&wanted));
        assert_eq!(by_turns(std::iter::empty()), []);
    }

    #[tokio::test]
    async fn an_address_that_leads_nowhere_holds_up_none_of_the_others() {
        let all = addresses(&["[::1]:1", "1.0.0.0:1", "2.0.0.0:1", "3.0.0.0:1"]);
        let asked = |address: SocketAddr| async move {
            match address.to_string().as_str() {
                "[::1]:1" => pending().await,
                "1.0.0.0:1" => Err(io::ErrorKind::ConnectionRefused.into()),
                _ => Ok(address),
            }
        };
        let since = Instant::now();
        let first = race(all.clone(), asked).await.expect("one answers");
        assert_eq!(first, Some(all[2]));
        // One was waited for; the next one failed, and is not.
        assert!(since.elapsed() < NEXT_ADDRESS * 2, "{:?}", since.elapsed());
        let nobody = race(all[1..2].to_vec(), asked).await.expect_err("refused");
        assert_eq!(nobody.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(race(Vec::new(), asked).await.expect("no failure"), None);
    }

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
