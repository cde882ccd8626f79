//! A small receiver, as strict as the daemon's, and trees that misbehave on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bk_fsync::entry::{Meta, Xattr};
use bk_fsync::order::OrderValidator;
use bk_fsync::path::RelPath;
use bk_fsync::tree::{Directory, Listed, OpenFile, Tree};
use bk_fsync::{SendError, SendOptions, SendReport, send};
use bk_proto::Mode;
use bk_proto::fsutil::packet::PacketType;
use bk_proto::fsutil::{Packet, Stat};
use bytes::Bytes;
use futures_core::Stream;
use tokio::sync::mpsc;

/// The peer's packets as the stream that the sender takes.
pub(crate) struct Inbound(pub(crate) mpsc::Receiver<Packet>);

impl Stream for Inbound {
    type Item = Result<Packet, io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|packet| packet.map(Ok))
    }
}

/// What a receiver ended up with.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) stats: Vec<Stat>,
    /// Contents of the files that arrived completely.
    pub(crate) files: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The text of the sender's error packet.
    pub(crate) error: Option<String>,
    /// Whether the sender confirmed the end.
    pub(crate) finished: bool,
}

impl Received {
    pub(crate) fn paths(&self) -> Vec<String> {
        self.stats
            .iter()
            .map(|s| bk_fsync::path::show(&s.path).into_owned())
            .collect()
    }

    pub(crate) fn stat(&self, path: impl AsRef<[u8]>) -> &Stat {
        self.stats.iter().find(|s| s.path == path.as_ref()).unwrap()
    }
}

pub(crate) fn request(id: u32) -> Packet {
    Packet {
        r#type: PacketType::PacketReq.into(),
        id,
        ..Packet::default()
    }
}

pub(crate) fn fin() -> Packet {
    Packet {
        r#type: PacketType::PacketFin.into(),
        ..Packet::default()
    }
}

pub(crate) fn err(text: &str) -> Packet {
    let data = Bytes::copy_from_slice(text.as_bytes());
    Packet {
        r#type: PacketType::PacketErr.into(),
        data,
        ..Packet::default()
    }
}

/// Starts a transfer: the peer's end of both channels, and the future.
pub(crate) fn start(
    tree: Arc<dyn Tree>,
    options: SendOptions,
    capacity: usize,
) -> (
    mpsc::Sender<Packet>,
    mpsc::Receiver<Packet>,
    impl Future<Output = Result<SendReport, SendError>> + Send,
) {
    let (to_sender, inbound) = mpsc::channel(1);
    let (outbound, from_sender) = mpsc::channel(capacity);
    (
        to_sender,
        from_sender,
        send(tree, options, Inbound(inbound), outbound),
    )
}

/// Runs a whole transfer with a receiver that wants every file for which `wanted` holds.
pub(crate) async fn transfer_some(
    tree: Arc<dyn Tree>,
    options: SendOptions,
    wanted: impl Fn(&Stat) -> bool + Send,
) -> (Result<SendReport, SendError>, Received) {
    let (to_sender, from_sender, sending) = start(tree, options, 8);
    tokio::join!(sending, receive(to_sender, from_sender, wanted, |_| {}))
}

/// Runs a whole transfer in which every file is wanted.
pub(crate) async fn transfer(
    tree: impl Tree + 'static,
    options: SendOptions,
) -> (Result<SendReport, SendError>, Received) {
    transfer_some(Arc::new(tree), options, |_| true).await
}

/// The receiver: asks for files while the listing runs. `listed` is called at the end of the listing, before
/// anything is asked for if it wants to interfere then.
pub(crate) async fn receive(
    to_sender: mpsc::Sender<Packet>,
    mut from_sender: mpsc::Receiver<Packet>,
    wanted: impl Fn(&Stat) -> bool,
    listed: impl Fn(&Received),
) -> Received {
    let mut got = Received::default();
    let mut order = OrderValidator::new();
    let mut plain = BTreeSet::new();
    let mut open: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let mut listing = true;
    // Asking must not keep the receiver from taking what is sent, or both sides wait for each other.
    let (asking, mut to_ask) = mpsc::unbounded_channel();
    let asker = tokio::spawn(async move {
        while let Some(packet) = to_ask.recv().await {
            if to_sender.send(packet).await.is_err() {
                return;
            }
        }
        // Stays open until the sender goes.
        to_sender.closed().await;
    });
    while let Some(packet) = from_sender.recv().await {
        match PacketType::try_from(packet.r#type).unwrap() {
            PacketType::PacketStat => match packet.stat {
                Some(stat) => {
                    assert!(listing, "an entry after the end of the listing");
                    let mode = Mode::from_bits(stat.mode);
                    order.check(&stat.path, mode.is_dir()).unwrap();
                    if !mode.is_dir() && !mode.is_symlink() {
                        if stat.linkname.is_empty() {
                            plain.insert(stat.path.clone());
                        } else {
                            assert!(
                                plain.contains(&stat.linkname),
                                "a link to nothing listed: {stat:?}"
                            );
                        }
                    }
                    if mode.is_regular() && stat.linkname.is_empty() && wanted(&stat) {
                        let id = u32::try_from(got.stats.len()).unwrap();
                        open.insert(id, Vec::new());
                        asking.send(request(id)).unwrap();
                    }
                    got.stats.push(stat);
                }
                None => {
                    assert_eq!(packet, Packet::default(), "the end of the listing has no bytes");
                    listing = false;
                    listed(&got);
                }
            },
            PacketType::PacketData => {
                if packet.data.is_empty() {
                    let content = open.remove(&packet.id).unwrap();
                    got.files
                        .insert(got.stats[packet.id as usize].path.clone(), content);
                } else {
                    open.get_mut(&packet.id).unwrap().extend_from_slice(&packet.data);
                }
            }
            PacketType::PacketErr => {
                got.error = Some(String::from_utf8(packet.data.to_vec()).unwrap());
                break;
            }
            PacketType::PacketFin => {
                got.finished = true;
                break;
            }
            PacketType::PacketReq => panic!("the sender asks for a file"),
        }
        if !listing && open.is_empty() {
            // A second one cannot happen: the sender answers the first and ends.
            let _ = asking.send(fin());
        }
    }
    asker.abort();
    got
}

/// A tree whose every operation first asks `before`, which may wait, count, or make it fail.
pub(crate) struct Hooked<F> {
    pub(crate) inner: Arc<dyn Tree>,
    pub(crate) before: Arc<F>,
}

/// An operation that is about to happen.
#[derive(Debug)]
pub(crate) enum Op<'a> {
    OpenDir(&'a [u8]),
    List(&'a [u8]),
    Stat(&'a [u8]),
    Xattrs(&'a [u8]),
    Open(&'a [u8]),
    Read(&'a [u8]),
}

pub(crate) fn hooked<F>(inner: impl Tree + 'static, before: F) -> Hooked<F>
where
    F: Fn(Op<'_>) -> io::Result<()> + Send + Sync + 'static,
{
    Hooked {
        inner: Arc::new(inner),
        before: Arc::new(before),
    }
}

struct HookedDir<F> {
    inner: Box<dyn Directory>,
    path: Vec<u8>,
    before: Arc<F>,
}

struct HookedFile<F> {
    inner: Box<dyn OpenFile>,
    path: Vec<u8>,
    before: Arc<F>,
}

impl<F: Fn(Op<'_>) -> io::Result<()> + Send + Sync + 'static> Tree for Hooked<F> {
    fn open_dir(&self, path: RelPath<'_>) -> io::Result<Box<dyn Directory>> {
        (self.before)(Op::OpenDir(path.as_bytes()))?;
        let (inner, before) = (self.inner.open_dir(path)?, Arc::clone(&self.before));
        Ok(Box::new(HookedDir {
            inner,
            path: path.as_bytes().to_vec(),
            before,
        }))
    }

    fn open(&self, path: RelPath<'_>) -> io::Result<Box<dyn OpenFile>> {
        (self.before)(Op::Open(path.as_bytes()))?;
        let (inner, before) = (self.inner.open(path)?, Arc::clone(&self.before));
        Ok(Box::new(HookedFile {
            inner,
            path: path.as_bytes().to_vec(),
            before,
        }))
    }
}

impl<F> HookedDir<F> {
    fn at(&self, name: &[u8]) -> Vec<u8> {
        bk_fsync::path::join(RelPath::new(&self.path).unwrap(), name)
    }
}

impl<F: Fn(Op<'_>) -> io::Result<()> + Send + Sync + 'static> Directory for HookedDir<F> {
    fn list(&mut self) -> io::Result<Vec<Listed>> {
        (self.before)(Op::List(&self.path))?;
        self.inner.list()
    }

    fn stat(&self, name: &[u8]) -> io::Result<Meta> {
        (self.before)(Op::Stat(&self.at(name)))?;
        self.inner.stat(name)
    }

    fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        self.inner.read_link(name)
    }

    fn xattrs(&self, name: &[u8]) -> io::Result<Vec<Xattr>> {
        (self.before)(Op::Xattrs(&self.at(name)))?;
        self.inner.xattrs(name)
    }

    fn open_dir(&self, name: &[u8]) -> io::Result<Box<dyn Directory>> {
        let path = self.at(name);
        (self.before)(Op::OpenDir(&path))?;
        Ok(Box::new(HookedDir {
            inner: self.inner.open_dir(name)?,
            path,
            before: Arc::clone(&self.before),
        }))
    }
}

impl<F: Fn(Op<'_>) -> io::Result<()> + Send + Sync + 'static> io::Read for HookedFile<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (self.before)(Op::Read(&self.path))?;
        self.inner.read(buffer)
    }
}

impl<F: Fn(Op<'_>) -> io::Result<()> + Send + Sync + 'static> OpenFile for HookedFile<F> {
    fn stat(&self) -> io::Result<Meta> {
        self.inner.stat()
    }
}
