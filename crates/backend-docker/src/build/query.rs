//! A build request as the query of `POST /build`.
//!
//! The rule: what the route cannot say is refused by name before anything is sent; nothing is dropped silently.

use bk_build::{BuildRequest, Context, Dockerfile, Frontend, InputError, Network, Sink};
use bk_solve::{ImageExporter, exporters};
use serde_json::json;
use url::form_urlencoded::Serializer;

use crate::daemon::ApiVersion;

/// From this API version on (Docker 26) engines turn a build without an image into an export of the type "", and fail
/// with `exporter "" could not be found` once everything was built.
const NO_CACHE_ONLY: ApiVersion = ApiVersion::new(1, 45);

/// Where the context comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    /// The session of that id.
    Session(&'a str),
    /// The body of the request.
    Body,
}

/// Refuses what `POST /build` has no words for.
///
/// # Errors
/// An [`InputError`] that names the field and the route.
pub(crate) fn check(request: &BuildRequest, route: &str, daemon: ApiVersion) -> Result<(), InputError> {
    const ELSEWHERE: &str = "the routes grpc and h2c can";
    if let Some(key) = request.frontend_attrs.keys().next() {
        let text = format!("`{key}` cannot be set on the Docker route {route}; {ELSEWHERE}");
        return Err(InputError::new("frontend attribute", text, ""));
    }
    if let Some(flag) = unspeakable(request) {
        let text = format!("the Docker route {route} has no word for it; {ELSEWHERE}");
        return Err(InputError::new(flag, text, ""));
    }
    if let Context::Remote(_) | Context::Archive(_) = request.context {
        let local_file = matches!(request.dockerfile, Dockerfile::Path(_) | Dockerfile::Inline(_));
        let fetched = matches!(request.context, Context::Remote(_));
        if (route == "tar" && fetched) || local_file {
            let what = if local_file { "--file" } else { "PATH" };
            let text =
                format!("the Docker route {route} cannot build a remote context like this; {ELSEWHERE}");
            return Err(InputError::new(what, text, ""));
        }
    }
    if request.platforms.len() > 1 {
        let text =
            format!("the Docker route {route} builds for one platform at a time; {ELSEWHERE} do several");
        return Err(InputError::new("--platform", text, ""));
    }
    let outputs = exporters(request, ImageExporter::Moby);
    if outputs.is_empty() && daemon >= NO_CACHE_ONLY {
        let text = format!(
            "the Docker route {route} cannot leave the image out on engines from API {NO_CACHE_ONLY} on; {ELSEWHERE}"
        );
        return Err(InputError::new("--output", text, ""));
    }
    if outputs.len() > 1 {
        let text = format!(
            "the Docker route {route} makes one output at a time; {ELSEWHERE} make several, with BuildKit 0.13 or later"
        );
        return Err(InputError::new("--output", text, ""));
    }
    if request.outputs.iter().any(|o| o.layout_dir().is_some()) {
        let text =
            format!("`tar=false`: the Docker route {route} makes archives only; {ELSEWHERE} make layouts");
        return Err(InputError::new("--output", text, ""));
    }
    let files = |sink: &Sink| !matches!(sink, Sink::Daemon);
    if route == "tar" && outputs.iter().any(|o| files(&o.sink)) {
        let text =
            "the Docker route tar has no session to send results on; the routes build, grpc and h2c have";
        return Err(InputError::new("--output", text, ""));
    }
    Ok(())
}

/// The first option for which `POST /build` has no parameter, or one that BuildKit does not see.
fn unspeakable(request: &BuildRequest) -> Option<&'static str> {
    let steps = &request.steps;
    [
        ("--build-context", !request.named_contexts.is_empty()),
        ("--no-cache-filter", !request.no_cache_filter.is_empty()),
        ("--cgroup-parent", steps.cgroup_parent.is_some()),
        ("--memory and the other limits", steps.limits_resources()),
        ("--allow", !request.entitlements.is_empty()),
        ("--attest", !request.attestations.is_empty()),
        ("--annotation", !request.annotations.is_empty()),
        ("--source-policy-file", request.source_policy.is_some()),
        ("a session exporter", request.session_exporter.is_some()),
        ("a policy verifier", request.policy_verifier.is_some()),
        ("--frontend", request.frontend != Frontend::Dockerfile),
        (
            "--cache-from",
            request.cache_from.iter().any(|c| c.kind != "registry"),
        ),
        ("--cache-to", request.cache_to.iter().any(|c| c.kind != "inline")),
    ]
    .into_iter()
    .find(|(_, asked)| *asked)
    .map(|(flag, _)| flag)
}

/// What steps see, and where they are looked up.
fn options(request: &BuildRequest, query: &mut Serializer<'_, String>) {
    let steps = &request.steps;
    for host in &steps.add_hosts {
        query.append_pair("extrahosts", &format!("{}:{}", host.name, host.address));
    }
    match steps.network {
        Network::Host => _ = query.append_pair("networkmode", "host"),
        Network::None => _ = query.append_pair("networkmode", "none"),
        _ => {}
    }
    if let Some(bytes) = steps.shm_size {
        query.append_pair("shmsize", &bytes.to_string());
    }
    if !steps.ulimits.is_empty() {
        let list: Vec<_> = steps
            .ulimits
            .iter()
            .map(|u| json!({"Name": u.name, "Soft": u.soft, "Hard": u.hard}))
            .collect();
        query.append_pair("ulimits", &json!(list).to_string());
    }
    let images: Vec<_> = request
        .cache_from
        .iter()
        .filter_map(|c| c.attrs.get("ref"))
        .collect();
    if !images.is_empty() {
        query.append_pair("cachefrom", &json!(images).to_string());
    }
}

/// Refuses what a build without a session cannot be given: nobody would answer the daemon's questions.
///
/// # Errors
/// An [`InputError`] that names the field and the route.
pub(crate) fn check_sessionless(request: &BuildRequest) -> Result<(), InputError> {
    let secrets = !request.secrets.is_empty() || request.secret_provider.is_some();
    let wanted = [("--secret", secrets), ("--ssh", !request.ssh.is_empty())];
    match wanted.into_iter().find(|(_, is)| *is) {
        Some((flag, _)) => Err(InputError::new(
            flag,
            "the Docker route tar has no session to ask; the routes grpc, h2c and build have",
            "",
        )),
        None => Ok(()),
    }
}

/// The path and query of a build. `filename` is the Dockerfile's name in its source, when it is not the default.
pub(crate) fn path(
    request: &BuildRequest,
    api: ApiVersion,
    build_id: &str,
    source: Source<'_>,
    filename: Option<&str>,
) -> String {
    let start = format!("/v{api}/build?");
    let at = start.len();
    let mut query = Serializer::for_suffix(start, at);
    // 2 is BuildKit.
    query.append_pair("version", "2").append_pair("buildid", build_id);
    if let Source::Session(id) = source {
        let remote = match &request.context {
            Context::Remote(address) => Some(&**address),
            // It is the body.
            Context::Archive(_) => None,
            _ => Some("client-session"),
        };
        if let Some(remote) = remote {
            query.append_pair("remote", remote);
        }
        query.append_pair("session", id);
    }
    if let Some(name) = filename {
        query.append_pair("dockerfile", name);
    }
    for tag in &request.tags {
        query.append_pair("t", tag);
    }
    if let Some(target) = &request.target {
        query.append_pair("target", target);
    }
    if let Some(platform) = request.platforms.first() {
        query.append_pair("platform", platform);
    }
    if request.no_cache {
        query.append_pair("nocache", "1");
    }
    if request.pull {
        query.append_pair("pull", "1");
    }
    let mut args = request.build_args.clone();
    if request.cache_to.iter().any(|c| c.kind == "inline") {
        args.entry("BUILDKIT_INLINE_CACHE".to_owned())
            .or_insert_with(|| "1".to_owned());
    }
    if !args.is_empty() {
        query.append_pair("buildargs", &json!(args).to_string());
    }
    options(request, &mut query);
    if !request.labels.is_empty() {
        query.append_pair("labels", &json!(request.labels).to_string());
    }
    if let Some(outputs) = outputs(request) {
        query.append_pair("outputs", &outputs);
    }
    query.finish()
}

/// What comes out, unless it is a plain image with the names of the tags: old engines take that only when nothing is said.
fn outputs(request: &BuildRequest) -> Option<String> {
    let exporter = exporters(request, ImageExporter::Moby).into_iter().next();
    let Some(exporter) = exporter.map(|lowered| lowered.exporter) else {
        return Some(json!([{"Type": "cacheonly", "Attrs": {}}]).to_string());
    };
    let plain = exporter.r#type == ImageExporter::Moby.name() && exporter.attrs.keys().all(|k| k == "name");
    let named_by_tags = !request.tags.is_empty() || exporter.attrs.is_empty();
    if plain && named_by_tags {
        return None;
    }
    Some(json!([{"Type": exporter.r#type, "Attrs": exporter.attrs}]).to_string())
}

#[cfg(test)]
mod tests {
    use bk_build::{
        Annotation, Attestation, Cache, Entitlement, HostAddress, NamedContext, Output, SecretSource,
        SourcePolicy,
    };

    use super::*;

    const API: ApiVersion = ApiVersion::new(1, 41);

    #[test]
    fn a_plain_build_says_no_more_than_it_must() {
        let request = BuildRequest::new(".");
        assert_eq!(
            path(&request, API, "b1", Source::Session("s1"), None),
            "/v1.41/build?version=2&buildid=b1&remote=client-session&session=s1"
        );
        assert_eq!(
            path(&request, API, "b1", Source::Body, None),
            "/v1.41/build?version=2&buildid=b1"
        );
    }

    #[test]
    fn every_field_lands_and_is_escaped() {
        let request = BuildRequest::new(".")
            .tag("a:1")
            .tag("host:5000/b")
            .target("st&ge")
            .platform("linux/arm/v7")
            .no_cache(true)
            .pull(true)
            .build_arg("K", "v \"1\"&=+é")
            .build_arg("A", "")
            .label("l", "x\ny")
            .output(Output::cache_only());
        assert_eq!(
            path(&request, API, "b", Source::Session("s"), Some("Docker file")),
            "/v1.41/build?version=2&buildid=b&remote=client-session&session=s&dockerfile=Docker+file&t=a%3A1\
             &t=host%3A5000%2Fb&target=st%26ge&platform=linux%2Farm%2Fv7&nocache=1&pull=1\
             &buildargs=%7B%22A%22%3A%22%22%2C%22K%22%3A%22v+%5C%221%5C%22%26%3D%2B%C3%A9%22%7D\
             &labels=%7B%22l%22%3A%22x%5Cny%22%7D\
             &outputs=%5B%7B%22Attrs%22%3A%7B%7D%2C%22Type%22%3A%22cacheonly%22%7D%5D"
        );
    }

    #[test]
    fn what_steps_see_is_said() {
        let request = BuildRequest::new(Context::Remote("https://h/r.git#b".to_owned()))
            .add_host("a", HostAddress::Gateway)
            .network(Network::None)
            .shm_size(4096)
            .ulimit("nofile=1:2".parse().expect("a limit"))
            .cache_from(Cache::registry("h/a"))
            .cache_to(Cache::inline());
        assert!(check(&request, "build", API).is_ok());
        assert_eq!(
            path(&request, API, "b", Source::Session("s"), None),
            "/v1.41/build?version=2&buildid=b&remote=https%3A%2F%2Fh%2Fr.git%23b&session=s\
             &buildargs=%7B%22BUILDKIT_INLINE_CACHE%22%3A%221%22%7D&extrahosts=a%3Ahost-gateway&networkmode=none\
             &shmsize=4096&ulimits=%5B%7B%22Hard%22%3A2%2C%22Name%22%3A%22nofile%22%2C%22Soft%22%3A1%7D%5D\
             &cachefrom=%5B%22h%2Fa%22%5D"
        );
    }

    #[test]
    fn what_has_no_parameter_is_refused() {
        let new = || BuildRequest::new(".");
        let remote = || BuildRequest::new(Context::Remote("https://h/r.git".to_owned()));
        for (request, route, flag) in [
            (
                new().named_context("a", NamedContext::Dir(".".into())),
                "build",
                "--build-context",
            ),
            (new().no_cache_filter("s"), "tar", "--no-cache-filter"),
            (new().allow(Entitlement::SecurityInsecure), "build", "--allow"),
            (new().attest(Attestation::sbom()), "build", "--attest"),
            (
                new().annotation(Annotation::new("k", "v")),
                "build",
                "--annotation",
            ),
            (new().cache_from(Cache::local("d")), "build", "--cache-from"),
            (new().cache_to(Cache::registry("r")), "build", "--cache-to"),
            (
                new().frontend(Frontend::Named("x".to_owned())),
                "build",
                "--frontend",
            ),
            (
                new().source_policy(SourcePolicy::default()),
                "build",
                "--source-policy-file",
            ),
            (remote(), "tar", "PATH"),
            (
                remote().dockerfile(Dockerfile::Inline("x".into())),
                "build",
                "--file",
            ),
        ] {
            let e = check(&request, route, API).expect_err(flag);
            assert!(
                e.what == flag && e.message.contains(&format!("route {route}")),
                "{e}"
            );
        }
    }

    #[test]
    fn without_a_session_there_are_no_secrets() {
        assert!(check_sessionless(&BuildRequest::new(".")).is_ok());
        let request = BuildRequest::new(".").secret("s", SecretSource::bytes("x"));
        let e = check_sessionless(&request).expect_err("a secret");
        assert!(e.what == "--secret" && e.message.contains("route tar"), "{e}");
    }

    #[test]
    fn what_the_route_cannot_say_is_refused() {
        assert!(check(&BuildRequest::new(".").platform("linux/amd64"), "build", API).is_ok());
        let two = BuildRequest::new(".")
            .platform("linux/amd64")
            .platform("linux/arm64");
        let e = check(&two, "build", API).expect_err("two platforms");
        assert!(e.what == "--platform" && e.message.contains("route build"), "{e}");
        let e =
            check(&BuildRequest::new(".").frontend_attr("hostname", "h"), "tar", API).expect_err("attribute");
        assert!(
            e.message.contains("`hostname`") && e.message.contains("route tar"),
            "{e}"
        );
        let cache = BuildRequest::new(".").output(Output::cache_only());
        assert!(check(&cache, "build", ApiVersion::new(1, 44)).is_ok());
        let e = check(&cache, "build", ApiVersion::new(1, 45)).expect_err("no cache only");
        assert!(
            e.message.contains("route build") && e.message.contains("API 1.45"),
            "{e}"
        );
        let two = BuildRequest::new(".")
            .output(Output::tar("f"))
            .output(Output::local("d"));
        let e = check(&two, "build", API).expect_err("two outputs");
        assert!(
            e.what == "--output" && e.message.contains("one output at a time"),
            "{e}"
        );
        let file = BuildRequest::new(".").output(Output::tar("f"));
        assert!(check(&file, "build", API).is_ok());
        let e = check(&file, "tar", API).expect_err("no session");
        assert!(e.message.contains("no session"), "{e}");
    }

    #[test]
    fn outputs_are_said_when_they_are_not_plain_images() {
        let said = |request: &BuildRequest| outputs(request);
        let new = || BuildRequest::new(".").tag("a");
        assert_eq!(said(&new()), None);
        assert_eq!(said(&new().output(Output::load())), None);
        assert_eq!(
            said(&new().output(Output::local("/here"))).as_deref(),
            Some(r#"[{"Attrs":{},"Type":"local"}]"#)
        );
        assert_eq!(
            said(&BuildRequest::new(".").output(Output::image().names(["b"]))).as_deref(),
            Some(r#"[{"Attrs":{"name":"b"},"Type":"moby"}]"#)
        );
    }
}
