//! A build request as the query of `POST /build`.
//!
//! The rule: what the route cannot say is refused by name before anything is sent; nothing is dropped silently.

use bk_build::{BuildRequest, InputError, Output};
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
    if request.platforms.len() > 1 {
        let text =
            format!("the Docker route {route} builds for one platform at a time; {ELSEWHERE} do several");
        return Err(InputError::new("--platform", text, ""));
    }
    if request.output == Output::CacheOnly && daemon >= NO_CACHE_ONLY {
        let text = format!(
            "the Docker route {route} cannot leave the image out on engines from API {NO_CACHE_ONLY} on; {ELSEWHERE}"
        );
        return Err(InputError::new("output", text, ""));
    }
    Ok(())
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
        query
            .append_pair("remote", "client-session")
            .append_pair("session", id);
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
    if !request.build_args.is_empty() {
        query.append_pair("buildargs", &json!(request.build_args).to_string());
    }
    if !request.labels.is_empty() {
        query.append_pair("labels", &json!(request.labels).to_string());
    }
    if request.output == Output::CacheOnly {
        query.append_pair(
            "outputs",
            &json!([{"Type": "cacheonly", "Attrs": {}}]).to_string(),
        );
    }
    query.finish()
}

#[cfg(test)]
mod tests {
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
            .output(Output::CacheOnly);
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
        let cache = BuildRequest::new(".").output(Output::CacheOnly);
        assert!(check(&cache, "build", ApiVersion::new(1, 44)).is_ok());
        let e = check(&cache, "build", ApiVersion::new(1, 45)).expect_err("no cache only");
        assert!(
            e.message.contains("route build") && e.message.contains("API 1.45"),
            "{e}"
        );
    }
}
