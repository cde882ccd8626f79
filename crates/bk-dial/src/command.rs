//! The standard input and output of a program as one byte stream.
//!
//! The rule: the program ends with the stream, and the end of its output is an error with what it said, unless it ended
//! well.

use std::{
    future::Future,
    io,
    pin::Pin,
    process::ExitStatus,
    task::{Context, Poll, ready},
};

use bk_build::Obstacle;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    process::{Child, ChildStderr, ChildStdin, ChildStdout},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

use crate::limits::{FAREWELL, STDERR_GRACE, STDERR_TAIL};

/// A running program as a byte stream. Dropping it ends the program.
pub struct CommandStream {
    name: String,
    stdin: ChildStdin,
    stdout: ChildStdout,
    ended: Option<oneshot::Receiver<End>>,
    farewell: Option<Pin<Box<dyn Future<Output = Verdict> + Send>>>,
    /// How it ended, once that is known: everybody who asks hears the same.
    verdict: Option<Verdict>,
    /// What comes first, as long as it may be a message for people.
    words: Words,
    /// Whether the output has ended.
    done: bool,
    /// Owns the program: when it is stopped, the program is killed.
    watch: JoinHandle<()>,
}

/// How a program ended.
#[derive(Clone)]
enum Verdict {
    /// Well.
    Good,
    /// Badly; in words, and with its number if it ended by itself.
    Bad(String, Option<i32>),
    /// Not yet, although it should have.
    Unknown,
}

/// Some programs tell on their standard output why they cannot carry anything.
enum Words {
    /// Nothing came yet.
    Unknown,
    /// Bytes of a protocol.
    None,
    /// A message, so far.
    Some(Vec<u8>),
}

/// Whether bytes are text for people, and not how HTTP of either version begins.
fn is_message(bytes: &[u8]) -> bool {
    let plain = |b: &u8| matches!(b, b' '..=b'~' | b'\t' | b'\r' | b'\n' | 0x80..);
    bytes.iter().all(plain) && !bytes.starts_with(b"HTTP/")
}

/// How a program ended, and what it said last.
type End = (io::Result<ExitStatus>, Vec<u8>);

impl CommandStream {
    pub(crate) fn new(mut child: Child, name: String) -> io::Result<Self> {
        let gone = || io::Error::other("a pipe of the program is missing");
        let stdin = child.stdin.take().ok_or_else(gone)?;
        let stdout = child.stdout.take().ok_or_else(gone)?;
        let stderr = child.stderr.take().ok_or_else(gone)?;
        let (tell, ended) = oneshot::channel();
        let watch = tokio::spawn(async move {
            // Nobody wants to know when the stream is gone.
            let _ = tell.send(watch(child, stderr).await);
        });
        Ok(Self {
            name,
            stdin,
            stdout,
            ended: Some(ended),
            farewell: None,
            verdict: None,
            words: Words::Unknown,
            done: false,
            watch,
        })
    }

    /// Waits until the program has ended, though not for ever.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<Verdict> {
        if let Some(verdict) = &self.verdict {
            return Poll::Ready(verdict.clone());
        }
        if let (None, Some(ended)) = (&self.farewell, self.ended.take()) {
            let name = self.name.clone();
            self.farewell = Some(Box::pin(async move {
                match timeout(FAREWELL, ended).await {
                    Ok(Ok((Ok(status), _))) if status.success() => Verdict::Good,
                    Ok(Ok((Ok(status), said))) => Verdict::Bad(text(&name, status, &said), status.code()),
                    Ok(Ok((Err(e), _))) => Verdict::Bad(e.to_string(), None),
                    // It goes on without output, or is being ended.
                    Ok(Err(_)) | Err(_) => Verdict::Unknown,
                }
            }));
        }
        let verdict = match &mut self.farewell {
            Some(farewell) => ready!(farewell.as_mut().poll(cx)),
            None => Verdict::Unknown,
        };
        self.farewell = None;
        self.verdict = Some(verdict.clone());
        Poll::Ready(verdict)
    }

    /// What stands behind the end of the output: the program's own words, with what came instead of a protocol, or nothing.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let verdict = ready!(self.poll_farewell(cx));
        let words = match &self.words {
            Words::Some(words) => String::from_utf8_lossy(words).trim().to_owned(),
            Words::Unknown | Words::None => String::new(),
        };
        Poll::Ready(match (verdict, &*words) {
            (Verdict::Bad(text, code), words) => {
                let text = match words {
                    "" => text,
                    words => format!("{text}: {words}"),
                };
                Err(Obstacle::Ended(code).error(io::ErrorKind::Other, text))
            }
            (_, "") => Ok(()),
            (_, words) => Err(io::Error::other(format!("`{}` only said: {words}", self.name))),
        })
    }
}

fn text(name: &str, status: ExitStatus, said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    match said.trim() {
        "" => format!("`{name}` ended with {status}"),
        said => format!("`{name}` ended with {status}: {said}"),
    }
}

/// Reads what the program says and waits for its end.
async fn watch(mut child: Child, mut stderr: ChildStderr) -> End {
    let (mut said, mut buffer, mut open) = (Vec::new(), [0; 1024], true);
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            read = stderr.read(&mut buffer), if open => open = keep(&mut said, &buffer, read),
        }
    };
    let rest = async {
        while open {
            let read = stderr.read(&mut buffer).await;
            open = keep(&mut said, &buffer, read);
        }
    };
    // Something that it started may hold the pipe open.
    let _ = timeout(STDERR_GRACE, rest).await;
    (status, said)
}

/// Adds what was read, and keeps the end of it. Whether there may be more.
fn keep(said: &mut Vec<u8>, buffer: &[u8], read: io::Result<usize>) -> bool {
    let Ok(count @ 1..) = read else {
        return false;
    };
    said.extend_from_slice(buffer.get(..count).unwrap_or_default());
    let surplus = said.len().saturating_sub(STDERR_TAIL);
    said.drain(..surplus);
    true
}

impl Drop for CommandStream {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl AsyncRead for CommandStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.done {
            return self.poll_end(cx);
        }
        let before = buffer.filled().len();
        loop {
            ready!(Pin::new(&mut self.stdout).poll_read(cx, buffer))?;
            let fresh = buffer.filled().get(before..).unwrap_or_default();
            if fresh.is_empty() {
                if buffer.remaining() == 0 {
                    return Poll::Ready(Ok(()));
                }
                self.done = true;
                break;
            }
            match &mut self.words {
                Words::None => return Poll::Ready(Ok(())),
                Words::Unknown if !is_message(fresh) => {
                    self.words = Words::None;
                    return Poll::Ready(Ok(()));
                }
                Words::Unknown => self.words = Words::Some(fresh.to_vec()),
                Words::Some(words) if words.len() < STDERR_TAIL => words.extend_from_slice(fresh),
                Words::Some(_) => {}
            }
            buffer.set_filled(before);
        }
        self.poll_end(cx)
    }
}

impl AsyncWrite for CommandStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.stdin).poll_write(cx, data)) {
            // Its own words say more than that it does not listen any more. All of them come with the end of its output, so
            // whoever reads is told, and nobody is told of half of them before.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => match ready!(self.poll_farewell(cx)) {
                Verdict::Unknown => Poll::Ready(Err(e)),
                Verdict::Good | Verdict::Bad(..) => Poll::Ready(Ok(data.len())),
            },
            other => Poll::Ready(other),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{process::Stdio, time::Duration};

    use tokio::{io::AsyncWriteExt as _, process::Command};

    use super::*;

    fn start(script: &str) -> CommandStream {
        let child = Command::new("/bin/sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        CommandStream::new(child.expect("a shell"), "carrier".to_owned()).expect("pipes")
    }

    #[tokio::test]
    async fn bytes_go_there_and_back() {
        for sent in [&b"\0\0\x12\x04\0"[..], b"HTTP/"] {
            let mut stream = start("head -c 5; exit 0");
            stream.write_all(sent).await.expect("written");
            let mut back = Vec::new();
            stream.read_to_end(&mut back).await.expect("a good end");
            assert_eq!(back, sent);
        }
    }

    #[tokio::test]
    async fn the_reason_of_an_end_is_told_to_readers_however_much_was_written() {
        let mut stream = start("echo 'no such container: b0' >&2; exit 3");
        let error = stream.read_to_end(&mut Vec::new()).await.expect_err("a reason");
        assert_eq!(
            error.to_string(),
            "`carrier` ended with exit status: 3: no such container: b0"
        );

        let mut stream = start("echo 'OCI runtime: no such program'; exit 126");
        let error = stream.read_to_end(&mut Vec::new()).await.expect_err("a reason");
        assert_eq!(
            error.to_string(),
            "`carrier` ended with exit status: 126: OCI runtime: no such program"
        );
        let mut stream = start("echo Welcome");
        let error = stream.read_to_end(&mut Vec::new()).await.expect_err("a reason");
        assert_eq!(error.to_string(), "`carrier` only said: Welcome");

        let mut stream = start("exec 0<&-; echo closed >&2; echo and told; exit 4");
        for _ in 0..8 {
            stream.write_all(&[0; 1 << 16]).await.expect("taken");
        }
        for _ in 0..2 {
            let error = stream.read_to_end(&mut Vec::new()).await.expect_err("a reason");
            assert_eq!(
                error.to_string(),
                "`carrier` ended with exit status: 4: closed: and told"
            );
        }

        let mut stream = start("yes | head -c 100000 >&2; exit 1");
        let error = stream.read_to_end(&mut Vec::new()).await.expect_err("a reason");
        assert!(error.to_string().len() < STDERR_TAIL + 100);
    }

    #[tokio::test]
    async fn a_dropped_stream_ends_the_program() {
        let dir = tempfile::tempdir().expect("a directory");
        let pid = dir.path().join("pid");
        let mut stream = start(&format!(
            "echo $$ > '{}'; head -c 1 /dev/zero; echo started; exec sleep 1000",
            pid.display()
        ));
        let mut first = [0; 1];
        stream.read_exact(&mut first).await.expect("it says so");
        let pid = std::fs::read_to_string(pid).expect("written").trim().to_owned();
        drop(stream);
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        for _ in 0..500 {
            // Gone, or dead and not yet asked for.
            if state().is_empty() || state().contains(") Z ") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await; // sleep: the kernel tells nobody else when a process is gone
        }
        panic!("still there: {}", state());
    }
}
