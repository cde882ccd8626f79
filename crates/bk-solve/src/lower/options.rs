//! The options of a request as frontend attributes, cache entries, entitlements and exporter attributes.
//!
//! The rule: what the request does not say is not sent, so that the daemon's defaults hold and old daemons see nothing
//! that they do not know.

use std::collections::BTreeMap;

use bk_build::{
    Attestation, BuildRequest, Cache, Context, Dockerfile, Entitlement, Frontend, NamedContext, Network,
};
use bk_proto::control::{CacheOptions, CacheOptionsEntry, SolveRequest};

/// Runs another frontend than the built-in one, from an image.
const GATEWAY: &str = "gateway.v0";
/// What a frontend must be able to do when contexts have names; `+forward` lets an image of a newer frontend do it.
const CONTEXTS: &str = "moby.buildkit.frontend.contexts+forward";
/// Exporters whose results have manifests.
const IMAGE_EXPORTERS: [&str; 4] = ["image", "moby", "oci", "docker"];

/// Adds what `request` says to `solve`. Raw attributes are added later and win.
pub(super) fn apply(request: &BuildRequest, solve: &mut SolveRequest) {
    let attrs = &mut solve.frontend_attrs;
    context(request, attrs);
    steps(request, attrs);
    if !request.no_cache_filter.is_empty() {
        attrs.insert("no-cache".to_owned(), request.no_cache_filter.join(","));
    }
    for attestation in &request.attestations {
        let (key, value) = attest(attestation);
        attrs.insert(key, value);
    }
    let mut entitlements = request.entitlements.clone();
    if request.steps.network == Network::Host {
        entitlements.insert(Entitlement::NetworkHost);
    }
    solve.entitlements = entitlements.iter().map(ToString::to_string).collect();
    solve.source_policy = request.source_policy.as_ref().map(|p| p.to_wire());
    caches(request, solve);
    for exporter in &mut solve.exporters {
        if IMAGE_EXPORTERS.contains(&exporter.r#type.as_str()) {
            for annotation in &request.annotations {
                exporter
                    .attrs
                    .entry(annotation.attribute())
                    .or_insert_with(|| annotation.value.clone());
            }
        }
    }
    frontend(request, solve);
}

fn context(request: &BuildRequest, attrs: &mut BTreeMap<String, String>) {
    if let Context::Remote(address) = &request.context {
        attrs.insert("context".to_owned(), address.clone());
    }
    // The address of an archive is known to the session that sends it.
    if matches!(request.context, Context::Remote(_) | Context::Archive(_))
        && matches!(request.dockerfile, Dockerfile::Path(_) | Dockerfile::Inline(_))
    {
        // Otherwise it is looked for in what the daemon has fetched.
        attrs.insert("dockerfilekey".to_owned(), "dockerfile".to_owned());
    }
    // Contexts of files on this machine are added by those who know under which names they are served.
    for (name, named) in &request.named_contexts {
        let value = match named {
            NamedContext::Image(image) => format!("docker-image://{image}"),
            NamedContext::Remote(address) => address.clone(),
            _ => continue,
        };
        attrs.insert(format!("context:{name}"), value);
    }
    if !request.named_contexts.is_empty() && !matches!(request.frontend, Frontend::Definition(_)) {
        attrs.insert("frontend.caps".to_owned(), CONTEXTS.to_owned());
    }
}

fn steps(request: &BuildRequest, attrs: &mut BTreeMap<String, String>) {
    let steps = &request.steps;
    let mut set = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            attrs.insert(key.to_owned(), value);
        }
    };
    let list = |items: Vec<String>| (!items.is_empty()).then(|| items.join(","));
    let hosts = steps.add_hosts.iter();
    set(
        "add-hosts",
        list(hosts.map(|h| format!("{}={}", h.name, h.address)).collect()),
    );
    set(
        "ulimit",
        list(steps.ulimits.iter().map(ToString::to_string).collect()),
    );
    let network = match steps.network {
        Network::Host => Some("host"),
        Network::None => Some("none"),
        _ => None,
    };
    set("force-network-mode", network.map(str::to_owned));
    set("shm-size", steps.shm_size.map(|n| n.to_string()));
    set("cgroup-parent", steps.cgroup_parent.clone());
    set("memory", steps.memory.map(|n| n.to_string()));
    set("memswap", steps.memory_swap.map(|n| n.to_string()));
    set("cpushares", steps.cpu_shares.map(|n| n.to_string()));
    set("cpuperiod", steps.cpu_period.map(|n| n.to_string()));
    set("cpuquota", steps.cpu_quota.map(|n| n.to_string()));
    set("cpusetcpus", steps.cpuset_cpus.clone());
    set("cpusetmems", steps.cpuset_mems.clone());
}

fn attest(attestation: &Attestation) -> (String, String) {
    let fields: Vec<String> = attestation
        .parameters()
        .iter()
        .map(|(key, value)| csv_field(&format!("{key}={value}")))
        .collect();
    (format!("attest:{}", attestation.kind()), fields.join(","))
}

/// A field of a record of comma-separated values.
fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) || text.starts_with(' ') {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn caches(request: &BuildRequest, solve: &mut SolveRequest) {
    let imports: Vec<_> = request.cache_from.iter().map(|c| entry(c, "src")).collect();
    let mut exports: Vec<_> = request.cache_to.iter().map(|c| entry(c, "dest")).collect();
    for export in &mut exports {
        if export.r#type != "inline" {
            // A build that succeeded should not fail because its cache could not be kept.
            export
                .attrs
                .entry("ignore-error".to_owned())
                .or_insert_with(|| "true".to_owned());
        }
    }
    if !imports.is_empty() && !matches!(request.frontend, Frontend::Definition(_)) {
        // The frontend passes them on with each of its own requests.
        solve
            .frontend_attrs
            .insert("cache-imports".to_owned(), json(&imports));
    }
    solve.cache = Some(CacheOptions {
        imports,
        exports,
        ..CacheOptions::default()
    });
}

/// A cache as it is sent; `dir_key` names its directory in this direction.
fn entry(cache: &Cache, dir_key: &str) -> CacheOptionsEntry {
    let mut attrs = cache.attrs.clone();
    if cache.kind == "local"
        && let Some(dir) = attrs.remove("dir")
    {
        attrs.entry(dir_key.to_owned()).or_insert(dir);
    }
    CacheOptionsEntry {
        r#type: cache.kind.clone(),
        attrs,
    }
}

/// `[{"Type":"registry","Attrs":{"ref":"…"}}]`, the form in which a frontend takes them.
fn json(entries: &[CacheOptionsEntry]) -> String {
    let list: Vec<_> = entries
        .iter()
        .map(|e| serde_json::json!({"Type": e.r#type, "Attrs": e.attrs}))
        .collect();
    serde_json::Value::Array(list).to_string()
}

fn frontend(request: &BuildRequest, solve: &mut SolveRequest) {
    match &request.frontend {
        Frontend::Named(name) => solve.frontend.clone_from(name),
        Frontend::Definition(definition) => {
            solve.frontend = String::new();
            solve.definition = Some(definition.clone());
        }
        _ => {
            let Some(line) = request.build_args.get("BUILDKIT_SYNTAX") else {
                return;
            };
            let line = line.trim();
            if let Some(image) = line.split_whitespace().next() {
                GATEWAY.clone_into(&mut solve.frontend);
                let attrs = &mut solve.frontend_attrs;
                attrs.insert("source".to_owned(), image.to_owned());
                attrs.insert("cmdline".to_owned(), line.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bk_build::{Annotation, Definition, HostAddress, ProvenanceMode, SourcePolicy, Ulimit};

    use super::*;
    use crate::lower::{ImageExporter, lower};

    fn solve(request: &BuildRequest) -> SolveRequest {
        lower(request, "r", "s", None, ImageExporter::Moby)
    }

    fn attrs(request: &BuildRequest) -> Vec<String> {
        let solve = solve(request);
        solve
            .frontend_attrs
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect()
    }

    fn new() -> BuildRequest {
        BuildRequest::new(".")
    }

    #[test]
    fn steps_have_their_attributes() {
        let request = new()
            .add_host("a", HostAddress::Ip("1.2.3.4".parse().expect("an address")))
            .add_host("b", HostAddress::Ip("::1".parse().expect("an address")))
            .network(Network::None)
            .shm_size(1 << 20)
            .ulimit(Ulimit {
                name: "nofile".to_owned(),
                soft: 5,
                hard: -1,
            })
            .no_cache_filter("x")
            .no_cache_filter("y");
        assert_eq!(
            attrs(&request),
            [
                "add-hosts=a=1.2.3.4,b=::1",
                "force-network-mode=none",
                "no-cache=x,y",
                "shm-size=1048576",
                "ulimit=nofile=5:-1"
            ]
        );
        assert!(solve(&request).entitlements.is_empty());
        let host = solve(&new().network(Network::Host).allow(Entitlement::SecurityInsecure));
        assert_eq!(host.entitlements, ["network.host", "security.insecure"]);
        assert_eq!(host.frontend_attrs["force-network-mode"], "host");
    }

    #[test]
    fn contexts_have_their_attributes() {
        let request = BuildRequest::new(Context::Remote("https://h/r.git#main".to_owned()))
            .dockerfile(Dockerfile::Inline("FROM scratch".into()))
            .named_context("alpine:latest", NamedContext::Image("busybox:1".to_owned()))
            .named_context("src", NamedContext::Remote("git@h:a/b".to_owned()));
        assert_eq!(
            attrs(&request),
            [
                "context=https://h/r.git#main",
                "context:alpine=docker-image://busybox:1",
                "context:src=git@h:a/b",
                "dockerfilekey=dockerfile",
                "frontend.caps=moby.buildkit.frontend.contexts+forward",
            ]
        );
        let inside = BuildRequest::new(Context::Remote("https://h/r.git".to_owned()));
        assert_eq!(attrs(&inside), ["context=https://h/r.git"]);
    }

    #[test]
    fn attestations_are_records() {
        let Attestation::Sbom { mut attrs, .. } = Attestation::sbom() else {
            panic!("an sbom")
        };
        attrs.insert("x".to_owned(), "a,\"b\"".to_owned());
        let request = new()
            .attest(Attestation::provenance(ProvenanceMode::Max))
            .attest(Attestation::Sbom {
                generator: Some("h/scan".to_owned()),
                attrs,
            });
        assert_eq!(
            self::attrs(&request),
            [
                "attest:provenance=mode=max",
                r#"attest:sbom=generator=h/scan,"x=a,""b""""#
            ]
        );
        assert_eq!(self::attrs(&new().attest(Attestation::sbom())), ["attest:sbom="]);
    }

    #[test]
    fn annotations_go_to_every_exporter_of_images() {
        let solve = solve(&new().annotation(Annotation::new("k", "v")));
        assert_eq!(solve.exporters[0].attrs["annotation.k"], "v");
        assert_eq!(solve.exporter_attrs_deprecated["annotation.k"], "v");
    }

    #[test]
    fn caches_are_told_to_daemon_and_frontend() {
        let solve = solve(
            &new()
                .cache_from(Cache::registry("h/a:c"))
                .cache_from(Cache::local("d"))
                .cache_to(Cache::local("d").attr("mode", "max"))
                .cache_to(Cache::inline())
                .cache_to(Cache::s3("b", "eu").attr("ignore-error", "false")),
        );
        let cache = solve.cache.expect("caches");
        let said = |list: &[CacheOptionsEntry]| -> Vec<String> {
            list.iter()
                .map(|e| format!("{} {:?}", e.r#type, e.attrs))
                .collect()
        };
        assert_eq!(
            said(&cache.imports),
            [r#"registry {"ref": "h/a:c"}"#, r#"local {"src": "d"}"#]
        );
        assert_eq!(
            said(&cache.exports),
            [
                r#"local {"dest": "d", "ignore-error": "true", "mode": "max"}"#,
                "inline {}",
                r#"s3 {"bucket": "b", "ignore-error": "false", "region": "eu"}"#
            ]
        );
        assert_eq!(
            solve.frontend_attrs["cache-imports"],
            r#"[{"Attrs":{"ref":"h/a:c"},"Type":"registry"},{"Attrs":{"src":"d"},"Type":"local"}]"#
        );
    }

    #[test]
    fn other_frontends() {
        let syntax = solve(&new().build_arg("BUILDKIT_SYNTAX", " h/frontend:1 more "));
        assert_eq!(syntax.frontend, "gateway.v0");
        assert_eq!(syntax.frontend_attrs["source"], "h/frontend:1");
        assert_eq!(syntax.frontend_attrs["cmdline"], "h/frontend:1 more");
        let named = solve(
            &new()
                .frontend(Frontend::Named("gateway.v0".to_owned()))
                .frontend_attr("source", "x"),
        );
        assert_eq!(
            (named.frontend.as_str(), named.frontend_attrs["source"].as_str()),
            ("gateway.v0", "x")
        );
        let definition = Definition {
            def: vec![vec![1], vec![2]],
            ..Definition::default()
        };
        let raw = solve(&BuildRequest::from_definition(definition.clone()));
        assert_eq!((raw.frontend.as_str(), raw.definition), ("", Some(definition)));
    }

    #[test]
    fn a_policy_is_sent() {
        let policy = SourcePolicy::from_json(br#"{"rules": [{"action": "DENY"}]}"#).expect("a policy");
        let sent = solve(&new().source_policy(policy))
            .source_policy
            .expect("a policy");
        assert_eq!(sent.rules[0].action, 1);
        assert!(solve(&new()).source_policy.is_none());
    }
}
