//! Scripted senders, scratch directories, and a look at what is on the disk.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bk_fsync::receive::{Change, ReceiveObserver, ReceiveWarning};
use bk_fsync::{
    Destination, ReceiveError, ReceiveOptions, ReceiveReport, SendOptions, SyncPolicy, Tree, receive, send,
};
use bk_proto::Mode;
use bk_proto::fsutil::packet::PacketType;
use bk_proto::fsutil::{Packet, Stat};
use bytes::Bytes;
use futures_core::Stream;
use tokio::sync::mpsc;

/// The peer's packets as the stream that both halves take.
pub(crate) struct Inbound(pub(crate) mpsc::Receiver<Packet>);

impl Stream for Inbound {
    type Item = Result<Packet, io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|packet| packet.map(Ok))
    }
}

pub(crate) fn stat(path: impl AsRef<[u8]>, mode: u32, size: i64) -> Stat {
    Stat {
        path: path.as_ref().to_vec(),
        mode,
        size,
        mod_time: 1_600_000_000_123_456_789,
        ..Stat::default()
    }
}

pub(crate) fn dir(path: impl AsRef<[u8]>) -> Stat {
    stat(path, Mode::DIR | 0o755, 0)
}

pub(crate) fn linked(mut stat: Stat, target: impl AsRef<[u8]>) -> Stat {
    stat.linkname = target.as_ref().to_vec();
    stat
}

pub(crate) fn symlink(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Stat {
    linked(stat(path, Mode::SYMLINK | 0o777, 0), target)
}

pub(crate) fn entry(stat: Stat) -> Packet {
    Packet {
        stat: Some(stat),
        ..Packet::default()
    }
}

pub(crate) fn end_of_listing() -> Packet {
    Packet::default()
}

pub(crate) fn typed(packet_type: PacketType) -> Packet {
    Packet {
        r#type: packet_type.into(),
        ..Packet::default()
    }
}

pub(crate) fn data(id: u32, bytes: impl Into<Bytes>) -> Packet {
    Packet {
        id,
        data: bytes.into(),
        ..typed(PacketType::PacketData)
    }
}

/// Sends `tree` with our own sender into `dest`.
pub(crate) async fn copy(
    tree: Arc<dyn Tree>,
    mut sending: SendOptions,
    dest: &Arc<Destination>,
    options: ReceiveOptions,
) -> Result<ReceiveReport, ReceiveError> {
    // As a daemon sends: with true times.
    sending.policies.sync = SyncPolicy::Mtime;
    let (to_receiver, from_sender) = mpsc::channel(4);
    let (to_sender, from_receiver) = mpsc::channel(4);
    let (sent, received) = tokio::join!(
        send(tree, sending, Inbound(from_receiver), to_receiver),
        is_send(receive(
            Arc::clone(dest),
            options,
            Inbound(from_sender),
            to_sender
        )),
    );
    if received.is_ok() {
        sent.unwrap();
    }
    received
}

/// A server moves it between its threads.
fn is_send<T: Send>(future: T) -> T {
    future
}

/// A sender with all entries given, that answers each request by the content of that id, and confirms the end.
/// Returns what the receiver said, and the text of its error packet.
pub(crate) async fn scripted(
    dest: &Arc<Destination>,
    options: ReceiveOptions,
    listing: Vec<Stat>,
    content: BTreeMap<u32, Vec<u8>>,
) -> (Result<ReceiveReport, ReceiveError>, Option<String>) {
    let (to_receiver, from_sender) = mpsc::channel(4);
    let (to_sender, mut from_receiver) = mpsc::channel::<Packet>(4);
    let lister = to_receiver.clone();
    let peer = async move {
        let listing = async move {
            for stat in listing {
                if lister.send(entry(stat)).await.is_err() {
                    return;
                }
            }
            let _ = lister.send(end_of_listing()).await;
        };
        let answering = async move {
            while let Some(packet) = from_receiver.recv().await {
                match PacketType::try_from(packet.r#type).unwrap() {
                    PacketType::PacketReq => {
                        let bytes = content.get(&packet.id).cloned().unwrap_or_default();
                        for chunk in bytes.chunks(32 * 1024) {
                            let _ = to_receiver.send(data(packet.id, chunk.to_vec())).await;
                        }
                        let _ = to_receiver.send(data(packet.id, Bytes::new())).await;
                    }
                    PacketType::PacketFin => {
                        let _ = to_receiver.send(packet).await;
                        // Like the daemon's, it does not end the stream.
                        while from_receiver.recv().await.is_some() {}
                        return None;
                    }
                    PacketType::PacketErr => {
                        return Some(String::from_utf8(packet.data.to_vec()).unwrap());
                    }
                    other => panic!("a receiver sends {other:?}"),
                }
            }
            None
        };
        tokio::join!(listing, answering).1
    };
    let (outcome, told) = tokio::join!(
        receive(Arc::clone(dest), options, Inbound(from_sender), to_sender),
        peer
    );
    (outcome, told)
}

/// One path on the disk: all that an export should keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) mode: u32,
    pub(crate) mtime_ns: i64,
    pub(crate) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Dir,
    /// Content, and the first path in order that is the same file.
    File(Vec<u8>, Vec<u8>),
    Link(Vec<u8>),
    Fifo,
    Device(u64),
}

/// Everything below `root`, by path.
pub(crate) fn look(root: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut seen = BTreeMap::new();
    let mut files: BTreeMap<(u64, u64), Vec<u8>> = BTreeMap::new();
    let mut to_visit = vec![root.to_owned()];
    let mut all = Vec::new();
    while let Some(at) = to_visit.pop() {
        for child in fs::read_dir(&at).unwrap() {
            let path = child.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() {
                to_visit.push(path.clone());
            }
            all.push(path);
        }
    }
    all.sort();
    for path in all {
        let meta = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let kind = meta.file_type();
        let what = if kind.is_dir() {
            What::Dir
        } else if kind.is_symlink() {
            What::Link(fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec())
        } else if kind.is_fifo() {
            What::Fifo
        } else if kind.is_char_device() || kind.is_block_device() {
            What::Device(meta.rdev())
        } else {
            let first = files
                .entry((meta.dev(), meta.ino()))
                .or_insert_with(|| name.clone());
            What::File(fs::read(&path).unwrap(), first.clone())
        };
        let seen_here = Seen {
            mode: meta.mode() & 0o7777,
            mtime_ns: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
            what,
        };
        seen.insert(name, seen_here);
    }
    seen
}

/// The names in `root` at any depth, as text.
pub(crate) fn names(root: &Path) -> Vec<String> {
    look(root)
        .into_keys()
        .map(|p| String::from_utf8(p).unwrap())
        .collect()
}

/// Writes down what an export tells.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) changes: Mutex<Vec<(String, Change)>>,
    pub(crate) warnings: Mutex<Vec<String>>,
}

impl Log {
    pub(crate) fn of(&self, change: Change) -> Vec<String> {
        let changes = self.changes.lock().unwrap();
        let mut of: Vec<_> = changes
            .iter()
            .filter(|(_, c)| *c == change)
            .map(|(p, _)| p.clone())
            .collect();
        of.sort();
        of
    }
}

impl ReceiveObserver for Log {
    fn changed(&self, path: &[u8], change: Change) {
        let path = bk_fsync::path::show(path).into_owned();
        self.changes.lock().unwrap().push((path, change));
    }

    fn warning(&self, warning: &ReceiveWarning<'_>) {
        self.warnings.lock().unwrap().push(warning.to_string());
    }
}

/// A scratch directory with a destination `out` in it, beside which nothing must change.
pub(crate) struct Scratch {
    pub(crate) temp: tempfile::TempDir,
    pub(crate) dest: Arc<Destination>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dest = Destination::create(temp.path().join("out")).unwrap();
        Scratch { temp, dest }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.temp.path().join("out").join(name)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        names(&self.temp.path().join("out"))
    }
}

/// The whole chain of an error.
pub(crate) fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        text.push_str(": ");
        text.push_str(&err.to_string());
        cause = err.source();
    }
    text
}
