//! Options of a build from their words to a request, one function for each heading of the help.

use std::{fs, io::Read as _, path::Path};

use bk_client::{
    Annotation, Attestation, BuildError, BuildRequest, Frontend, InputError, LocalFailure, NamedContext,
    ProvenanceMode, SourcePolicy, parse_bytes,
};

use super::Surroundings;
use crate::{
    args::{ResultArgs, SourceArgs, StepArgs},
    csv,
    limits::SOURCE_POLICY_BYTES,
};

/// What is built: contexts by name, the frontend and its attributes, and rules for sources.
///
/// # Errors
/// A value without a meaning, or a policy that cannot be read.
pub(super) fn source(
    args: &SourceArgs,
    around: &impl Surroundings,
    request: &mut BuildRequest,
) -> Result<(), BuildError> {
    for text in &args.build_contexts {
        let (name, value) = pair("--build-context", text, "NAME=VALUE")?;
        *request = std::mem::replace(request, BuildRequest::new(""))
            .named_context(name, NamedContext::parse(value)?);
    }
    for text in &args.opts {
        let (key, value) = pair("--opt", text, "KEY=VALUE")?;
        request.frontend_attrs.insert(key.to_owned(), value.to_owned());
    }
    if let Some(name) = &args.frontend {
        request.frontend = match &**name {
            "dockerfile.v0" => Frontend::Dockerfile,
            _ => Frontend::Named(name.clone()),
        };
    }
    const VARIABLE: &str = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY";
    let variable = around.var(VARIABLE).filter(|v| !v.is_empty());
    let file = args
        .source_policy_file
        .as_deref()
        .or(variable.as_deref().map(Path::new));
    if let Some(file) = file {
        request.source_policy = Some(policy(file)?);
    }
    const EPOCH: &str = "SOURCE_DATE_EPOCH";
    if let Some(value) = around.var(EPOCH).filter(|v| !v.is_empty()) {
        let value = value
            .into_string()
            .map_err(|_| InputError::new(EPOCH, "it is not UTF-8", "whole seconds since 1970-01-01 UTC"))?;
        request.build_args.entry(EPOCH.to_owned()).or_insert(value);
    }
    Ok(())
}

fn policy(file: &Path) -> Result<SourcePolicy, BuildError> {
    let failed = |e| LocalFailure::new(file, "cannot read the source policy").caused_by(e);
    let mut text = Vec::new();
    fs::File::open(file)
        .and_then(|f| f.take(SOURCE_POLICY_BYTES + 1).read_to_end(&mut text))
        .map_err(failed)?;
    if text.len() as u64 > SOURCE_POLICY_BYTES {
        let why = format!(
            "a source policy is at most {} KiB long",
            SOURCE_POLICY_BYTES / 1024
        );
        return Err(LocalFailure::new(file, why).into());
    }
    SourcePolicy::from_json(&text).map_err(|mut e| {
        e.what = file.display().to_string();
        e.into()
    })
}

/// What steps run in.
///
/// # Errors
/// A value without a meaning.
pub(super) fn steps(args: &StepArgs, request: &mut BuildRequest) -> Result<(), InputError> {
    let steps = &mut request.steps;
    for text in &args.add_hosts {
        steps.add_hosts.push(text.parse()?);
    }
    if let Some(mode) = &args.network {
        steps.network = mode.parse()?;
    }
    let bytes = |flag, text: &Option<String>| text.as_deref().map(|t| parse_bytes(flag, t)).transpose();
    steps.shm_size = bytes("--shm-size", &args.shm_size)?;
    for text in &args.ulimits {
        steps.ulimits.push(text.parse()?);
    }
    steps.cgroup_parent.clone_from(&args.cgroup_parent);
    steps.memory = bytes("--memory", &args.memory)?;
    steps.memory_swap = match args.memory_swap.as_deref() {
        Some("-1") => Some(-1),
        _ => bytes("--memory-swap", &args.memory_swap)?
            .map(|n| {
                i64::try_from(n)
                    .map_err(|_| InputError::new("--memory-swap", "this is too much", "less than 8 EiB"))
            })
            .transpose()?,
    };
    steps.cpu_shares = args.cpu_shares;
    steps.cpu_period = args.cpu_period;
    steps.cpu_quota = args.cpu_quota;
    steps.cpuset_cpus.clone_from(&args.cpuset_cpus);
    steps.cpuset_mems.clone_from(&args.cpuset_mems);
    for text in &args.allows {
        request.entitlements.insert(text.parse()?);
    }
    Ok(())
}

/// What is said about the image.
///
/// # Errors
/// A value without a meaning.
pub(super) fn statements(args: &ResultArgs, request: &mut BuildRequest) -> Result<(), InputError> {
    for text in &args.annotations {
        request.annotations.extend(Annotation::parse(text)?);
    }
    let short = [
        ("--sbom", "sbom", &args.sbom),
        ("--provenance", "provenance", &args.provenance),
    ];
    let short = short.into_iter().filter_map(|(flag, kind, value)| {
        let value = value.as_ref()?;
        Some((flag, long_form(kind, value)))
    });
    let long = args.attests.iter().map(|text| ("--attest", text.clone()));
    for (flag, text) in long.chain(short) {
        let (kind, attestation) = attestation(flag, &text)?;
        request.attestations.retain(|a| a.kind() != kind);
        request.attestations.extend(attestation);
    }
    Ok(())
}

/// What a value of `--sbom` or `--provenance` is short for.
pub(crate) fn long_form(kind: &str, value: &str) -> String {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => format!("type={kind}"),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => format!("type={kind},disabled=true"),
        fields => format!("type={kind},{fields}"),
    }
}

/// The kind that a value speaks of, and the statement unless it is turned off.
fn attestation(flag: &str, text: &str) -> Result<(&'static str, Option<Attestation>), InputError> {
    let bad = |why: String, allowed: &str| InputError::new(flag, why, allowed);
    let mut attrs: std::collections::BTreeMap<_, _> = csv::pairs(flag, text)?.into_iter().collect();
    let kind = attrs.remove("type");
    let off = match attrs.remove("disabled").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(bad(format!("`disabled={other}` is neither true nor false"), "")),
    };
    let made = match kind.as_deref() {
        Some("sbom") => Attestation::Sbom {
            generator: attrs.remove("generator"),
            attrs,
        },
        Some("provenance") => Attestation::Provenance {
            mode: match attrs.remove("mode").as_deref() {
                None => None,
                Some("min") => Some(ProvenanceMode::Min),
                Some("max" | "full") => Some(ProvenanceMode::Max),
                Some(other) => {
                    return Err(bad(
                        format!("`mode={other}` is not known"),
                        "mode=min or mode=max",
                    ));
                }
            },
            attrs,
        },
        _ => {
            let why = format!("`{text}` names no statement that there is");
            return Err(bad(
                why,
                "type=sbom or type=provenance, with parameters behind a comma",
            ));
        }
    };
    Ok((made.kind(), (!off).then_some(made)))
}

fn pair<'a>(flag: &str, text: &'a str, form: &str) -> Result<(&'a str, &'a str), InputError> {
    text.split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .ok_or_else(|| InputError::new(flag, format!("`{text}` is not {form}"), form))
}
