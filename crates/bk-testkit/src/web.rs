//! A small web server on the loopback device: files from memory, and Git repositories through `git http-backend`.
//!
//! Daemons on this machine fetch contexts from it. One thread for each connection, one request for each connection; it
//! ends when it is dropped.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// Longest header and longest request that is read, in bytes; pushes are not what this is for.
const MOST: u64 = 4 << 20;
/// How long a client may be silent.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server.
#[derive(Debug)]
pub struct Web {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Web {
    /// Serves `files` by their paths, each beginning with `/`, and the bare repositories below `repositories` under
    /// `/git/`.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(files: HashMap<String, Vec<u8>>, repositories: &Path) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (files, root, stopped) = (Arc::new(files), repositories.to_owned(), Arc::clone(&stop));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (files, root) = (Arc::clone(&files), root.clone());
                if let Ok(stream) = stream {
                    // A client that breaks off is its own business.
                    thread::spawn(move || drop(answer(stream, &files, &root)));
                }
            }
        });
        Ok(Self { address, stop })
    }

    /// The address of a path that begins with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
    }
}

fn answer(stream: TcpStream, files: &HashMap<String, Vec<u8>>, root: &Path) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut input = BufReader::new(stream.try_clone()?.take(MOST));
    let mut output = stream;
    let mut first = String::new();
    input.read_line(&mut first)?;
    let mut words = first.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if let Some(body) = files.get(path) {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        output.write_all(head.as_bytes())?;
        return if method == "HEAD" {
            Ok(())
        } else {
            output.write_all(body)
        };
    }
    let Some(repository) = path.strip_prefix("/git") else {
        let head = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return output.write_all(head.as_bytes());
    };
    let length = headers
        .get("content-length")
        .and_then(|v| v.parse().ok())
        .unwrap_or(0);
    let mut body = Vec::new();
    input.take(length).read_to_end(&mut body)?;
    output.write_all(&git(root, method, repository, query, &headers, &body)?)
}

/// One request to `git http-backend`, which speaks the Common Gateway Interface.
fn git(
    root: &Path,
    method: &str,
    path: &str,
    query: &str,
    headers: &HashMap<String, String>,
    body: &[u8],
) -> io::Result<Vec<u8>> {
    let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(body)?;
    }
    let said = child.wait_with_output()?.stdout;
    let end = said
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .ok_or_else(|| io::Error::other("git http-backend said nothing"))?;
    let head = String::from_utf8_lossy(&said[..end]);
    let status = head
        .lines()
        .find_map(|line| line.strip_prefix("Status: "))
        .unwrap_or("200 OK");
    let rest: String = head
        .lines()
        .filter(|line| !line.starts_with("Status:"))
        .map(|line| format!("{line}\r\n"))
        .collect();
    let mut answer = format!("HTTP/1.1 {status}\r\n{rest}Connection: close\r\n\r\n").into_bytes();
    answer.extend_from_slice(&said[end + 4..]);
    Ok(answer)
}

/// Makes the bare repository `name` below `root` with one commit of `files` on the branch `main`.
///
/// # Errors
/// When `git` is missing or fails.
pub fn make_repository(root: &Path, name: &str, files: &[(&str, &str)]) -> io::Result<PathBuf> {
    let bare = root.join(name);
    let work = tempfile::tempdir()?;
    for (path, text) in files {
        let file = work.path().join(path);
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(file, text)?;
    }
    let git = |dir: &Path, arguments: &[&str]| -> io::Result<()> {
        let ran = Command::new("git")
            .current_dir(dir)
            .args([
                "-c",
                "user.name=t",
                "-c",
                "user.email=t@localhost",
                "-c",
                "init.defaultBranch=main",
            ])
            .args(arguments)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("HOME", work.path().join("no-home"))
            .output()?;
        match ran.status.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!(
                "git {arguments:?}: {}",
                String::from_utf8_lossy(&ran.stderr)
            ))),
        }
    };
    git(work.path(), &["init", "--quiet", "--template="])?;
    git(work.path(), &["add", "--all"])?;
    git(work.path(), &["commit", "--quiet", "--message", "all"])?;
    let text = bare
        .to_str()
        .ok_or_else(|| io::Error::other("the path is not UTF-8"))?;
    git(
        work.path(),
        &["clone", "--quiet", "--bare", "--template=", ".", text],
    )?;
    Ok(bare)
}
