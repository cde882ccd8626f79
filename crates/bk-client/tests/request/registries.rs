//! Registries that want tokens: whoever proves who asks, the proof stays on this machine.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bk_client::{
    BuildError, BuildEvent, BuildOutcome, BuildRequest, Context, CredentialErrorKind, CredentialGiven,
    CredentialUse, DockerConfig, Dockerfile, ImageBuilder, MemoryTree, Output, TokenClient,
};
use bk_testkit::{
    events::{Recorder, chain},
    live::{Daemon, Route, registry_program},
    proxy::Proxy,
    snapshot::ContentDigest,
    token::{Asked, FILE, Kind, TokenRegistry, USER},
};

use crate::{LIMIT, Place, options};

const PLACES: [(Daemon, Route); 4] = [
    (Daemon::Docker20_10, Route::Grpc),
    (Daemon::Docker28_5, Route::Grpc),
    (Daemon::Docker28_5, Route::Build),
    (Daemon::BuildkitUnix, Route::Direct),
];

/// What came of a build on the image of a registry that wants tokens.
struct Pulled {
    result: Result<BuildOutcome, BuildError>,
    used: Vec<CredentialUse>,
    warnings: Vec<String>,
    asked: Vec<Asked>,
    /// Everything that went to the daemon.
    proxy: Proxy,
    /// Everything that was told, errors included.
    told: String,
}

impl Pulled {
    /// Whether a secret was seen by the daemon, as it is or as a header holds it.
    fn daemon_saw(&self, secret: &str) -> bool {
        let login = STANDARD.encode(format!("{USER}:{secret}"));
        self.proxy.sent(secret.as_bytes()) || self.proxy.sent(login.as_bytes())
    }

    /// Who got tokens, as they call themselves: this client, or the daemon.
    fn all_by_client(&self) -> bool {
        !self.asked.is_empty() && self.asked.iter().all(|a| a.agent.starts_with("bk/"))
    }

    fn given(&self) -> Vec<CredentialGiven> {
        self.used.iter().map(|u| u.given).collect()
    }
}

/// As [`crate::on`] in all places, where there is a registry to start.
fn on(name: &str, test: impl AsyncFn(&Place<'_>)) {
    if registry_program(name).is_some() {
        crate::on(&PLACES, name, test);
    }
}

fn start(place: &Place<'_>, kind: Kind) -> TokenRegistry {
    let program = registry_program("a registry").expect("asked before");
    let tag = place.tag.replace([':', '/'], "-");
    TokenRegistry::start(&program, kind, &tag).expect("a registry with tokens")
}

/// Writes a Docker config with one entry for the registry.
fn write_config(dir: &Path, registry: &TokenRegistry, entry: &serde_json::Value) -> DockerConfig {
    let file = dir.join("config.json");
    let text = serde_json::json!({"auths": {registry.host(): entry}}).to_string();
    fs::write(&file, text).expect("writable");
    DockerConfig::new(file)
}

fn login(password: &str) -> serde_json::Value {
    serde_json::json!({"auth": STANDARD.encode(format!("{USER}:{password}"))})
}

async fn pull(
    place: &Place<'_>,
    registry: &TokenRegistry,
    config: DockerConfig,
    tokens: TokenClient,
) -> Pulled {
    let text = format!("FROM {}\nLABEL of=\"{}\"\n", registry.image(), place.tag);
    let request = BuildRequest::new(Context::None)
        .dockerfile(Dockerfile::Inline(text.into()))
        .tag(&place.tag)
        .no_cache(true);
    ask(place, registry, config, tokens, request).await
}

/// Builds while everything that goes to the daemon is kept.
async fn ask(
    place: &Place<'_>,
    registry: &TokenRegistry,
    config: DockerConfig,
    tokens: TokenClient,
    request: BuildRequest,
) -> Pulled {
    let proxy = Proxy::keeping(&place.target.address).expect("a proxy");
    let options = options(place.target, &proxy.address())
        .credentials(Arc::new(config))
        .tokens(Arc::new(tokens));
    let client = Box::pin(bk_client::connect_with(options)).await.expect("connect");
    let recorder = Recorder::new();
    let result = tokio::time::timeout(LIMIT, client.build(request, recorder.sink())).await;
    let result = result.unwrap_or_else(|_| panic!("{}: no end within {LIMIT:?}", place.target.name()));
    let used = |event| match event {
        BuildEvent::Credentials(used) => Some(used),
        _ => None,
    };
    let error = result.as_ref().err().map(|e| format!("{}{e:?}", chain(e)));
    Pulled {
        told: format!("{:?}{error:?}", recorder.events()),
        result,
        used: recorder.events().into_iter().filter_map(used).collect(),
        warnings: recorder.warnings().into_iter().map(|w| w.short).collect(),
        asked: registry.asked(),
        proxy,
    }
}

async fn holds_the_file(place: &Place<'_>, pulled: &Pulled) {
    let name = place.target.name();
    if let Err(e) = &pulled.result {
        panic!(
            "{name}: {}\n{:#?}\n{:#?}",
            chain(e),
            pulled.asked,
            pulled.warnings
        );
    }
    let image = place.engine.tree(&place.tag, "").await.expect("the image");
    let found = image.entries.get(FILE.0.as_bytes()).and_then(|e| e.digest);
    assert_eq!(found, Some(ContentDigest::of(FILE.1.as_bytes())), "{name}");
    place.engine.remove_image(&place.tag).await.expect("removable");
}

/// A build that must succeed with tokens that were fetched here, of `source`, without `secret` going anywhere.
async fn stays_here(place: &Place<'_>, pulled: Pulled, secret: &str, source: &str, how: (&str, &str)) {
    let name = place.target.name();
    holds_the_file(place, &pulled).await;
    assert!(!pulled.daemon_saw(secret), "{name}: {source}");
    assert!(!pulled.told.contains(secret), "{name}: {}", pulled.told);
    assert!(pulled.all_by_client(), "{name}: {:#?}", pulled.asked);
    let last = pulled.asked.last().expect("somebody asked");
    assert_eq!((&*last.method, &*last.proof), how, "{name}: {:#?}", pulled.asked);
    assert!(last.given, "{name}: {:#?}", pulled.asked);
    assert!(
        last.scopes.contains(&"repository:base/one:pull".to_owned()),
        "{last:?}"
    );
    let all = pulled.given().iter().all(|g| *g == CredentialGiven::Token);
    assert!(all && !pulled.used.is_empty(), "{name}: {:#?}", pulled.used);
    let sources = pulled.used.iter().all(|u| u.source.contains(source));
    assert!(sources, "{name}: {:#?}", pulled.used);
    assert!(pulled.warnings.is_empty(), "{name}: {:?}", pulled.warnings);
}

#[test]
fn passwords_do_not_reach_the_daemon() {
    on("request::passwords_do_not_reach_the_daemon", async |place| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let registry = start(place, Kind::default());
        let config = write_config(dir.path(), &registry, &login(registry.password()));
        let pulled = pull(place, &registry, config, TokenClient::new()).await;
        stays_here(place, pulled, registry.password(), "auths", ("POST", "password")).await;

        // A server that knows the older query only.
        let kind = Kind {
            query_only: true,
            ..Kind::default()
        };
        let registry = start(place, kind);
        let config = write_config(dir.path(), &registry, &login(registry.password()));
        let pulled = pull(place, &registry, config, TokenClient::new()).await;
        stays_here(place, pulled, registry.password(), "auths", ("GET", "password")).await;
        place
            .target
            .supports("Registries with a token server: the password stays here");
    });
}

#[test]
fn images_are_pushed_with_tokens() {
    on("request::images_are_pushed_with_tokens", async |place| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let registry = start(place, Kind::default());
        let config = || write_config(dir.path(), &registry, &login(registry.password()));
        let image = format!("{}/team/pushed:1", registry.host());
        let text = format!("FROM scratch\nCOPY one /one\nLABEL of=\"{}\"\n", place.tag);
        let mut tree = MemoryTree::new();
        tree.add_file("one", 0o644, place.tag.clone()).expect("a file");
        let request = BuildRequest::new(Context::Tree(Arc::new(tree)))
            .dockerfile(Dockerfile::Inline(text.into()))
            .tag(&image)
            .output(Output::image().push(true));
        let pushed = ask(place, &registry, config(), TokenClient::new(), request).await;
        let name = place.target.name();
        let outcome = pushed
            .result
            .as_ref()
            .unwrap_or_else(|e| panic!("{name}: {}", chain(e)));
        let digest = outcome.digest.clone().expect("the registry's digest");
        let scope = "repository:team/pushed:pull,push".to_owned();
        let of_push = |u: &&CredentialUse| {
            u.scopes
                .iter()
                .any(|s| s.contains("team/pushed") && s.contains("push"))
        };
        let used: Vec<_> = pushed.used.iter().filter(of_push).collect();
        assert!(!used.is_empty(), "{name}: {:#?}", pushed.used);
        assert!(
            used.iter().all(|u| u.source.contains("auths")),
            "{name}: {used:#?}"
        );
        assert!(
            !pushed.told.contains(registry.password()),
            "{name}: {}",
            pushed.told
        );
        if place.target.route == Route::Direct {
            // The builder pushes by itself, with a token that was fetched here.
            assert!(!pushed.daemon_saw(registry.password()), "{name}");
            assert!(
                used.iter().all(|u| u.given == CredentialGiven::Token),
                "{name}: {used:#?}"
            );
            assert!(pushed.all_by_client(), "{name}: {:#?}", pushed.asked);
        } else {
            // Engines with graph drivers push by their own API, which takes nothing but the credential.
            assert!(
                used.iter().all(|u| u.given == CredentialGiven::Credential),
                "{name}: {used:#?}"
            );
            assert!(
                used.iter().all(|u| u.scopes == [scope.clone()]),
                "{name}: {used:#?}"
            );
        }

        let text = format!(
            "FROM {}/team/pushed@{digest}\nLABEL again=\"{}\"\n",
            registry.host(),
            place.tag
        );
        let request = BuildRequest::new(Context::None)
            .dockerfile(Dockerfile::Inline(text.into()))
            .tag(&place.tag);
        let pulled = ask(place, &registry, config(), TokenClient::new(), request).await;
        if let Err(e) = &pulled.result {
            panic!("{name}: {}", chain(e));
        }
        let tree = place.engine.tree(&place.tag, "").await.expect("the image");
        let found = tree.entries.get(&b"one"[..]).and_then(|e| e.digest);
        assert_eq!(found, Some(ContentDigest::of(place.tag.as_bytes())), "{name}");
        // An engine keeps what it pushed, a builder does not.
        let _ = place.engine.remove_image(&image).await;
        place.target.supports("Pushes to a registry with a token server");
    });
}

#[test]
fn identity_tokens_and_helpers_prove_who_asks() {
    let name = "request::identity_tokens_and_helpers_prove_who_asks";
    on(name, async |place| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let registry = start(place, Kind::default());
        let entry = serde_json::json!({"identitytoken": registry.identity()});
        let config = write_config(dir.path(), &registry, &entry);
        let pulled = pull(place, &registry, config, TokenClient::new()).await;
        stays_here(
            place,
            pulled,
            registry.identity(),
            "auths",
            ("POST", "refresh_token"),
        )
        .await;

        // A program that answers, and notes what it was asked.
        let registry = start(place, Kind::default());
        let noted = dir.path().join("noted");
        let helper = dir.path().join("docker-credential-test");
        let answer = serde_json::json!({"Username": USER, "Secret": registry.password()});
        let text = format!(
            "#!/bin/sh\nread host\necho \"$1 $host\" >> '{}'\necho '{answer}'\n",
            noted.display()
        );
        fs::write(&helper, text).expect("writable");
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("a mode");
        let file = dir.path().join("config.json");
        let text = serde_json::json!({"credHelpers": {registry.host(): "test"}}).to_string();
        fs::write(&file, text).expect("writable");
        let config = DockerConfig::new(file).search_path(format!("{}:/usr/bin:/bin", dir.path().display()));
        let pulled = pull(place, &registry, config, TokenClient::new()).await;
        stays_here(place, pulled, registry.password(), "test", ("POST", "password")).await;
        let noted = fs::read_to_string(noted).expect("notes");
        let wanted = format!("get {}", registry.host());
        assert!(noted.lines().all(|line| line == wanted), "{noted}");
    });
}

#[test]
fn a_wrong_password_names_the_registry() {
    on("request::a_wrong_password_names_the_registry", async |place| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let registry = start(place, Kind::default());
        let config = write_config(dir.path(), &registry, &login("wrong-one"));
        let pulled = pull(place, &registry, config, TokenClient::new()).await;
        let name = place.target.name();
        let error = pulled.result.as_ref().expect_err("a failure");
        let text = chain(error);
        let BuildError::Auth { source, .. } = error else {
            panic!("{name}: {error:?}");
        };
        let source = source.as_ref().expect("our own view of it");
        assert_eq!(source.kind, CredentialErrorKind::Refused, "{name}: {text}");
        assert_eq!(source.host, registry.host(), "{name}: {text}");
        assert!(text.contains(registry.host()), "{name}: {text}");
        assert!(!pulled.told.contains("wrong-one"), "{name}: {}", pulled.told);
        assert!(!pulled.daemon_saw("wrong-one"), "{name}");
        assert!(
            pulled.asked.iter().all(|a| !a.given),
            "{name}: {:#?}",
            pulled.asked
        );
    });
}

#[test]
fn without_a_way_to_the_token_server_the_daemon_asks() {
    let name = "request::without_a_way_to_the_token_server_the_daemon_asks";
    on(name, async |place| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let kind = Kind {
            elsewhere: true,
            ..Kind::default()
        };
        let registry = start(place, kind);
        let config = write_config(dir.path(), &registry, &login(registry.password()));
        let pulled = pull(place, &registry, config, TokenClient::new()).await;
        let name = place.target.name();
        holds_the_file(place, &pulled).await;
        // Which proves as well that a password that goes to the daemon is seen here.
        assert!(pulled.daemon_saw(registry.password()), "{name}");
        let asked = &pulled.asked;
        assert!(
            asked.iter().all(|a| !a.agent.starts_with("bk/")),
            "{name}: {asked:#?}"
        );
        assert!(asked.iter().any(|a| a.given), "{name}: {asked:#?}");
        let given = pulled.given();
        assert!(given.contains(&CredentialGiven::Credential), "{name}: {given:?}");
        let warned = &pulled.warnings;
        assert_eq!(warned.len(), 1, "{name}: {warned:?}");
        assert!(
            warned[0].contains(registry.host()) && warned[0].contains("has no TLS"),
            "{name}: {warned:?}"
        );
        assert!(
            !pulled.told.contains(registry.password()),
            "{name}: {}",
            pulled.told
        );
    });
}

#[test]
fn token_servers_with_tls_need_an_authority_that_is_trusted() {
    let name = "request::token_servers_with_tls_need_an_authority_that_is_trusted";
    on(name, async |place| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let kind = Kind {
            tls: true,
            ..Kind::default()
        };
        let registry = start(place, kind);
        let config = || write_config(dir.path(), &registry, &login(registry.password()));
        let tokens = TokenClient::new().trust_pem(registry.authority());
        let pulled = pull(place, &registry, config(), tokens).await;
        stays_here(place, pulled, registry.password(), "auths", ("POST", "password")).await;

        // An authority that signed something else: nothing is asked from here, and the daemon decides by itself. New ones
        // trust whatever is on this machine.
        let registry = start(place, kind);
        let other = start(place, kind);
        let config = write_config(dir.path(), &registry, &login(registry.password()));
        let tokens = TokenClient::new().trust_pem(other.authority());
        let pulled = pull(place, &registry, config, tokens).await;
        let name = place.target.name();
        let asked = &pulled.asked;
        if place.is_old() {
            let error = pulled.result.as_ref().expect_err("a failure");
            let text = chain(error);
            assert!(
                matches!(error, BuildError::Auth { .. }) && text.contains("x509: certificate"),
                "{name}: {text}"
            );
            assert!(asked.is_empty(), "{name}: {asked:#?}");
        } else {
            holds_the_file(place, &pulled).await;
            let by_daemon = asked.iter().all(|a| !a.agent.starts_with("bk/"));
            assert!(by_daemon && !asked.is_empty(), "{name}: {asked:#?}");
        }
        let warned = &pulled.warnings;
        assert!(
            warned.len() == 1 && warned[0].contains("certificate") && warned[0].contains(registry.host()),
            "{name}: {warned:?}"
        );
        assert!(
            !pulled.told.contains(registry.password()),
            "{name}: {}",
            pulled.told
        );
    });
}
