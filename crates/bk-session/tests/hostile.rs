//! A daemon that asks for what it was not offered: each question is refused with its code, and no secret shows in what is
//! told of it.

#[path = "support/daemon.rs"]
mod daemon;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use bk_build::{
    BuildError, BuildRequest, Credential, CredentialError, CredentialProvider, EventSink, OnlyHosts, Reach,
    SecretSource, Token, TokenError, TokenExchange, TokenRequest, WithTokens,
};
use bk_fsync::tree::DirTree;
use bk_proto::{
    auth::{
        CredentialsRequest, FetchTokenRequest, GetTokenAuthorityRequest, VerifyTokenAuthorityRequest,
        auth_client::AuthClient,
    },
    filesync::file_sync_client::FileSyncClient,
    fsutil::{Packet, packet::PacketType},
    headers, metadata,
    secrets::{GetSecretRequest, secrets_client::SecretsClient},
};
use bk_session::{Extras, RunningSession, SessionConfig, Sources};
use prost::Message as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};

use daemon::{Daemon, attach, origin};

const PASSWORD: &str = "hunter2-password";
const SECRET: &str = "hunter2-secret";
const OUTSIDE: &str = "hunter2-outside";
const ALLOWED: &str = "allowed.example";

/// Knows every registry.
struct All;

#[async_trait::async_trait]
impl CredentialProvider for All {
    async fn credential(&self, _host: &str) -> Result<Option<Credential>, CredentialError> {
        Ok(Some(Credential::basic("me", PASSWORD)))
    }
}

/// Reaches every token server, and is refused by each.
struct Refusing;

#[async_trait::async_trait]
impl TokenExchange for Refusing {
    async fn reach(&self, _host: &str) -> Reach {
        Reach::Yes
    }

    async fn token(&self, request: &TokenRequest, _: Option<&Credential>) -> Result<Token, TokenError> {
        Err(TokenError::Refused {
            realm: request.realm.clone(),
            status: 401,
        })
    }
}

/// A session, and everything that was said to the daemon and told as events.
struct Hostile {
    daemon: Daemon,
    session: RunningSession,
    told: Arc<Mutex<String>>,
}

impl Hostile {
    async fn start(context: &Path, tokens: bool) -> Self {
        let request = BuildRequest::new(context).secret("known", SecretSource::bytes(SECRET));
        let extras = Extras::of(&request).await.expect("what the request names");
        let tree = DirTree::open(context).expect("a directory");
        let sources = Sources::none().with("context", Arc::new(tree), None);
        let mut provider: Arc<dyn CredentialProvider> = Arc::new(OnlyHosts::new(Arc::new(All), [ALLOWED]));
        if tokens {
            provider = Arc::new(WithTokens::new(provider, Arc::new(Refusing)));
        }
        let told: Arc<Mutex<String>> = Arc::default();
        let keep = Arc::clone(&told);
        let events = EventSink::from_fn(move |event| tell(&keep, &format!("{event:?}")));
        let config = SessionConfig::new(sources, provider)
            .events(events)
            .extras(extras);
        let (daemon, session) = attach(config).await;
        Self {
            daemon,
            session,
            told,
        }
    }

    fn auth(&self) -> AuthClient<Daemon> {
        AuthClient::with_origin(self.daemon.clone(), origin())
    }

    /// The code of an answer that must be a refusal.
    fn refused<T>(&self, answer: Result<T, Status>) -> Code {
        let status = answer.err().expect("it was answered");
        tell(&self.told, &format!("{status} {status:?}"));
        tell(&self.told, &String::from_utf8_lossy(status.details()));
        status.code()
    }

    async fn secret(&self, id: &str) -> Result<Vec<u8>, Status> {
        let mut client = SecretsClient::with_origin(self.daemon.clone(), origin());
        let asked = GetSecretRequest {
            id: id.to_owned(),
            ..GetSecretRequest::default()
        };
        let answer = client.get_secret(asked).await?;
        Ok(answer.into_inner().data)
    }

    async fn credentials(&self, host: &str) -> Code {
        let host = host.to_owned();
        let answer = self.auth().credentials(CredentialsRequest { host }).await;
        self.refused(answer)
    }

    /// All packets of a transfer of the source `name` that asks for `ids`, and how it ended.
    async fn transfer(&self, name: &str, ids: &[u32]) -> (Vec<u8>, Option<Status>) {
        let (sender, receiver) = tokio::sync::mpsc::channel(ids.len() + 1);
        let mut request = Request::new(ReceiverStream::new(receiver));
        metadata::set(request.metadata_mut(), headers::DIR_NAME, &[name]).expect("metadata");
        let mut client = FileSyncClient::with_origin(self.daemon.clone(), origin());
        let mut packets = match client.diff_copy(request).await {
            Ok(packets) => packets.into_inner(),
            Err(status) => return (Vec::new(), Some(status)),
        };
        let mut seen = Vec::new();
        let mut asked = false;
        loop {
            match packets.message().await {
                Ok(Some(packet)) => {
                    let listed = packet.r#type == i32::from(PacketType::PacketStat) && packet.stat.is_none();
                    seen.extend(packet.encode_to_vec());
                    if listed && !asked {
                        asked = true;
                        for &id in ids {
                            let wanted = Packet {
                                r#type: PacketType::PacketReq.into(),
                                id,
                                ..Packet::default()
                            };
                            // The session may end the transfer first.
                            let _ = sender.send(wanted).await;
                        }
                    }
                }
                Ok(None) => return (seen, None),
                Err(status) => return (seen, Some(status)),
            }
        }
    }

    /// Checks that no secret was told, and ends the session.
    fn finish(self) {
        // What the build's own error would say.
        let registry = BuildError::Auth {
            message: "registry".to_owned(),
            source: None,
        };
        let error = self.session.failures().explain(registry);
        tell(&self.told, &format!("{error} {error:?}"));
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for secret in [PASSWORD, SECRET, OUTSIDE] {
            assert!(!told.contains(secret), "{secret}: {told}");
        }
        assert!(!told.is_empty());
    }
}

fn tell(told: &Mutex<String>, text: &str) {
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    told.push_str(text);
    told.push('\n');
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_offered_is_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let context = dir.path().join("context");
    std::fs::create_dir(&context).expect("a directory");
    std::fs::write(dir.path().join("outside"), OUTSIDE).expect("writable");
    std::fs::write(context.join("inside"), "inside\n").expect("writable");
    std::os::unix::fs::symlink("../outside", context.join("link")).expect("a link");
    let hostile = Hostile::start(&context, false).await;

    // Secrets. The one that was offered shows that the questions are good.
    assert_eq!(hostile.secret("known").await.expect("offered"), SECRET.as_bytes());
    let long = "x".repeat(64 * 1024);
    for id in [
        "",
        "other",
        "KNOWN",
        "known ",
        "../known",
        "GIT_AUTH_TOKEN",
        "\u{1b}[2J",
        &long,
    ] {
        let code = hostile.refused(hostile.secret(id).await);
        assert_eq!(code, Code::NotFound, "{:.40}", id);
    }

    // Credentials of registries that the build does not use, and of what is none.
    for host in ["other.example", "registry-1.docker.io", "allowed.example:443"] {
        assert_eq!(hostile.credentials(host).await, Code::PermissionDenied, "{host}");
    }
    for host in ["", "a/b", "me@allowed.example", "a\nb", &long] {
        assert_eq!(
            hostile.credentials(host).await,
            Code::InvalidArgument,
            "{:.40}",
            host
        );
    }

    // Sources that nobody offered.
    for name in [
        "",
        ".",
        "..",
        "/",
        "/etc",
        "../outside",
        "context/..",
        "context/",
        "Context",
        "dockerfile",
    ] {
        let (seen, end) = hostile.transfer(name, &[]).await;
        assert!(seen.is_empty(), "{name}");
        let code = hostile.refused(end.map_or(Ok(()), Err));
        assert_eq!(code, Code::NotFound, "{name}");
    }
    // The one that was, and in it a link that leads out (1) and a file that was never listed (7).
    for id in [1, 7] {
        let (seen, end) = hostile.transfer("context", &[id]).await;
        assert!(
            contains(&seen, "inside") && contains(&seen, "../outside"),
            "the listing"
        );
        assert!(!contains(&seen, OUTSIDE), "{id}");
        if let Some(status) = end {
            assert_ne!(hostile.refused::<()>(Err(status)), Code::Ok);
        }
    }
    hostile.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_and_tokens_of_others_are_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let hostile = Hostile::start(dir.path(), true).await;
    let fetch = |host: &str, realm: &str| FetchTokenRequest {
        host: host.to_owned(),
        realm: realm.to_owned(),
        scopes: vec!["repository:a:pull".to_owned()],
        ..FetchTokenRequest::default()
    };
    let realm = "https://evil.example/token";
    let mut auth = hostile.auth();

    // Before the session was made the authority of anything.
    let answer = auth.fetch_token(fetch(ALLOWED, realm)).await;
    assert_eq!(hostile.refused(answer), Code::PermissionDenied);
    let verify = VerifyTokenAuthorityRequest {
        host: ALLOWED.to_owned(),
        payload: vec![1; 32],
        salt: vec![2; 32],
    };
    assert_eq!(
        hostile.refused(auth.verify_token_authority(verify).await),
        Code::Unavailable
    );
    // Where tokens are fetched here, the password is nobody's.
    assert_eq!(hostile.credentials(ALLOWED).await, Code::PermissionDenied);

    let authority = |host: &str, salt: usize| GetTokenAuthorityRequest {
        host: host.to_owned(),
        salt: vec![7; salt],
    };
    let answer = auth.get_token_authority(authority("other.example", 32)).await;
    assert_eq!(hostile.refused(answer), Code::PermissionDenied);
    let answer = auth.get_token_authority(authority(ALLOWED, 1 << 20)).await;
    assert_eq!(hostile.refused(answer), Code::InvalidArgument);
    let key = auth.get_token_authority(authority(ALLOWED, 32)).await;
    assert_eq!(key.expect("it fetches them").into_inner().public_key.len(), 32);

    // Another registry's tokens still are not to be had, and a refusal tells no password.
    let answer = auth.fetch_token(fetch("other.example", realm)).await;
    assert_eq!(hostile.refused(answer), Code::PermissionDenied);
    let answer = auth.fetch_token(fetch(ALLOWED, realm)).await;
    assert_eq!(hostile.refused(answer), Code::Unauthenticated);
    let answer = auth.fetch_token(fetch(ALLOWED, &"x".repeat(64 * 1024))).await;
    assert_eq!(hostile.refused(answer), Code::InvalidArgument);
    assert_eq!(hostile.credentials(ALLOWED).await, Code::PermissionDenied);
    hostile.finish();
}
