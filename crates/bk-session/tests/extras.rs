//! Secrets and SSH agents as a daemon sees them, a hostile one included: only what the request names is given out, only
//! listing and signing pass to an agent, and what is refused is refused with the right code.

#[path = "support/daemon.rs"]
mod daemon;
#[cfg(feature = "ssh-keys")]
#[path = "extras/keys.rs"]
mod keys;
#[path = "extras/program.rs"]
mod program;

use std::{
    io::Write,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use bk_build::{
    BuildError, BuildRequest, NoCredentials, SecretBytes, SecretError, SecretProvider, SecretSource,
    SshForward, limits::MAX_SECRET_BYTES,
};
use bk_proto::{
    headers,
    secrets::{GetSecretRequest, secrets_client::SecretsClient},
    ssh::{BytesMessage, CheckAgentRequest, ssh_client::SshClient},
};
use bk_session::{Extras, RunningSession, SessionConfig, Sources};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};

use daemon::{Daemon, attach, origin};

async fn serving(request: &BuildRequest) -> (Daemon, RunningSession) {
    let extras = Extras::of(request)
        .await
        .expect("what the request names is there");
    attach(SessionConfig::new(Sources::none(), Arc::new(NoCredentials)).extras(extras)).await
}

async fn secret(daemon: &Daemon, id: &str) -> Result<Vec<u8>, Status> {
    let request = GetSecretRequest {
        id: id.to_owned(),
        ..GetSecretRequest::default()
    };
    let mut client = SecretsClient::with_origin(daemon.clone(), origin());
    client
        .get_secret(request)
        .await
        .map(|answer| answer.into_inner().data)
}

async fn check_agent(daemon: &Daemon, id: &str) -> Code {
    let mut client = SshClient::with_origin(daemon.clone(), origin());
    match client.check_agent(CheckAgentRequest { id: id.to_owned() }).await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

/// Sends `input` through a connection to the agent `id`, ends it, and comes back with all that was answered.
async fn talk(daemon: &Daemon, id: Option<&str>, input: &[&[u8]]) -> Result<Vec<u8>, Status> {
    let (sender, receiver) = mpsc::channel(1);
    let mut request = Request::new(ReceiverStream::new(receiver));
    if let Some(id) = id {
        request
            .metadata_mut()
            .insert(headers::SSH_ID, id.parse().expect("an id"));
    }
    let input: Vec<_> = input.iter().map(|part| part.to_vec()).collect();
    tokio::spawn(async move {
        for part in input {
            // The session may end the connection first.
            let _ = sender.send(BytesMessage { data: part.into() }).await;
        }
    });
    let mut client = SshClient::with_origin(daemon.clone(), origin());
    let mut answers = client.forward_agent(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(part) = answers.message().await? {
        all.extend(part.data);
    }
    Ok(all)
}

struct Asked;

#[async_trait::async_trait]
impl SecretProvider for Asked {
    async fn secret(&self, id: &str) -> Result<Option<SecretBytes>, SecretError> {
        match id {
            "from-provider" => Ok(Some("asked".into())),
            "huge" => Ok(Some(vec![b'x'; MAX_SECRET_BYTES + 1].into())),
            "broken" => Err(SecretError {
                id: id.to_owned(),
                reason: "the vault is sealed".to_owned(),
            }),
            _ => Ok(None),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_given_by_id_and_files_read_again() {
    let dir = tempfile::tempdir().expect("temp dir");
    let file = dir.path().join("token");
    let largest = vec![7; MAX_SECRET_BYTES];
    std::fs::write(&file, b"one\n\0").expect("write");
    std::fs::write(dir.path().join("largest"), &largest).expect("write");
    let request = BuildRequest::new(".")
        .secret("file", SecretSource::file(&file))
        .secret("largest", SecretSource::file(dir.path().join("largest")))
        .secret("bytes", SecretSource::bytes("two"))
        .secret("own", SecretSource::Provider(Arc::new(Asked)))
        .secret_provider(Arc::new(Asked));
    let (daemon, session) = serving(&request).await;
    assert_eq!(secret(&daemon, "file").await.expect("file"), b"one\n\0");
    std::fs::write(&file, b"changed").expect("write");
    assert_eq!(secret(&daemon, "file").await.expect("file"), b"changed");
    assert_eq!(secret(&daemon, "largest").await.expect("largest"), largest);
    assert_eq!(secret(&daemon, "bytes").await.expect("bytes"), b"two");
    assert_eq!(
        secret(&daemon, "from-provider").await.expect("provider"),
        b"asked"
    );
    for id in [
        "own",
        "GIT_AUTH_TOKEN",
        "GIT_AUTH_HEADER.example.com",
        "",
        "../token",
        "a\u{0}\u{1b}[31m",
    ] {
        assert_eq!(
            secret(&daemon, id).await.expect_err(id).code(),
            Code::NotFound,
            "{id:?}"
        );
    }
    let status = secret(&daemon, "\u{1b}[31m\n").await.expect_err("unknown");
    assert_eq!(status.message(), r"there is no secret `\u{1b}[31m\n`");
    drop(session);
}

/// The daemon hears that it failed and nothing more; the user hears why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_had_fails_the_build_with_its_cause() {
    let dir = tempfile::tempdir().expect("temp dir");
    let file = dir.path().join("token");
    std::fs::write(&file, "here").expect("write");
    let request = BuildRequest::new(".")
        .secret("file", SecretSource::file(&file))
        .secret_provider(Arc::new(Asked));
    for (id, cause) in [
        ("file", "there is no such file for the secret"),
        ("huge", "is larger than 500 KiB"),
        ("broken", "cannot be had from its provider"),
    ] {
        std::fs::write(&file, "here").expect("write");
        let (daemon, session) = serving(&request).await;
        std::fs::remove_file(&file).expect("remove");
        let status = secret(&daemon, id).await.expect_err(id);
        assert_eq!(
            (status.code(), status.message()),
            (
                Code::FailedPrecondition,
                &*format!("secret `{id}` cannot be read")
            )
        );
        let error = session.failures().explain(BuildError::Cancelled).to_string();
        assert!(error.contains(cause), "{id}: {error}");
    }
}

#[tokio::test]
async fn missing_and_oversize_files_are_found_before_the_build() {
    let dir = tempfile::tempdir().expect("temp dir");
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("big"), vec![0; MAX_SECRET_BYTES + 1]).expect("write");
    for (path, cause) in [
        (at("gone"), "there is no such file for the secret"),
        (at("big"), "is larger than 500 KiB"),
        (dir.path().to_owned(), "must be a file or a pipe"),
    ] {
        let request = BuildRequest::new(".").secret("s", SecretSource::file(&path));
        let error = match Extras::of(&request).await {
            Err(error @ BuildError::Local(_)) => error.to_string(),
            Err(error) => panic!("{}: {error:?}", path.display()),
            Ok(_) => panic!("{}: accepted", path.display()),
        };
        assert!(
            error.starts_with(&path.display().to_string()) && error.contains(cause),
            "{error}"
        );
    }
}

/// `--secret id=s,src=<(command)`: a pipe can be read once, the daemon asks for each step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_is_read_once_and_answered_often() {
    let (read, mut write) = std::io::pipe().expect("pipe");
    let path = PathBuf::from(format!("/proc/self/fd/{}", read.as_raw_fd()));
    let request = BuildRequest::new(".").secret("s", SecretSource::file(path));
    let (daemon, _session) = serving(&request).await;
    write.write_all(b"piped").expect("write");
    drop(write);
    for _ in 0..3 {
        assert_eq!(secret(&daemon, "s").await.expect("secret"), b"piped");
    }
}

/// Several daemons that build one request each ask in a session of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_that_is_kept_is_whole_in_every_session() {
    let (read, mut write) = std::io::pipe().expect("pipe");
    let path = PathBuf::from(format!("/proc/self/fd/{}", read.as_raw_fd()));
    let file = tempfile::NamedTempFile::new().expect("temp file");
    let request = BuildRequest::new(".")
        .secret("s", SecretSource::file(path))
        .secret("f", SecretSource::file(file.path()));
    let kept = Extras::keep_piped(request).await.expect("a pipe");
    assert!(!Extras::read_once(&kept).await);
    assert!(
        matches!(&kept.secrets["f"], SecretSource::File(_)),
        "it is read when it is asked for"
    );
    let (one, _first) = serving(&kept).await;
    let (other, _second) = serving(&kept).await;
    // More than a pipe holds: both ask while it is still written.
    let wanted: Vec<u8> = (0..=u8::MAX).cycle().take(MAX_SECRET_BYTES).collect();
    let written = wanted.clone();
    let writing = std::thread::spawn(move || write.write_all(&written));
    let (one, other) = tokio::join!(secret(&one, "s"), secret(&other, "s"));
    writing.join().expect("no panic").expect("all of it was read");
    assert!(one.expect("secret") == wanted);
    assert!(other.expect("secret") == wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_that_is_kept_and_through_which_nothing_comes_is_an_error_that_names_it() {
    let (read, write) = std::io::pipe().expect("pipe");
    drop(write);
    let path = PathBuf::from(format!("/proc/self/fd/{}", read.as_raw_fd()));
    let request = BuildRequest::new(".").secret("s", SecretSource::file(&path));
    let kept = Extras::keep_piped(request).await.expect("a pipe");
    let (daemon, session) = serving(&kept).await;
    let refused = secret(&daemon, "s").await.expect_err("nothing");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let error = session.failures().explain(BuildError::Cancelled);
    let told = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source());
    let told: Vec<String> = told.map(ToString::to_string).collect();
    let reason = format!("{}: nothing came through the pipe", path.display());
    assert!(told.iter().any(|text| text.ends_with(&reason)), "{told:?}");
}

/// An agent that notes what reaches it and answers with `answer`, already with its length.
fn agent(dir: &Path, answer: Vec<u8>) -> (PathBuf, mpsc::UnboundedReceiver<Vec<u8>>) {
    let path = dir.join("agent");
    let listener = UnixListener::bind(&path).expect("socket");
    let (seen, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            while let Ok(length) = socket.read_u32().await {
                let mut request = vec![0; length as usize];
                socket.read_exact(&mut request).await.expect("a whole request");
                seen.send(request).expect("the test listens");
                socket.write_all(&answer).await.expect("answer");
            }
        }
    });
    (path, requests)
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u32).to_be_bytes(), message].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_listing_and_signing_reach_an_agent() {
    let dir = tempfile::tempdir().expect("temp dir");
    let answer = framed(&[12, 0, 0, 0, 0]);
    let (path, mut requests) = agent(dir.path(), answer.clone());
    let request = BuildRequest::new(".").ssh("default", SshForward::new(path));
    let (daemon, _session) = serving(&request).await;
    for id in ["default", ""] {
        assert_eq!(check_agent(&daemon, id).await, Code::Ok, "{id:?}");
    }
    for id in ["other", "DEFAULT", "../agent", "\u{1b}"] {
        assert_eq!(check_agent(&daemon, id).await, Code::NotFound, "{id:?}");
    }
    assert_eq!(
        talk(&daemon, Some("other"), &[])
            .await
            .expect_err("unknown")
            .code(),
        Code::NotFound
    );
    // Every other request: adding, removing, locking, smart cards, extensions, the old protocol, and unknown ones.
    for kind in (0..=255).filter(|kind| ![11, 13].contains(kind)) {
        let refused = talk(&daemon, Some("default"), &[&framed(&[kind, 1, 2, 3])]).await;
        assert_eq!(refused.expect("answered"), framed(&[5]), "{kind}");
    }
    // In odd pieces, with a refused request between two that pass.
    let wire = [framed(&[11]), framed(&[17, 9]), framed(&[13, 1, 2, 3])].concat();
    let parts: Vec<&[u8]> = wire.chunks(3).collect();
    let answers = talk(&daemon, None, &parts).await.expect("answered");
    assert_eq!(answers, [answer.clone(), framed(&[5]), answer].concat());
    assert_eq!(requests.recv().await, Some(vec![11]));
    assert_eq!(requests.recv().await, Some(vec![13, 1, 2, 3]));
    assert!(requests.try_recv().is_err(), "something else reached the agent");
    for length in [0, 256 * 1024 + 1, u32::MAX] {
        let refused = talk(&daemon, None, &[&length.to_be_bytes(), &[11; 64]]).await;
        assert_eq!(
            refused.expect_err("refused").code(),
            Code::InvalidArgument,
            "{length}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_an_agent_is_bounded_and_a_dead_one_is_told() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (path, _requests) = agent(dir.path(), vec![255; 64]);
    let request = BuildRequest::new(".").ssh("a", SshForward::new(&path));
    let (daemon, session) = serving(&request).await;
    let refused = talk(&daemon, Some("a"), &[&framed(&[11])])
        .await
        .expect_err("too long");
    assert_eq!(refused.code(), Code::Unavailable);
    std::fs::remove_file(&path).expect("remove");
    let status = talk(&daemon, Some("a"), &[]).await.expect_err("gone");
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "the SSH agent cannot be reached")
    );
    let error = session.failures().explain(BuildError::Cancelled).to_string();
    assert_eq!(
        error,
        format!("{}: cannot connect to the SSH agent", path.display())
    );
}

/// Raw bytes pass in both directions at once, more of them than any buffer holds, and the end of one direction is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_passes_everything_and_half_closes() {
    const PARTS: usize = 256;
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("echo");
    let listener = UnixListener::bind(&path).expect("socket");
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        let (mut read, mut write) = socket.split();
        tokio::io::copy(&mut read, &mut write).await.expect("copy");
        write.write_all(b"the end").await.expect("write");
    });
    let request = BuildRequest::new(".").ssh("raw", SshForward::new(&path).raw(true));
    let (daemon, _session) = serving(&request).await;
    let parts: Vec<Vec<u8>> = (0..PARTS).map(|i| vec![i as u8; 32 * 1024]).collect();
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let echoed = talk(&daemon, Some("raw"), &parts).await.expect("echo");
    let expected = [&parts.concat()[..], b"the end"].concat();
    assert!(echoed == expected, "{} of {} bytes", echoed.len(), expected.len());
}

#[tokio::test]
async fn agents_and_keys_are_looked_at_before_the_build() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (socket, _requests) = agent(dir.path(), Vec::new());
    let text = dir.path().join("text");
    std::fs::write(&text, "no key").expect("write");
    for (forward, cause) in [
        (
            SshForward::new(dir.path().join("gone")),
            "there is no such SSH agent socket or key",
        ),
        (SshForward::new(&socket).key(&socket), "must stand alone"),
        (SshForward::new(&text).key(&socket), "must stand alone"),
        (SshForward::new(&text).raw(true), "raw needs a socket"),
    ] {
        let request = BuildRequest::new(".").ssh("a", forward);
        let Err(error) = Extras::of(&request).await else {
            panic!("accepted: {request:?}")
        };
        assert!(error.to_string().contains(cause), "{error}");
    }
}
