//! Endpoints that are no daemon: an error that names the address, within the connect deadline.

use bk_client::{Backend, BuildError, ConnectOptions, Environment};
use bk_testkit::garbage::{Garbage, Manners};

use crate::bounded;

async fn refuses(address: &str, backend: Backend) -> BuildError {
    let options = ConnectOptions::new()
        .environment(Environment::empty())
        .addr(address)
        .backend(backend);
    let result = bounded(address, Box::pin(bk_client::connect_with(options))).await;
    result
        .err()
        .unwrap_or_else(|| panic!("{address} was taken for a daemon ({backend:?})"))
}

fn backends() -> Vec<Backend> {
    let mut backends = vec![Backend::Auto, Backend::Buildkitd];
    if cfg!(feature = "docker") {
        backends.push(Backend::Docker);
    }
    backends
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_endpoints_are_refused_in_time() {
    let mut checks = tokio::task::JoinSet::new();
    for manners in [
        Manners::Silent,
        Manners::Deaf,
        Manners::WebServer,
        Manners::Closes,
        Manners::Babbles,
    ] {
        for backend in backends() {
            // All at once: those that never answer take the whole connect deadline.
            checks.spawn(async move {
                let endpoint = Garbage::start(manners).expect("endpoint");
                let error = refuses(&endpoint.address(), backend).await;
                let text = bk_testkit::events::chain(&error);
                let typed = matches!(error, BuildError::Connect(_) | BuildError::Timeout { .. });
                assert!(typed, "{manners:?}, {backend:?}: {error:?}");
                assert!(
                    text.contains(&endpoint.address()),
                    "{manners:?}, {backend:?}: {text}"
                );
                assert!(error.hint().is_some(), "{manners:?}, {backend:?}: {text}");
            });
        }
    }
    while let Some(check) = checks.join_next().await {
        check.expect("every endpoint is refused");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let address = format!("unix://{}/nobody.sock", dir.path().display());
    for backend in backends() {
        let error = refuses(&address, backend).await;
        assert!(matches!(error, BuildError::Connect(_)), "{error:?}");
        assert!(error.to_string().contains(&address), "{error}");
        assert!(
            error.hint().is_some_and(|hint| hint.contains("start Docker")),
            "{:?}",
            error.hint()
        );
    }
    let error = refuses("tcp://127.0.0.1:1", Backend::Buildkitd).await;
    assert!(error.to_string().contains("tcp://127.0.0.1:1"), "{error}");
}
