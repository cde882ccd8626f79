//! Which option needs which BuildKit: the one table, and the check before anything is sent.
//!
//! The rule: an old daemon ignores attributes that it does not know, so a build would succeed and be wrong. What is
//! known to be too old is refused; a daemon that does not say its version decides by itself. `SOURCE_DATE_EPOCH` is not
//! in the table: an old daemon builds without it as well, and it often stands in the environment of builds that do not
//! depend on it.

use std::io::Read as _;

use bk_build::{
    BuildError, BuildRequest, BuilderInfo, Call, Context, DaemonTooOld, Dockerfile, Entitlement, Frontend,
    NamedContext, Refusal,
};

/// A version of BuildKit, major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BuildkitVersion(
    /// Major.
    pub u32,
    /// Minor.
    pub u32,
);

impl std::fmt::Display for BuildkitVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BuildKit {}.{}", self.0, self.1)
    }
}

/// The newest BuildKit that engines of a version (and its successors up to the next line) hold. Engines do not say.
const ENGINES: [((u32, u32), BuildkitVersion); 9] = [
    ((18, 9), BuildkitVersion(0, 3)),
    ((19, 3), BuildkitVersion(0, 6)),
    ((20, 10), BuildkitVersion(0, 8)),
    ((22, 6), BuildkitVersion(0, 10)),
    ((24, 0), BuildkitVersion(0, 11)),
    ((25, 0), BuildkitVersion(0, 12)),
    ((26, 0), BuildkitVersion(0, 13)),
    ((27, 0), BuildkitVersion(0, 18)),
    ((28, 0), BuildkitVersion(0, 25)),
];
/// From here on engines are newer than the table.
const ENGINES_END: (u32, u32) = (29, 0);

/// The BuildKit of a builder, as far as it can be told: what a buildkitd says, or what an engine of its version holds.
pub fn buildkit_of(info: &BuilderInfo) -> Option<BuildkitVersion> {
    let (major, minor) = numbers(info.version.as_deref()?)?;
    if info.backend != "docker" {
        // Builds inside of Docker Engine call themselves v0.0.0.
        return (major, minor)
            .gt(&(0, 0))
            .then_some(BuildkitVersion(major, minor));
    }
    if (major, minor) >= ENGINES_END {
        return None;
    }
    ENGINES
        .iter()
        .rev()
        .find(|(engine, _)| (major, minor) >= *engine)
        .map(|(_, buildkit)| *buildkit)
}

fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split(['.', '-', '+']);
    let number = |text: Option<&str>| text?.parse().ok();
    Some((number(parts.next())?, number(parts.next())?))
}

/// What has to be new enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The daemon itself.
    Daemon,
    /// The frontend that is built into it; a newer one can be fetched.
    Frontend,
}

pub(crate) struct Need {
    pub(crate) option: &'static str,
    part: Part,
    pub(crate) since: BuildkitVersion,
    /// The first engine with that BuildKit.
    pub(crate) engine: &'static str,
    asked: fn(&BuildRequest) -> bool,
}

const fn need(
    option: &'static str,
    part: Part,
    minor: u32,
    engine: &'static str,
    asked: fn(&BuildRequest) -> bool,
) -> Need {
    Need {
        option,
        part,
        since: BuildkitVersion(0, minor),
        engine,
        asked,
    }
}

/// Outputs that the program adds: its name, and who has it.
pub(crate) const SESSION_EXPORTER: (&str, BuildkitVersion, &str) =
    ("a session exporter", BuildkitVersion(0, 22), "28.2");
/// Decisions of the program about sources.
pub(crate) const POLICY_VERIFIER: (&str, BuildkitVersion, &str) =
    ("a policy verifier", BuildkitVersion(0, 26), "29.0");

/// Every option that came after BuildKit 0.8.
pub(crate) static NEEDS: [Need; 19] = [
    need("a cache of type gha", Part::Daemon, 9, "23.0", |r| {
        caches(r, "gha")
    }),
    need(
        "a subdirectory of a Git context",
        Part::Daemon,
        9,
        "23.0",
        |r| matches!(&r.context, Context::Remote(url) if has_subdirectory(url)),
    ),
    need("--build-context", Part::Frontend, 10, "23.0", |r| {
        !r.named_contexts.is_empty() && !matches!(r.frontend, Frontend::Definition(_))
    }),
    need("--shm-size", Part::Daemon, 10, "23.0", |r| {
        r.steps.shm_size.is_some()
    }),
    need("--ulimit", Part::Daemon, 10, "23.0", |r| {
        !r.steps.ulimits.is_empty()
    }),
    need("--cgroup-parent", Part::Daemon, 10, "23.0", |r| {
        r.steps.cgroup_parent.is_some()
    }),
    need("--build-context oci-layout://", Part::Daemon, 11, "24.0", |r| {
        r.named_contexts
            .values()
            .any(|c| matches!(c, NamedContext::OciLayout(_)))
    }),
    need("--output tar=false", Part::Daemon, 11, "24.0", |r| {
        r.outputs.iter().any(|o| o.layout_dir().is_some())
    }),
    need("--attest (--sbom, --provenance)", Part::Daemon, 11, "24.0", |r| {
        !r.attestations.is_empty()
    }),
    need("--annotation", Part::Daemon, 11, "24.0", |r| {
        !r.annotations.is_empty() || attribute(r, |key, _| key.starts_with("annotation"))
    }),
    need("compression=zstd", Part::Daemon, 10, "23.0", |r| {
        attribute(r, |key, value| (key, value) == ("compression", "zstd"))
    }),
    need("rewrite-timestamp", Part::Daemon, 13, "26.0", |r| {
        attribute(r, |key, _| key == "rewrite-timestamp")
    }),
    need("--source-policy-file", Part::Daemon, 11, "24.0", |r| {
        r.source_policy.is_some()
    }),
    need("a cache of type s3", Part::Daemon, 11, "24.0", |r| {
        caches(r, "s3")
    }),
    need("a cache of type azblob", Part::Daemon, 11, "24.0", |r| {
        caches(r, "azblob")
    }),
    need(
        SESSION_EXPORTER.0,
        Part::Daemon,
        SESSION_EXPORTER.1.1,
        SESSION_EXPORTER.2,
        |r| r.session_exporter.is_some(),
    ),
    need(
        POLICY_VERIFIER.0,
        Part::Daemon,
        POLICY_VERIFIER.1.1,
        POLICY_VERIFIER.2,
        |r| r.policy_verifier.is_some(),
    ),
    need("--allow device", Part::Daemon, 20, "28.0", |r| {
        r.entitlements.iter().any(|e| matches!(e, Entitlement::Device(_)))
    }),
    need("--memory and the other limits", Part::Frontend, 31, "29.6", |r| {
        r.steps.limits_resources()
    }),
];

fn caches(request: &BuildRequest, kind: &str) -> bool {
    let all = request.cache_from.iter().chain(&request.cache_to);
    all.into_iter().any(|c| c.kind == kind)
}

fn attribute(request: &BuildRequest, test: impl Fn(&str, &str) -> bool) -> bool {
    let mut all = request.outputs.iter().flat_map(|o| &o.attrs);
    all.any(|(key, value)| test(key, value))
}

/// Refuses several outputs at once when the daemon is known to make one only: it would leave the others out silently.
///
/// # Errors
/// [`BuildError::TooOld`] names the daemon and the version that has it.
pub(crate) fn several(info: &BuilderInfo) -> Result<(), BuildError> {
    const SINCE: BuildkitVersion = BuildkitVersion(0, 13);
    match buildkit_of(info) {
        Some(has) if has < SINCE => {
            let needs = format!("{SINCE} (Docker Engine 26.0)");
            Err(DaemonTooOld::new("several --output", info.to_string(), has.to_string(), needs).into())
        }
        _ => Ok(()),
    }
}

/// Whether a remote context is a directory below the top of a repository: `URL#REF:DIRECTORY`.
fn has_subdirectory(url: &str) -> bool {
    let fragment = url.split_once('#').map_or("", |(_, fragment)| fragment);
    fragment.split_once(':').is_some_and(|(_, dir)| !dir.is_empty())
}

/// Refuses what the daemon is known to be too old for.
///
/// # Errors
/// [`BuildError::TooOld`] names the option, the daemon and the version that has it.
pub async fn check(request: &BuildRequest, info: &BuilderInfo) -> Result<(), BuildError> {
    let Some(has) = buildkit_of(info) else {
        return Ok(());
    };
    let lacking = |part| {
        NEEDS
            .iter()
            .find(|n| n.part == part && has < n.since && (n.asked)(request))
    };
    let found = match lacking(Part::Daemon) {
        Some(need) => Some(need),
        None => match lacking(Part::Frontend) {
            Some(need) if !fetches_frontend(request).await => Some(need),
            _ => None,
        },
    };
    match found {
        None => Ok(()),
        Some(need) => {
            let needs = format!("{} (Docker Engine {})", need.since, need.engine);
            Err(DaemonTooOld::new(need.option, info.to_string(), has.to_string(), needs).into())
        }
    }
}

/// Which BuildKit's frontend knows a question, and the first engine with it. `None` for questions by name.
fn call_since(call: &Call) -> Option<(BuildkitVersion, &'static str)> {
    match call {
        Call::Check => Some((BuildkitVersion(0, 14), "27.0")),
        Call::Outline | Call::Targets => Some((BuildkitVersion(0, 11), "24.0")),
        _ => None,
    }
}

/// Refuses a question that the daemon's frontend is known not to understand.
///
/// # Errors
/// [`BuildError::TooOld`] names the question, the daemon and the version that has it.
pub(crate) async fn check_call(
    request: &BuildRequest,
    call: &Call,
    info: &BuilderInfo,
) -> Result<(), BuildError> {
    match (call_since(call), buildkit_of(info)) {
        (Some((since, _)), Some(has)) if has < since && !fetches_frontend(request).await => {
            Err(unknown_call(call, info))
        }
        _ => Ok(()),
    }
}

/// gRPC's number for what is not there.
const UNIMPLEMENTED: i32 = 12;

/// What a frontend comes to that does not understand a question.
pub(crate) fn unknown_call(call: &Call, info: &BuilderInfo) -> BuildError {
    let option = format!("--call {call}");
    let Some((since, engine)) = call_since(call) else {
        return Refusal::new(
            UNIMPLEMENTED,
            format!("{option}: the frontend of {info} does not know it"),
        )
        .hint("`--call subrequests.describe` lists what it knows")
        .into();
    };
    let has = match buildkit_of(info) {
        Some(has) if has < since => has.to_string(),
        _ => "an older frontend".to_owned(),
    };
    let needs = format!("{since} (Docker Engine {engine})");
    DaemonTooOld::new(option, info.to_string(), has, needs).into()
}

/// Whether the daemon fetches a frontend, which may be newer than itself.
async fn fetches_frontend(request: &BuildRequest) -> bool {
    if matches!(request.frontend, Frontend::Named(_)) || request.build_args.contains_key("BUILDKIT_SYNTAX") {
        return true;
    }
    let path = match (&request.dockerfile, &request.context) {
        (Dockerfile::Inline(text), _) => return names_syntax(text),
        (Dockerfile::Path(path), _) => path.clone(),
        (Dockerfile::Default, Context::Dir(dir) | Context::DirThrough(dir, _)) => dir.join("Dockerfile"),
        (Dockerfile::InContext(path), Context::Dir(dir) | Context::DirThrough(dir, _)) => dir.join(path),
        // It is not here, or not cheap to look at: the daemon decides.
        _ => return true,
    };
    let read = move || {
        let mut start = Vec::new();
        let file = std::fs::File::open(path).ok()?;
        file.take(SYNTAX_BYTES).read_to_end(&mut start).ok()?;
        Some(names_syntax(&start))
    };
    // A file that cannot be read is reported where it is needed.
    tokio::task::spawn_blocking(read)
        .await
        .ok()
        .flatten()
        .unwrap_or(true)
}

/// Directives stand at the very beginning of a Dockerfile.
const SYNTAX_BYTES: u64 = 4096;

/// Whether a Dockerfile begins with a `syntax` directive.
fn names_syntax(text: &[u8]) -> bool {
    String::from_utf8_lossy(text)
        .trim_start_matches('\u{feff}')
        .lines()
        .map(str::trim)
        .skip_while(|line| line.is_empty() || line.starts_with("#!"))
        .map_while(|line| line.strip_prefix('#').or_else(|| line.strip_prefix("//")))
        .filter_map(|line| line.split_once('='))
        .any(|(key, _)| key.trim().eq_ignore_ascii_case("syntax"))
}

#[cfg(test)]
mod tests {
    use bk_build::{Attestation, Cache, Ulimit};

    use super::*;

    fn docker(version: &str) -> BuilderInfo {
        BuilderInfo::new("docker", "unix:///d.sock").version(version)
    }

    fn buildkitd(version: &str) -> BuilderInfo {
        BuilderInfo::new("buildkitd", "unix:///b.sock").version(version)
    }

    #[test]
    fn versions_are_told_by_daemon_or_engine() {
        for (info, has) in [
            (docker("20.10.24+dfsg1"), Some(BuildkitVersion(0, 8))),
            (docker("23.0.1"), Some(BuildkitVersion(0, 10))),
            (docker("26.1.5"), Some(BuildkitVersion(0, 13))),
            (docker("28.5.2"), Some(BuildkitVersion(0, 25))),
            (docker("29.2.0"), None),
            (docker("1.13"), None),
            (docker("dev"), None),
            (buildkitd("v0.12.5"), Some(BuildkitVersion(0, 12))),
            (buildkitd("0.9.0-rc1"), Some(BuildkitVersion(0, 9))),
            (buildkitd("v0.0.0+unknown-moby"), None),
            (BuilderInfo::new("buildkitd", "x"), None),
        ] {
            assert_eq!(buildkit_of(&info), has, "{info}");
        }
    }

    async fn refusal(request: &BuildRequest, info: &BuilderInfo) -> Option<String> {
        check(request, info).await.err().map(|e| {
            assert!(matches!(e, BuildError::TooOld(_)), "{e:?}");
            e.to_string()
        })
    }

    #[tokio::test]
    async fn what_a_daemon_lacks_is_refused_by_name() {
        let new = || BuildRequest::new("/nowhere");
        let mut memory = new();
        memory.steps.memory = Some(1);
        for (request, option) in [
            (
                new().shm_size(1),
                "--shm-size needs BuildKit 0.10 (Docker Engine 23.0)",
            ),
            (
                new().ulimit("nofile=1".parse::<Ulimit>().expect("a limit")),
                "--ulimit needs",
            ),
            (
                new().attest(Attestation::sbom()),
                "--attest (--sbom, --provenance) needs BuildKit 0.11 (Docker Engine 24.0)",
            ),
            (new().cache_to(Cache::s3("b", "r")), "a cache of type s3 needs"),
        ] {
            let text = refusal(&request, &docker("20.10.24")).await.expect(option);
            assert!(text.starts_with(option), "{text}");
            assert!(
                text.ends_with("docker 20.10.24 at unix:///d.sock has BuildKit 0.8"),
                "{text}"
            );
            assert_eq!(refusal(&request, &docker("28.5.2")).await, None);
            assert_eq!(refusal(&request, &BuilderInfo::new("docker", "x")).await, None);
        }
        assert!(
            refusal(
                &memory.clone().dockerfile(Dockerfile::Inline("FROM x".into())),
                &docker("28.5.2")
            )
            .await
            .is_some()
        );
        assert_eq!(refusal(&new(), &docker("20.10.24")).await, None);
    }

    #[tokio::test]
    async fn a_frontend_that_is_fetched_may_be_newer() {
        let with = |text: &'static str| {
            BuildRequest::new(".")
                .dockerfile(Dockerfile::Inline(text.into()))
                .named_context("a", NamedContext::Image("b".to_owned()))
        };
        let old = docker("20.10.24");
        assert!(refusal(&with("FROM a"), &old).await.is_some());
        for text in [
            "# syntax=docker/dockerfile:1\nFROM a",
            "#!/usr/bin/env x\n# escape=`\n#Syntax = x\nFROM a",
        ] {
            assert_eq!(refusal(&with(text), &old).await, None, "{text}");
        }
        assert!(refusal(&with("FROM a\n# syntax=x"), &old).await.is_some());
        assert_eq!(
            refusal(&with("FROM a").build_arg("BUILDKIT_SYNTAX", "x"), &old).await,
            None
        );
    }

    #[tokio::test]
    async fn questions_need_a_frontend_that_knows_them() {
        let here = BuildRequest::new(".").dockerfile(Dockerfile::Inline("FROM x".into()));
        for (call, version, text) in [
            (
                Call::Check,
                "26.1.5",
                Some("--call check needs BuildKit 0.14 (Docker Engine 27.0)"),
            ),
            (Call::Check, "28.5.2", None),
            (
                Call::Outline,
                "20.10.24",
                Some("--call outline needs BuildKit 0.11 (Docker Engine 24.0)"),
            ),
            (Call::Targets, "26.1.5", None),
            (Call::Named("frontend.x".to_owned()), "20.10.24", None),
        ] {
            let refused = check_call(&here, &call, &docker(version))
                .await
                .err()
                .map(|e| e.to_string());
            match (&refused, text) {
                (None, None) => {}
                (Some(said), Some(text)) => assert!(said.starts_with(text), "{said}"),
                _ => panic!("{call} on {version}: {refused:?}"),
            }
        }
        let fetched = here.dockerfile(Dockerfile::Inline("# syntax=a/b\nFROM x".into()));
        assert!(
            check_call(&fetched, &Call::Check, &docker("20.10.24"))
                .await
                .is_ok()
        );
        let unknown = unknown_call(&Call::Named("frontend.x".to_owned()), &docker("28.5.2"));
        assert!(matches!(unknown, BuildError::Refused(_)), "{unknown:?}");
    }

    #[test]
    fn the_table_names_each_option_once() {
        let mut names: Vec<_> = NEEDS.iter().map(|n| n.option).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NEEDS.len());
        assert!(NEEDS.iter().all(|n| n.since > BuildkitVersion(0, 8)));
    }
}
