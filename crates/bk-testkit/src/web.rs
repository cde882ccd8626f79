//! A small web server on the loopback device: files from memory, and Git repositories through `git http-backend`.
//!
//! Daemons on this machine fetch contexts from it. It ends when it is dropped.

use std::{
    collections::HashMap,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::httpd::{Httpd, Request, answer};

/// A running server.
#[derive(Debug)]
pub struct Web {
    server: Httpd,
}

impl Web {
    /// Serves `files` by their paths, each beginning with `/`, and the bare repositories below `repositories` under
    /// `/git/`.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(files: HashMap<String, Vec<u8>>, repositories: &Path) -> io::Result<Self> {
        Self::serve(files, repositories, None)
    }

    /// Serves the bare repositories below `repositories` under `/git/` to those who show `token`, in the way of the servers
    /// that most people use: as the password of the user `x-access-token`.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn private(repositories: &Path, token: &str) -> io::Result<Self> {
        let login = format!("basic {}", STANDARD.encode(format!("x-access-token:{token}")));
        Self::serve(HashMap::new(), repositories, Some(login))
    }

    fn serve(
        files: HashMap<String, Vec<u8>>,
        repositories: &Path,
        login: Option<String>,
    ) -> io::Result<Self> {
        let root = repositories.to_owned();
        let server = Httpd::start(None, move |request| {
            let shown = request.header("authorization");
            if login.as_ref().is_some_and(|l| !shown.eq_ignore_ascii_case(l)) {
                let ask = [("WWW-Authenticate", "Basic realm=\"git\"")];
                return Ok(answer("401 Unauthorized", &ask, b""));
            }
            if let Some(body) = files.get(&request.path) {
                let mut whole = answer("200 OK", &[], body);
                if request.method == "HEAD" {
                    whole.truncate(whole.len() - body.len());
                }
                return Ok(whole);
            }
            match request.path.strip_prefix("/git") {
                Some(repository) => git(&root, repository, request),
                None => Ok(answer("404 Not Found", &[], b"")),
            }
        })?;
        Ok(Self { server })
    }

    /// The address of a path that begins with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address())
    }
}

/// One request to `git http-backend`, which speaks the Common Gateway Interface.
fn git(root: &Path, path: &str, request: &Request) -> io::Result<Vec<u8>> {
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", &request.method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", &request.query)
        .env("CONTENT_TYPE", request.header("content-type"))
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", request.header("content-encoding"))
        .env("GIT_PROTOCOL", request.header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&request.body)?;
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
    let head = format!("HTTP/1.1 {status}\r\n{rest}Connection: close\r\n\r\n");
    Ok([head.as_bytes(), &said[end + 4..]].concat())
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
