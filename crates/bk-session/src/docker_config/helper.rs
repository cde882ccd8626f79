//! Runs a credential helper: `docker-credential-NAME get`, the server on its standard input, JSON on its standard
//! output.
//!
//! The rule: what a helper writes to its standard output is a secret and never shown; its standard error is for people
//! and goes into the error. It gets a process group of its own, and all of that is killed when nobody waits any more.

use std::{
    ffi::OsStr,
    io,
    process::{Output, Stdio},
    time::{Duration, SystemTime},
};

use base64::Engine;
use bk_build::Credential;
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};
use zeroize::Zeroizing;

use crate::{
    host::{in_own_group, kill_group},
    limits::{HELPER_DEADLINE, HELPER_ERRORS, HELPER_OUTPUT},
};

/// What a helper prints when it does not know a server.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The user name that stands for an identity token.
const TOKEN_USER: &str = "<token>";

/// Why a helper gave no answer. No message holds its standard output.
#[derive(Debug, thiserror::Error)]
pub(super) enum HelperError {
    #[error("`{0}` is not the name of a credential helper")]
    Name(String),
    #[error("credential helper `{0}` is not installed")]
    Missing(String),
    #[error("cannot run credential helper `{0}`: {1}")]
    Run(String, io::Error),
    #[error("credential helper `{0}` did not answer within {limit} s", limit = HELPER_DEADLINE.as_secs())]
    Deadline(String),
    #[error("credential helper `{0}` failed ({1}){2}")]
    Failed(String, std::process::ExitStatus, String),
    #[error("credential helper `{0}` gave an answer that is not the JSON it should be")]
    Answer(String),
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

/// Asks the helper `name` for `server`; `None` when it does not know it. `path` says where programs are looked for.
/// Dropping the future kills the helper.
pub(super) async fn get(
    name: &str,
    server: &str,
    path: Option<&OsStr>,
) -> Result<Option<Credential>, HelperError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(HelperError::Name(name.escape_default().to_string()));
    }
    let program = format!("docker-credential-{name}");
    let mut command = Command::new(&program);
    command
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    in_own_group(&mut command);
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let child = command.spawn().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => HelperError::Missing(program.clone()),
        _ => HelperError::Run(program.clone(), e),
    })?;
    let output = tokio::time::timeout(HELPER_DEADLINE, talk(child, server))
        .await
        .map_err(|_| HelperError::Deadline(program.clone()))?
        .map_err(|e| HelperError::Run(program.clone(), e))?;
    let stdout = Zeroizing::new(output.stdout);
    if !output.status.success() {
        if stdout.trim_ascii() == NOT_FOUND.as_bytes() {
            return Ok(None);
        }
        return Err(HelperError::Failed(program, output.status, told(&output.stderr)));
    }
    let answer: Answer = serde_json::from_slice(&stdout).map_err(|_| HelperError::Answer(program))?;
    if answer.secret.is_empty() {
        return Ok(None);
    }
    let expires = expiry(&answer.secret);
    let mut credential = match &*answer.username {
        "" | TOKEN_USER => Credential::identity_token(answer.secret),
        _ => Credential::basic(answer.username, answer.secret),
    };
    credential.expires_at = expires;
    Ok(Some(credential))
}

async fn talk(mut child: Child, server: &str) -> io::Result<Output> {
    let group = Group::of(&child);
    let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let asking = async {
        if let Some(stdin) = &mut stdin {
            // A helper that needs no question may have ended already.
            match stdin.write_all(server.as_bytes()).await {
                Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(e),
                _ => {}
            }
        }
        drop(stdin);
        Ok(())
    };
    let ((), stdout, stderr) = tokio::try_join!(
        asking,
        read(stdout, HELPER_OUTPUT, true),
        read(stderr, HELPER_ERRORS, false)
    )?;
    let status = child.wait().await?;
    group.gone();
    Ok(Output {
        status,
        stdout,
        stderr,
    })
}

/// Reads to the end and keeps at most `limit` bytes; more is an error where `all` of it matters.
async fn read(from: Option<impl AsyncRead + Unpin>, limit: u64, all: bool) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    if let Some(mut from) = from {
        (&mut from).take(limit).read_to_end(&mut kept).await?;
        let more = tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
        if all && more > 0 {
            return Err(io::Error::other(format!("it wrote more than {limit} bytes")));
        }
    }
    Ok(kept)
}

/// Kills a helper with all that it started, unless it ended by itself.
struct Group(Option<u32>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id())
    }

    fn gone(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            kill_group(id);
        }
    }
}

/// What a helper said to people: one line without control characters, with a colon before it.
fn told(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let words: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    match words.trim() {
        "" => String::new(),
        text => format!(": {text}"),
    }
}

/// When a secret ends, if it is a JSON web token that says so.
fn expiry(secret: &str) -> Option<SystemTime> {
    #[derive(Deserialize)]
    struct Claims {
        exp: u64,
    }
    let mut parts = secret.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(claims)
        .ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_web_token_tells_its_end() {
        let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        let token = format!(
            "{}.{}.sig",
            encode("{}"),
            encode(r#"{"exp":1700000000,"sub":"x"}"#)
        );
        assert_eq!(
            expiry(&token),
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
        );
        for other in [
            "",
            "a.b",
            "a.b.c",
            "hunter2",
            "ya29.a0.b",
            &format!("a.{}.c", encode("{}")),
        ] {
            assert_eq!(expiry(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_told_is_one_plain_line() {
        assert_eq!(told(b"login\nfirst \x1b[31m\n"), ": login first  [31m");
        assert_eq!(told(b" \n"), "");
    }
}
