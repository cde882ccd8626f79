//! A build request as the daemon takes it.

mod options;

use std::collections::BTreeMap;

use bk_build::BuildRequest;
use bk_proto::control::SolveRequest;

/// The frontend that every BuildKit has built in. No Dockerfile is parsed on our side.
const FRONTEND: &str = "dockerfile.v0";

/// Which exporter makes an image in the daemon's own store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageExporter {
    /// A standalone buildkitd.
    Image,
    /// BuildKit inside Docker Engine. (`image` fails there on graph drivers.)
    Moby,
}

impl ImageExporter {
    /// The exporter's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Moby => "moby",
        }
    }
}

/// The `SolveRequest` of a build. `filename` is the Dockerfile's name inside the `dockerfile` source, when it is not
/// the frontend's default.
pub fn lower(
    request: &BuildRequest,
    build_ref: &str,
    session_id: &str,
    filename: Option<&str>,
    exporter: ImageExporter,
) -> SolveRequest {
    let exporters: Vec<_> = crate::exporters(request, exporter)
        .into_iter()
        .map(|lowered| lowered.exporter)
        .collect();
    let mut solve = SolveRequest {
        r#ref: build_ref.to_owned(),
        session: session_id.to_owned(),
        frontend: FRONTEND.to_owned(),
        frontend_attrs: frontend_attrs(request, filename),
        exporters,
        ..SolveRequest::default()
    };
    solve.enable_session_exporter = request.session_exporter.is_some();
    if request.policy_verifier.is_some() {
        session_id.clone_into(&mut solve.source_policy_session);
    }
    options::apply(request, &mut solve);
    // What the caller said in the daemon's own words wins.
    solve.frontend_attrs.extend(request.frontend_attrs.clone());
    // Daemons before 0.13 read the deprecated pair only and would silently export nothing without it.
    let first = solve.exporters.first().cloned().unwrap_or_default();
    solve.exporter_deprecated = first.r#type;
    solve.exporter_attrs_deprecated = first.attrs;
    solve
}

fn frontend_attrs(request: &BuildRequest, filename: Option<&str>) -> BTreeMap<String, String> {
    let mut attrs = BTreeMap::new();
    if let Some(name) = filename {
        attrs.insert("filename".to_owned(), name.to_owned());
    }
    if let Some(target) = &request.target {
        attrs.insert("target".to_owned(), target.clone());
    }
    if !request.platforms.is_empty() {
        attrs.insert("platform".to_owned(), request.platforms.join(","));
    }
    if request.no_cache {
        // Empty means every stage; absent means none.
        attrs.insert("no-cache".to_owned(), String::new());
    }
    if request.pull {
        attrs.insert("image-resolve-mode".to_owned(), "pull".to_owned());
    }
    for (key, value) in &request.build_args {
        attrs.insert(format!("build-arg:{key}"), value.clone());
    }
    for (key, value) in &request.labels {
        attrs.insert(format!("label:{key}"), value.clone());
    }
    attrs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_lands() {
        let request = BuildRequest::new(".")
            .tag("a:1")
            .tag("b")
            .build_arg("K", "v")
            .label("l", "x")
            .target("stage")
            .platform("linux/amd64")
            .platform("linux/arm64")
            .no_cache(true)
            .pull(true)
            .frontend_attr("hostname", "h");
        let solve = lower(&request, "r", "s", Some("Other"), ImageExporter::Moby);
        assert_eq!((solve.r#ref.as_str(), solve.session.as_str()), ("r", "s"));
        assert_eq!(solve.frontend, "dockerfile.v0");
        let mut attrs: Vec<_> = solve
            .frontend_attrs
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        attrs.sort();
        assert_eq!(
            attrs,
            [
                "build-arg:K=v",
                "filename=Other",
                "hostname=h",
                "image-resolve-mode=pull",
                "label:l=x",
                "no-cache=",
                "platform=linux/amd64,linux/arm64",
                "target=stage"
            ]
        );
        assert_eq!(solve.exporters.len(), 1);
        assert_eq!(solve.exporters[0].r#type, "moby");
        assert_eq!(solve.exporters[0].attrs["name"], "a:1,b");
        assert_eq!(solve.exporter_deprecated, "moby");
        assert_eq!(solve.exporter_attrs_deprecated["name"], "a:1,b");
    }

    #[test]
    fn a_plain_request_sets_nothing() {
        let solve = lower(&BuildRequest::new("."), "r", "s", None, ImageExporter::Image);
        assert!(solve.frontend_attrs.is_empty());
        assert!(solve.exporters[0].attrs.is_empty());
        let solve = lower(
            &BuildRequest::new(".").output(bk_build::Output::cache_only()),
            "r",
            "s",
            None,
            ImageExporter::Image,
        );
        assert!(solve.exporters.is_empty() && solve.exporter_deprecated.is_empty());
    }
}
