//! Secrets and SSH agents on real daemons: what a step sees of them, and a git source over SSH.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use bk_client::{
    BuildError, BuildRequest, Context, ImageBuilder, LogStream, NamedContext, Output, SecretSource,
    SshForward, limits::MAX_SECRET_BYTES,
};
use bk_testkit::{
    conformance::{fresh_tag, fresh_token},
    events::{Recorder, chain},
    fixture::TreeBuilder,
    live::{Daemon, Engine, Route, Target, sshd_program},
    snapshot::ContentDigest,
    ssh::{SshAgent, Sshd, make_key},
    web::make_repository,
};

use crate::{LIMIT, bounded, connect};

/// Runs a request and comes back with what the steps that contain `step` printed.
async fn logged(target: &Target, request: BuildRequest, step: &str) -> Result<String, BuildError> {
    let connected = connect(target).await;
    let recorder = Recorder::new();
    let build = connected.client.build(request, recorder.sink());
    bounded("the build", LIMIT, build).await?;
    Ok(recorder.log(step, LogStream::Stdout))
}

fn tree(target: &Target, rest: &str) -> TreeBuilder {
    let dockerfile = format!("FROM scratch\nCOPY busybox /bin/sh\nCOPY busybox /bin/busybox\n{rest}");
    TreeBuilder::new()
        .file("Dockerfile", dockerfile)
        .program("busybox", &target.busybox)
        .expect("busybox")
}

async fn secrets(daemon: Daemon, route: Route) {
    const TEST: &str = "secrets";
    let Some(target) = Target::find(daemon, route, TEST) else {
        return;
    };
    let _turn = target.turn().await;
    let token = fresh_token();
    // Printed reversed and hashed, so that a log that holds the secret itself is a leak.
    let rest = format!(
        "RUN --mount=type=secret,id=bytes --mount=type=secret,id=file,target=/f,mode=0440 \
         --mount=type=secret,id=gone,target=/g --mount=type=secret,id=large,target=/l \
         echo {token} && /bin/busybox sha256sum /run/secrets/bytes /f /l && \
         /bin/busybox stat -c %a /f && if [ -e /g ]; then echo there; else echo absent; fi\n"
    );
    let tree = tree(&target, &rest).build().expect("fixture");
    let dir = tempfile::tempdir().expect("temp dir");
    let file = dir.path().join("secret");
    let content = format!("file {token}\n\0\u{ff}");
    std::fs::write(&file, &content).expect("write");
    let bytes = format!("bytes {token}");
    let large = vec![b'x'; MAX_SECRET_BYTES];
    let request = BuildRequest::new(tree.path())
        .secret("bytes", SecretSource::bytes(bytes.as_str()))
        .secret("file", SecretSource::file(&file))
        .secret("large", SecretSource::bytes(large.clone()))
        .output(Output::image());
    let log = logged(&target, request, "sha256sum").await;
    let log = log.unwrap_or_else(|e| panic!("{}: {}", target.name(), chain(&e)));
    let digest = |bytes: &[u8]| {
        let digest = ContentDigest::of(bytes).0;
        digest.iter().map(|b| format!("{b:02x}")).collect::<String>()
    };
    let expected = format!(
        "{token}\n{}  /run/secrets/bytes\n{}  /f\n{}  /l\n440\nabsent\n",
        digest(bytes.as_bytes()),
        digest(content.as_bytes()),
        digest(&large)
    );
    assert_eq!(log, expected, "{}", target.name());

    // A secret that must be there and is not.
    let rest = format!("RUN --mount=type=secret,id=gone,required=true echo {token} needs it\n");
    let tree = self::tree(&target, &rest).build().expect("fixture");
    let request = BuildRequest::new(tree.path()).secret("other", SecretSource::bytes("x"));
    let error = logged(&target, request, "needs it")
        .await
        .expect_err("no such secret");
    let text = chain(&error);
    assert!(
        text.contains("gone") && text.contains("not found"),
        "{}: {text}",
        target.name()
    );
    target.supports("Secrets (`--secret`)");
    target.passed(TEST);
}

/// A program that copies its input to the socket of `SSH_AUTH_SOCK` and what comes back to its output, linked
/// statically by the linker's driver that Rust itself needs.
fn dial(dir: &Path) -> PathBuf {
    const SOURCE: &str = r#"
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(void) {
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    const char *path = getenv("SSH_AUTH_SOCK");
    if (!path || strlen(path) >= sizeof at.sun_path) return 2;
    strcpy(at.sun_path, path);
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(s, (struct sockaddr *)&at, sizeof at)) return 3;
    static char b[65536];
    ssize_t n;
    while ((n = read(0, b, sizeof b)) > 0) if (write(s, b, n) != n) return 4;
    shutdown(s, SHUT_WR);
    while ((n = read(s, b, sizeof b)) > 0) if (write(1, b, n) != n) return 5;
    return n < 0 ? 6 : 0;
}
"#;
    let (source, program) = (dir.join("dial.c"), dir.join("dial"));
    std::fs::write(&source, SOURCE).expect("write");
    let made = Command::new("cc")
        .args(["-static", "-O1", "-w", "-o"])
        .args([&program, &source])
        .status()
        .expect("cc");
    assert!(made.success(), "cc");
    program
}

async fn agents(daemon: Daemon, route: Route) {
    const TEST: &str = "ssh_agents";
    let Some(target) = Target::find(daemon, route, TEST) else {
        return;
    };
    let _turn = target.turn().await;
    let dir = tempfile::tempdir().expect("temp dir");
    let (in_agent, in_file) = (dir.path().join("agent-key"), dir.path().join("file-key"));
    let (agent_key, file_key) = (
        make_key(&in_agent).expect("a key"),
        make_key(&in_file).expect("a key"),
    );
    let agent = SshAgent::start(dir.path(), &in_agent).expect("an agent");
    let token = fresh_token();
    // Lists, asks for the removal of all keys, and lists again.
    let rest = format!(
        "COPY dial /bin/dial\n\
         RUN --mount=type=ssh --mount=type=ssh,id=file,target=/file.sock --mount=type=ssh,id=raw,target=/raw.sock \
         echo {token} && printf '\\0\\0\\0\\1\\13\\0\\0\\0\\1\\23\\0\\0\\0\\1\\13' > /ask && \
         for s in \"$SSH_AUTH_SOCK\" /file.sock /raw.sock; do \
         SSH_AUTH_SOCK=$s /bin/dial < /ask | /bin/busybox base64 -w 0; echo; done\n"
    );
    let tree = tree(&target, &rest)
        .program("dial", &dial(dir.path()))
        .and_then(TreeBuilder::build);
    let tree = tree.expect("fixture");
    let raw = echo(dir.path());
    let mut request = BuildRequest::new(tree.path())
        .ssh("default", SshForward::new(agent.socket()))
        .ssh("raw", SshForward::new(&raw).raw(true));
    if cfg!(feature = "ssh-keys") {
        request = request.ssh("file", SshForward::new(&in_file));
    } else {
        request = request.ssh("file", SshForward::new(agent.socket()));
    }
    let log = logged(&target, request, "/bin/dial").await;
    let log = log.unwrap_or_else(|e| panic!("{}: {}", target.name(), chain(&e)));
    let encode = |bytes: &[u8]| ok_with(Command::new("base64").args(["-w", "0"]), bytes);
    let listing = |key: &str| {
        let blob = ok_bytes(Command::new("base64").arg("-d"), key.as_bytes());
        let string = |b: &[u8]| [&(b.len() as u32).to_be_bytes(), b].concat();
        let list = [&[12, 0, 0, 0, 1][..], &string(&blob), &string(b"bk")].concat();
        let list = string(&list);
        encode(&[&list[..], &[0, 0, 0, 1, 5], &list].concat())
    };
    let second = if cfg!(feature = "ssh-keys") {
        &file_key
    } else {
        &agent_key
    };
    let asked = [0, 0, 0, 1, 11, 0, 0, 0, 1, 19, 0, 0, 0, 1, 11];
    let expected = format!(
        "{token}\n{}\n{}\n{}\n",
        listing(&agent_key),
        listing(second),
        encode(&asked)
    );
    assert_eq!(log, expected, "{}", target.name());
    assert!(
        agent.keys().expect("a list").contains(&agent_key),
        "{}: the agent lost its key",
        target.name()
    );

    // An agent that must be there and is not.
    let rest = format!("RUN --mount=type=ssh,required=true,id=other echo {token} needs it\n");
    let tree = self::tree(&target, &rest).build().expect("fixture");
    let request = BuildRequest::new(tree.path()).ssh("default", SshForward::new(agent.socket()));
    let text = chain(
        &logged(&target, request, "needs it")
            .await
            .expect_err("no such agent"),
    );
    assert!(
        text.contains("no SSH agent or key is forwarded as `other`"),
        "{}: {text}",
        target.name()
    );
    target.supports("SSH agents and key files (`--ssh`)");
    target.passed(TEST);
}

/// A repository that is reached by SSH only, as the context and as a further one.
async fn git_over_ssh(daemon: Daemon, route: Route) {
    const TEST: &str = "git_over_ssh";
    let (Some(target), Some(program)) = (Target::find(daemon, route, TEST), sshd_program(TEST)) else {
        return;
    };
    let _turn = target.turn().await;
    let name = target.name();
    let dir = tempfile::tempdir().expect("temp dir");
    let key = dir.path().join("key");
    make_key(&key).expect("a key");
    let agent = SshAgent::start(dir.path(), &key).expect("an agent");
    let server = Sshd::start(&program, dir.path(), &key.with_extension("pub")).expect("a server");
    let (token, tag) = (fresh_token(), fresh_tag("ssh"));
    let files = [
        ("Dockerfile", "FROM scratch\nCOPY said /said\n"),
        ("said", &*token),
    ];
    let repository = make_repository(dir.path(), "r.git", &files).expect("a repository");
    let address = format!("{}:{}#main", server.address(), repository.display());
    let at = connect(&target).await;
    let engine = Engine::connect(&target.docker).await.expect("the engine behind");
    let run = async |request: BuildRequest| {
        let recorder = Recorder::new();
        let request = request.tag(&tag);
        bounded("the build", LIMIT, at.client.build(request, recorder.sink())).await
    };

    let denied = run(BuildRequest::new(Context::Remote(address.clone()))).await;
    let text = chain(&denied.expect_err("nobody shows a key"));
    assert!(
        text.contains("ermission denied") || text.contains("SSH"),
        "{name}: {text}"
    );

    let mut requests = vec![BuildRequest::new(Context::Remote(address.clone()))];
    if daemon != Daemon::Docker20_10 && route != Route::Build {
        let text = "FROM scratch\nCOPY --from=other said /said\n";
        requests.push(
            BuildRequest::new(Context::None)
                .dockerfile(bk_client::Dockerfile::Inline(text.into()))
                .named_context("other", NamedContext::Remote(address)),
        );
    }
    for request in requests {
        let built = run(request.ssh("default", SshForward::new(agent.socket()))).await;
        built.unwrap_or_else(|e| panic!("{name}: {}\n{}", chain(&e), server.log()));
        let image = engine.tree(&tag, "").await.expect("the image");
        let said = image.entries.get(&b"said"[..]).and_then(|e| e.digest);
        assert_eq!(said, Some(ContentDigest::of(token.as_bytes())), "{name}");
        engine.remove_image(&tag).await.expect("removable");
    }
    assert!(
        server.log().contains("Accepted publickey"),
        "{name}: {}",
        server.log()
    );
    target.supports("Git over SSH as a context");
    target.passed(TEST);
}

/// A socket that gives back what it gets.
fn echo(dir: &Path) -> PathBuf {
    let path = dir.join("echo.sock");
    let listener = tokio::net::UnixListener::bind(&path).expect("socket");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (mut read, mut write) = socket.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    });
    path
}

fn ok_bytes(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(input)
        .expect("write");
    let out = child.wait_with_output().expect("an end");
    assert!(out.status.success());
    out.stdout
}

fn ok_with(command: &mut Command, input: &[u8]) -> String {
    String::from_utf8(ok_bytes(command, input)).expect("UTF-8")
}

macro_rules! tests {
    ($($module:ident { $($test:ident => $call:expr;)+ })+) => {
        $(mod $module {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    $call.await;
                }
            )+
        })+
    };
}

tests! {
    secrets_in_steps {
        build_docker_20_10 => secrets(Daemon::Docker20_10, Route::Build);
        direct_buildkit_unix => secrets(Daemon::BuildkitUnix, Route::Direct);
        grpc_docker_20_10 => secrets(Daemon::Docker20_10, Route::Grpc);
        grpc_docker_28_5 => secrets(Daemon::Docker28_5, Route::Grpc);
        h2c_docker_28_5 => secrets(Daemon::Docker28_5, Route::H2c);
    }
    git_by_ssh {
        build_docker_28_5 => git_over_ssh(Daemon::Docker28_5, Route::Build);
        direct_buildkit_unix => git_over_ssh(Daemon::BuildkitUnix, Route::Direct);
        grpc_docker_20_10 => git_over_ssh(Daemon::Docker20_10, Route::Grpc);
        grpc_docker_28_5 => git_over_ssh(Daemon::Docker28_5, Route::Grpc);
    }
    ssh_in_steps {
        build_docker_28_5 => agents(Daemon::Docker28_5, Route::Build);
        direct_buildkit_unix => agents(Daemon::BuildkitUnix, Route::Direct);
        grpc_docker_20_10 => agents(Daemon::Docker20_10, Route::Grpc);
        grpc_docker_28_5 => agents(Daemon::Docker28_5, Route::Grpc);
    }
}
