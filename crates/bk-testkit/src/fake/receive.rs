//! The receiving half of a file transfer as a daemon runs it, stricter than any of them.
//!
//! Requests leave while the listing still arrives. Whatever real daemons would refuse is refused here, and some of what
//! they would let pass: a file whose content is not as long as its entry said.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap, VecDeque},
};

use bk_proto::{
    filesync::file_sync_client::FileSyncClient,
    fsutil::{Packet, Stat, packet::PacketType},
    headers, metadata,
};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::{
    Fault, Moment, Script,
    session::{Session, origin},
};
use crate::snapshot::{ContentDigest, show};

/// Type bits of Go's file mode, without which an entry is a regular file.
const TYPE_BITS: u32 = (1 << 31) | (1 << 27) | (1 << 26) | (1 << 25) | (1 << 24) | (1 << 21) | (1 << 19);
const DIR: u32 = 1 << 31;
/// Content kept in memory of each file: enough for a Dockerfile and an ignore file.
const KEPT: usize = 64 * 1024;
/// Packets that wait to be sent.
const PACKETS: usize = 64;
const MAX_MESSAGE: usize = 16 << 20;

/// What is asked of a session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask {
    pub(crate) dir: String,
    pub(crate) follow: Vec<String>,
    pub(crate) excludes: Vec<String>,
}

/// A transferred tree, by path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    pub(crate) files: BTreeMap<Vec<u8>, File>,
    pub(crate) requested: usize,
    pub(crate) data_bytes: u64,
}

/// One transferred entry.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) stat: Stat,
    pub(crate) digest: Option<ContentDigest>,
    pub(crate) size: u64,
    /// The first [`KEPT`] bytes.
    pub(crate) head: Vec<u8>,
}

/// Runs one transfer. `known` is what an earlier transfer left: what did not change is not asked for again.
pub(crate) async fn receive(
    session: &Session,
    ask: &Ask,
    known: Option<&Received>,
    script: &Script,
    cut: &(dyn Fn(Moment) + Sync),
) -> Result<Received, Status> {
    let (packets, stream) = mpsc::channel(PACKETS);
    let mut request = Request::new(ReceiverStream::new(stream));
    let md = request.metadata_mut();
    let broken = |e: metadata::InvalidMetadata| Status::internal(e.to_string());
    metadata::set(md, headers::DIR_NAME, &[&ask.dir]).map_err(broken)?;
    metadata::set(md, headers::FOLLOW_PATHS, &ask.follow).map_err(broken)?;
    metadata::set(md, headers::EXCLUDE_PATTERNS, &ask.excludes).map_err(broken)?;
    let mut client = FileSyncClient::with_origin(session.tunnel.clone(), origin())
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let inbound = client.diff_copy(request).await?.into_inner();
    Transfer {
        known,
        script,
        cut,
        packets: Some(packets),
        waiting: VecDeque::new(),
        entries: Vec::new(),
        open: HashMap::new(),
        last: None,
        kinds: HashMap::new(),
        listed: false,
        fin_sent: false,
        received: Received::default(),
    }
    .run(inbound)
    .await
}

struct Open {
    hasher: Sha256,
    size: u64,
    head: Vec<u8>,
}

struct Transfer<'a> {
    known: Option<&'a Received>,
    script: &'a Script,
    cut: &'a (dyn Fn(Moment) + Sync),
    packets: Option<mpsc::Sender<Packet>>,
    waiting: VecDeque<Packet>,
    /// Paths by id.
    entries: Vec<Vec<u8>>,
    open: HashMap<u32, Open>,
    last: Option<Vec<u8>>,
    /// Mode bits and whether it is a hard link, by path.
    kinds: HashMap<Vec<u8>, (u32, bool)>,
    listed: bool,
    fin_sent: bool,
    received: Received,
}

/// What the client says when it takes nothing any more: its own error, which may arrive after that was noticed.
async fn why_closed(inbound: &mut Streaming<Packet>) -> Status {
    loop {
        match inbound.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return broken("the stream was closed for writing"),
            Err(status) => return status,
        }
    }
}

impl Transfer<'_> {
    async fn run(mut self, mut inbound: Streaming<Packet>) -> Result<Received, Status> {
        loop {
            if self.listed && self.open.is_empty() && !self.fin_sent {
                self.fin_sent = true;
                self.waiting.push_back(packet(PacketType::PacketFin, 0, b""));
            }
            if self.script.has(|f| *f == Fault::NeverReads) && !self.open.is_empty() {
                self.flush().await?;
                std::future::pending::<()>().await;
            }
            let sender = self.packets.clone();
            tokio::select! {
                got = inbound.message() => match got? {
                    Some(packet) => {
                        if self.take(packet)? {
                            break;
                        }
                    }
                    None => return Err(broken("the stream ended in the middle of a transfer")),
                },
                permit = reserve(sender), if !self.waiting.is_empty() => {
                    let Some(permit) = permit else {
                        return Err(why_closed(&mut inbound).await);
                    };
                    if let Some(packet) = self.waiting.pop_front() {
                        permit.send(packet);
                    }
                }
            }
        }
        // The sender returns at once after its FIN; only then is our half of the stream closed.
        if let Some(packet) = inbound.message().await? {
            return Err(broken(&format!(
                "a packet of type {} after the end",
                packet.r#type
            )));
        }
        drop(self.packets.take());
        Ok(self.received)
    }

    async fn flush(&mut self) -> Result<(), Status> {
        while let Some(packet) = self.waiting.pop_front() {
            let permit = reserve(self.packets.clone()).await;
            permit
                .ok_or_else(|| broken("the stream was closed for writing"))?
                .send(packet);
        }
        Ok(())
    }

    /// Takes one packet; true when it was the last one.
    fn take(&mut self, packet: Packet) -> Result<bool, Status> {
        match PacketType::try_from(packet.r#type) {
            Ok(PacketType::PacketStat) => match packet.stat {
                Some(stat) => self.entry(stat)?,
                None if self.listed => return Err(broken("the listing ended twice")),
                None => self.listed = true,
            },
            Ok(PacketType::PacketData) => self.data(packet.id, &packet.data)?,
            Ok(PacketType::PacketFin) if self.fin_sent => return Ok(true),
            Ok(PacketType::PacketFin) => return Err(broken("FIN before everything was received")),
            Ok(PacketType::PacketErr) => {
                let text = String::from_utf8_lossy(&packet.data);
                return Err(Status::unknown(format!("error from sender: {text}")));
            }
            Ok(PacketType::PacketReq) => return Err(broken("a request from the sender")),
            Err(_) => return Err(broken(&format!("a packet of unknown type {}", packet.r#type))),
        }
        Ok(false)
    }

    fn entry(&mut self, stat: Stat) -> Result<(), Status> {
        if self.listed {
            return Err(broken("an entry after the end of the listing"));
        }
        self.check_path(&stat)?;
        let id = u32::try_from(self.entries.len()).map_err(|_| broken("too many entries"))?;
        let regular = stat.mode & TYPE_BITS == 0;
        let path = stat.path.clone();
        self.check_link(&stat, regular)?;
        if (stat.uid, stat.gid) != (0, 0) {
            return Err(broken(&format!(
                "{}: owner {}:{}",
                show(&path),
                stat.uid,
                stat.gid
            )));
        }
        self.kinds
            .insert(path.clone(), (stat.mode, regular && !stat.linkname.is_empty()));
        self.entries.push(path.clone());
        self.last = Some(path.clone());
        let same = self
            .known
            .and_then(|known| known.files.get(&path))
            .filter(|file| file.stat == stat);
        let mut file = File {
            size: 0,
            digest: None,
            head: Vec::new(),
            stat,
        };
        if regular && file.stat.linkname.is_empty() {
            match same {
                Some(old) => (file.size, file.digest, file.head) = (old.size, old.digest, old.head.clone()),
                None => {
                    self.vanish(&path)?;
                    self.request(id);
                }
            }
        }
        if self.entries.len() == 1 {
            (self.cut)(Moment::FirstEntry);
            self.first_faults(id, file.stat.mode);
        }
        self.received.files.insert(path, file);
        Ok(())
    }

    fn check_path(&self, stat: &Stat) -> Result<(), Status> {
        let path = &stat.path;
        let bad = |why: &str| Err(broken(&format!("entry {}: {why}", show(path))));
        if path.is_empty() {
            return bad("an empty path");
        }
        if path
            .split(|b| *b == b'/')
            .any(|part| part.is_empty() || part == b"." || part == b"..")
        {
            return bad("the path is not clean");
        }
        if self
            .last
            .as_ref()
            .is_some_and(|last| by_component(last, path) != Ordering::Less)
        {
            return bad("changes out of order");
        }
        if let Some(slash) = path.iter().rposition(|b| *b == b'/') {
            let parent = self.kinds.get(path.get(..slash).unwrap_or_default());
            if parent.is_none_or(|(mode, _)| mode & DIR == 0) {
                return bad("its parent was not sent as a directory");
            }
        }
        Ok(())
    }

    fn check_link(&self, stat: &Stat, regular: bool) -> Result<(), Status> {
        let symlink = stat.mode & (1 << 27) != 0;
        if symlink && stat.linkname.is_empty() {
            return Err(broken(&format!(
                "{}: a symbolic link without text",
                show(&stat.path)
            )));
        }
        if symlink || stat.linkname.is_empty() {
            return Ok(());
        }
        let target = self.kinds.get(&stat.linkname);
        let plain = target.is_some_and(|(mode, link)| mode & (DIR | (1 << 27)) == 0 && !link);
        if regular && plain {
            return Ok(());
        }
        let text = format!(
            "invalid link {} to unknown path {}",
            show(&stat.path),
            show(&stat.linkname)
        );
        Err(broken(&text))
    }

    /// Removes the file behind an entry, where the script says so.
    fn vanish(&self, path: &[u8]) -> Result<(), Status> {
        for fault in self.script.faults() {
            if let Fault::Vanish { entry, file } = fault
                && entry == path
            {
                let failed = |e| Status::internal(format!("{}: cannot be removed: {e}", file.display()));
                std::fs::remove_file(file).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn request(&mut self, id: u32) {
        self.received.requested += 1;
        self.open.insert(
            id,
            Open {
                hasher: Sha256::new(),
                size: 0,
                head: Vec::new(),
            },
        );
        let copies = if self.script.has(|f| *f == Fault::RequestTwice) {
            2
        } else {
            1
        };
        let flood = self.script.faults().iter().find_map(|f| match f {
            Fault::RequestFlood(n) => Some(*n),
            _ => None,
        });
        for _ in 0..flood.unwrap_or(copies) {
            self.waiting.push_back(packet(PacketType::PacketReq, id, b""));
        }
    }

    fn first_faults(&mut self, id: u32, mode: u32) {
        for fault in self.script.faults() {
            let packet = match fault {
                Fault::RequestUnknown => packet(PacketType::PacketReq, u32::MAX, b""),
                Fault::RequestDirectory if mode & DIR != 0 => packet(PacketType::PacketReq, id, b""),
                Fault::ReceiverError(text) => packet(PacketType::PacketErr, 0, text.as_bytes()),
                Fault::UnknownPackets => Packet {
                    r#type: 77,
                    ..Packet::default()
                },
                _ => continue,
            };
            self.waiting.push_back(packet);
        }
    }

    fn data(&mut self, id: u32, data: &Bytes) -> Result<(), Status> {
        let Some(open) = self.open.get_mut(&id) else {
            return Err(broken(&format!("invalid file request {id}")));
        };
        if !data.is_empty() {
            open.hasher.update(data);
            open.size += data.len() as u64;
            self.received.data_bytes += data.len() as u64;
            let room = KEPT.saturating_sub(open.head.len()).min(data.len());
            open.head.extend_from_slice(data.get(..room).unwrap_or_default());
            (self.cut)(Moment::FirstData);
            return Ok(());
        }
        let path = usize::try_from(id)
            .ok()
            .and_then(|i| self.entries.get(i))
            .cloned()
            .unwrap_or_default();
        let (Some(open), Some(file)) = (self.open.remove(&id), self.received.files.get_mut(&path)) else {
            return Err(broken(&format!("invalid file request {id}")));
        };
        if i64::try_from(open.size) != Ok(file.stat.size) {
            let text = format!(
                "{}: {} bytes came, {} announced",
                show(&path),
                open.size,
                file.stat.size
            );
            return Err(broken(&text));
        }
        file.size = open.size;
        file.digest = Some(ContentDigest(open.hasher.finalize().into()));
        file.head = open.head;
        Ok(())
    }
}

async fn reserve(sender: Option<mpsc::Sender<Packet>>) -> Option<mpsc::OwnedPermit<Packet>> {
    sender?.reserve_owned().await.ok()
}

fn packet(kind: PacketType, id: u32, data: &[u8]) -> Packet {
    Packet {
        r#type: kind.into(),
        stat: None,
        id,
        data: Bytes::copy_from_slice(data),
    }
}

fn broken(text: &str) -> Status {
    Status::invalid_argument(text)
}

/// Byte order with `/` below every other byte.
fn by_component(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |byte: &u8| if *byte == b'/' { 0u16 } else { u16::from(*byte) + 1 };
    a.iter().map(rank).cmp(b.iter().map(rank))
}
