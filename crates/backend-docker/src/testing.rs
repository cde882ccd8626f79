//! A scripted engine for the tests of this crate: it answers each request as a script says, byte for byte.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::{AbortHandle, JoinSet},
};

/// What the engine does with a request once it has read it.
#[derive(Clone)]
pub(crate) enum Reply {
    /// Sends these pieces, each in a write of its own, and closes.
    Pieces(Vec<Vec<u8>>),
    /// Reads a chunked body to its end first, then goes on as told.
    AfterBody(Box<Reply>),
    /// Sends these bytes in one write, then sends back whatever it gets.
    Echo(Vec<u8>),
    /// Sends these bytes and then nothing more, without closing.
    Hold(Vec<u8>),
}

impl Reply {
    /// A whole answer with a length.
    pub(crate) fn http(status: &str, headers: &str, body: &str) -> Self {
        let head = format!(
            "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Self::Pieces(vec![head.into_bytes()])
    }

    /// A whole answer of chunks, each sent by itself.
    pub(crate) fn chunked(chunks: &[&[u8]]) -> Self {
        let mut pieces = vec![b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()];
        pieces.extend(
            chunks
                .iter()
                .map(|c| [format!("{:x}\r\n", c.len()).as_bytes(), c, b"\r\n"].concat()),
        );
        pieces.push(b"0\r\n\r\n".to_vec());
        Self::Pieces(pieces)
    }

    /// The acceptance of an upgrade, with what comes behind it in the same write.
    pub(crate) fn switch(behind: &[u8]) -> Vec<u8> {
        [
            b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            behind,
        ]
        .concat()
    }
}

/// What the engine got.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The head of the request, as it came.
    pub(crate) head: String,
    /// The body, if it was read, without its chunks' frames.
    pub(crate) body: Vec<u8>,
    /// Whether the body ended the way a whole one does.
    pub(crate) whole: bool,
}

/// A scripted engine on a Unix socket. Dropping it ends it.
pub(crate) struct Engine {
    socket: PathBuf,
    arrived: Arc<Mutex<Vec<String>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: AbortHandle,
    _dir: TempDir,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Engine {
    /// Answers each request as `script` says for its first line.
    pub(crate) fn start(script: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let socket = dir.path().join("engine.sock");
        let listener = UnixListener::bind(&socket).expect("bind");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = seen.clone();
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let heads = arrived.clone();
        let script = Arc::new(script);
        let task = tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (script, all, heads) = (script.clone(), all.clone(), heads.clone());
                open.spawn(async move {
                    let mut seen = Seen::default();
                    // A client may go away at any time.
                    drop(serve(stream, &*script, &heads, &mut seen).await);
                    all.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
                });
            }
        });
        Self {
            socket,
            arrived,
            seen,
            task: task.abort_handle(),
            _dir: dir,
        }
    }

    /// One that is an engine of that version, and answers the rest as `script` says.
    pub(crate) fn of_version(
        version: &'static str,
        api: &'static str,
        os: &'static str,
        script: impl Fn(&str) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start(move |line| {
            if line.contains("/_ping ") {
                Reply::http("200 OK", &format!("Api-Version: {api}\r\nOstype: {os}\r\n"), "OK")
            } else if line.contains("/version ") {
                let body = format!(r#"{{"Version":"{version}","ApiVersion":"{api}","Os":"{os}"}}"#);
                Reply::http("200 OK", "Content-Type: application/json\r\n", &body)
            } else {
                script(line)
            }
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// The heads of all requests that have arrived.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.arrived
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Requests that have arrived and whose first line contains `part`.
    pub(crate) fn arrived(&self, part: &str) -> usize {
        let all = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .filter(|head| head.lines().next().is_some_and(|l| l.contains(part)))
            .count()
    }

    /// What it got whose first line contains `part`, of connections that have ended.
    pub(crate) fn seen(&self, part: &str) -> Vec<Seen> {
        let all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .filter(|s| s.head.lines().next().is_some_and(|l| l.contains(part)))
            .cloned()
            .collect()
    }
}

async fn serve(
    mut stream: UnixStream,
    script: &(dyn Fn(&str) -> Reply + Sync),
    heads: &Mutex<Vec<String>>,
    seen: &mut Seen,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    seen.head = String::from_utf8_lossy(&head).into_owned();
    heads
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(seen.head.clone());
    let mut reply = script(seen.head.lines().next().unwrap_or_default());
    while let Reply::AfterBody(then) = reply {
        read_chunks(&mut stream, seen).await?;
        reply = *then;
    }
    match reply {
        Reply::Pieces(pieces) => {
            for piece in pieces {
                stream.write_all(&piece).await?;
                stream.flush().await?;
            }
            stream.shutdown().await
        }
        Reply::Echo(first) => {
            stream.write_all(&first).await?;
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.map(drop)
        }
        Reply::Hold(first) => {
            stream.write_all(&first).await?;
            tokio::io::copy(&mut stream, &mut tokio::io::sink())
                .await
                .map(drop)
        }
        Reply::AfterBody(_) => Ok(()),
    }
}

async fn read_chunks(stream: &mut UnixStream, seen: &mut Seen) -> io::Result<()> {
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(stream.read_u8().await?);
        }
        let size = String::from_utf8_lossy(&line);
        let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
        let at = seen.body.len();
        seen.body.resize(at + size, 0);
        stream.read_exact(&mut seen.body[at..]).await?;
        stream.read_exact(&mut [0; 2]).await?;
        if size == 0 {
            seen.whole = true;
            return Ok(());
        }
    }
}
