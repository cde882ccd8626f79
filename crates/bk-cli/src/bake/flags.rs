//! From a target to the arguments of `bk build`, and by them to its request.
//!
//! The rule: each field is one flag with its value; an error about the flag is told as one about the key.

use std::{ffi::OsString, path::Path};

use bk_bake::Target;
use bk_client::{BuildError, BuildRequest, Dockerfile, InputError, is_remote};
use clap::Parser as _;

use crate::{
    args::{Cli, Command, FileArgs, PatienceArgs},
    request::{self, Process},
};

/// The key of a bake file behind each flag.
const KEYS: [(&str, &str); 21] = [
    ("--add-host", "extra-hosts"),
    ("--allow", "entitlements"),
    ("--annotation", "annotations"),
    ("--attest", "attest"),
    ("--build-arg", "args"),
    ("--build-context", "contexts"),
    ("--cache-from", "cache-from"),
    ("--cache-to", "cache-to"),
    ("--file", "dockerfile"),
    ("--label", "labels"),
    ("--network", "network"),
    ("--no-cache-filter", "no-cache-filter"),
    ("--output", "output"),
    ("--platform", "platforms"),
    ("--secret", "secret"),
    ("--shm-size", "shm-size"),
    ("--ssh", "ssh"),
    ("--tag", "tags"),
    ("--target", "target"),
    ("--ulimit", "ulimits"),
    ("PATH", "context"),
];

/// The request of a target, without the contexts that are results of other targets. Where its own result is one of these,
/// it goes into the directory `layout` besides.
///
/// # Errors
/// A value that has no meaning, named by target and key.
pub(super) fn request(
    name: &str,
    target: &Target,
    layout: Option<&Path>,
    files: &FileArgs,
    patience: &PatienceArgs,
) -> Result<BuildRequest, BuildError> {
    let bad = |key: &str, why: &str| InputError::new(format!("target {name}: {key}"), why, "");
    if target.context.as_deref() == Some("-") {
        return Err(bad("context", "it cannot come from standard input").into());
    }
    if target.dockerfile.as_deref() == Some("-") {
        return Err(bad("dockerfile", "it cannot come from standard input").into());
    }
    let line = arguments(target, layout)?;
    let mut args = match Cli::try_parse_from(line) {
        Ok(Cli {
            command: Command::Build(args),
            ..
        }) => args,
        Ok(_) => return Err(BuildError::Misuse("a target became another command".to_owned())),
        Err(e) => {
            let why = e.render().to_string();
            let why = why
                .trim_start_matches("error: ")
                .lines()
                .next()
                .unwrap_or_default();
            return Err(InputError::new(format!("target {name}"), why, "").into());
        }
    };
    args.files = files.clone();
    args.patience = patience.clone();
    let mut request = request::request(&args, &Process).map_err(|e| match e {
        BuildError::Input(e) => of_target(name, e).into(),
        other => other,
    })?;
    if let Some(text) = &target.dockerfile_inline {
        request.dockerfile = Dockerfile::Inline(text.clone().into_bytes().into());
        request.validate().map_err(|e| of_target(name, e))?;
    }
    Ok(request)
}

/// An error about a flag as one about the key of a target.
pub(super) fn of_target(name: &str, mut error: InputError) -> InputError {
    let key = KEYS.iter().find(|(flag, _)| *flag == error.what);
    let key = key.map_or(error.what.trim_start_matches("--"), |(_, key)| key);
    error.what = format!("target {name}: {key}");
    error
}

/// What would be written behind `bk`.
fn arguments(target: &Target, layout: Option<&Path>) -> Result<Vec<OsString>, BuildError> {
    let mut line: Vec<OsString> = vec!["bk".into(), "build".into()];
    let mut add = |flag: &str, value: &str| line.push(format!("--{flag}={value}").into());
    let context = target.context.as_deref().unwrap_or(".");
    let dockerfile = target
        .dockerfile
        .as_deref()
        .filter(|_| target.dockerfile_inline.is_none());
    if let Some(path) = dockerfile_of(context, dockerfile)? {
        add("file", &path);
    }
    for (flag, map) in [
        ("build-arg", &target.args),
        ("label", &target.labels),
        ("build-context", &target.contexts),
    ] {
        for (key, value) in map {
            if flag == "build-context" && value.starts_with(RESULT) {
                continue;
            }
            let value = match flag {
                "build-context" => value.strip_prefix("cwd://").unwrap_or(value),
                _ => value,
            };
            add(flag, &format!("{key}={value}"));
        }
    }
    for (host, addresses) in &target.extra_hosts {
        for address in addresses.split(',') {
            add("add-host", &format!("{host}={address}"));
        }
    }
    for (flag, values) in [
        ("annotation", &target.annotations),
        ("tag", &target.tags),
        ("platform", &target.platforms),
        ("no-cache-filter", &target.no_cache_filter),
        ("ulimit", &target.ulimits),
        ("allow", &target.entitlements),
    ] {
        values.iter().for_each(|value| add(flag, value));
    }
    for (flag, value) in [
        ("target", &target.target),
        ("network", &target.network),
        ("shm-size", &target.shm_size),
    ] {
        value.iter().for_each(|value| add(flag, value));
    }
    target.attest.iter().for_each(|e| add("attest", &e.to_string()));
    target
        .cache_from
        .iter()
        .for_each(|e| add("cache-from", &e.to_string()));
    target
        .cache_to
        .iter()
        .for_each(|e| add("cache-to", &e.to_string()));
    let outputs = target.output.iter().map(ToString::to_string);
    match layout {
        None => outputs.for_each(|e| add("output", &e)),
        Some(dir) => {
            // What would come out by itself does not beside another output.
            let dir = csv_value(dir)?;
            let kept = match &target.output[..] {
                [] => vec!["type=image".to_owned()],
                [only] if only.kind == "cacheonly" => Vec::new(),
                _ => outputs.collect(),
            };
            kept.iter().for_each(|e| add("output", e));
            add("output", &format!("type=oci,tar=false,{dir}"));
        }
    }
    target.secret.iter().for_each(|e| add("secret", &e.to_string()));
    target.ssh.iter().for_each(|e| add("ssh", &e.to_string()));
    add(
        "no-cache",
        if target.no_cache == Some(true) {
            "true"
        } else {
            "false"
        },
    );
    add(
        "pull",
        if target.pull == Some(true) {
            "true"
        } else {
            "false"
        },
    );
    line.extend(["--".into(), context.into()]);
    Ok(line)
}

/// `dest=DIR` as a field of an output.
fn csv_value(dir: &Path) -> Result<String, BuildError> {
    let text = dir.to_str().ok_or_else(|| {
        let why = format!("`{}` is not UTF-8", dir.display());
        InputError::new("TMPDIR", why, "")
    })?;
    Ok(format!("\"dest={}\"", text.replace('"', "\"\"")))
}

/// How a context begins that is the result of another target.
const RESULT: &str = "target:";

/// The contexts of a target that are results of others: their names, and the names of those targets.
pub(super) fn uses(target: &Target) -> Vec<(String, String)> {
    let contexts = target.contexts.iter();
    contexts
        .filter_map(|(key, value)| Some((key.clone(), value.strip_prefix(RESULT)?.to_owned())))
        .collect()
}

/// A Dockerfile is meant relative to its context; `bk build` takes it relative to the current directory. The usual one is
/// found without being named.
fn dockerfile_of(context: &str, dockerfile: Option<&str>) -> Result<Option<String>, BuildError> {
    let Some(path) = dockerfile.filter(|path| *path != "Dockerfile") else {
        return Ok(None);
    };
    let utf8 = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| {
            let why = format!("`{}` is not UTF-8", path.display());
            BuildError::from(InputError::new("dockerfile", why, ""))
        })
    };
    if let Some(here) = path.strip_prefix("cwd://") {
        // Absolute, since a relative one would lie in what is fetched.
        let here = std::path::absolute(here)
            .map_err(|e| bk_client::LocalFailure::new(here, "cannot be found from here").caused_by(e))?;
        return utf8(&here).map(Some);
    }
    match is_remote(context) {
        true => Ok(Some(path.to_owned())),
        false => utf8(&Path::new(context).join(path)).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use bk_bake::{Definition, File, Variables};

    use super::*;

    fn target(text: &str) -> Target {
        let file = File::new("b.json", format!(r#"{{"target": {{"t": {text}}}}}"#));
        let variables = Variables::default();
        let definition = Definition::parse(&[file], &variables).expect("a definition");
        let mut plan = definition.plan(&["t"], &[], &variables).expect("a plan");
        plan.targets.remove("t").expect("the target")
    }

    #[test]
    fn every_field_is_a_flag() {
        let text = r#"{"context": "dir", "dockerfile": "sub/D", "args": {"A": "-1", "B": "x=y"}, "labels": {"l": "v"},
            "contexts": {"c": "cwd://./d", "i": "docker-image://x"}, "extra-hosts": {"h": "1.1.1.1,::2"}, "annotations": ["a=b"],
            "tags": ["t:1"], "platforms": ["linux/amd64"], "no-cache-filter": ["s"], "ulimits": ["nofile=1:2"],
            "network": "host", "target": "stage", "shm-size": "64m", "attest": [{"type": "sbom", "generator": "h/i"}],
            "cache-from": ["u/v"], "cache-to": ["type=inline"], "output": [{"type": "image", "name": "a,b"}],
            "secret": ["id=a,src=f"], "ssh": ["k=a,b"], "no-cache": true, "pull": false}"#;
        let line = arguments(&target(text), None).expect("arguments");
        let line: Vec<_> = line.iter().map(|a| a.to_str().expect("UTF-8")).collect();
        assert_eq!(
            line,
            [
                "bk",
                "build",
                "--file=dir/sub/D",
                "--build-arg=A=-1",
                "--build-arg=B=x=y",
                "--label=l=v",
                "--build-context=c=./d",
                "--build-context=i=docker-image://x",
                "--add-host=h=1.1.1.1",
                "--add-host=h=::2",
                "--annotation=a=b",
                "--tag=t:1",
                "--platform=linux/amd64",
                "--no-cache-filter=s",
                "--ulimit=nofile=1:2",
                "--allow=network.host",
                "--target=stage",
                "--network=host",
                "--shm-size=64m",
                "--attest=type=sbom,generator=h/i",
                "--cache-from=type=registry,ref=u/v",
                "--cache-to=type=inline",
                "--output=type=image,\"name=a,b\"",
                "--secret=id=a,src=f",
                "--ssh=k=a,b",
                "--no-cache=true",
                "--pull=false",
                "--",
                "dir"
            ]
        );
        assert!(Cli::try_parse_from(line).is_ok());
    }

    #[test]
    fn a_result_that_others_use_goes_into_a_layout_besides() {
        let outputs = |text: &str| {
            let line = arguments(&target(text), Some(Path::new("/tmp/a,\"b"))).expect("arguments");
            let line = line.iter().map(|a| a.to_str().expect("UTF-8"));
            let outputs: Vec<_> = line
                .filter_map(|a| a.strip_prefix("--output="))
                .map(str::to_owned)
                .collect();
            outputs
        };
        let layout = r#"type=oci,tar=false,"dest=/tmp/a,""b""#;
        assert_eq!(outputs("{}"), ["type=image", layout]);
        assert_eq!(outputs(r#"{"output": ["type=cacheonly"]}"#), [layout]);
        assert_eq!(outputs(r#"{"output": ["type=docker"]}"#), ["type=docker", layout]);
        let user = target(r#"{"contexts": {"a": "docker-image://x"}}"#);
        assert!(uses(&user).is_empty());
    }

    #[test]
    fn dockerfiles_are_meant_from_their_context() {
        let cwd = std::env::current_dir().expect("a directory");
        let here = cwd.join("D");
        for (context, dockerfile, expected) in [
            ("dir", Some("Dockerfile"), None),
            ("dir", None, None),
            (".", Some("D"), Some("./D")),
            ("dir", Some("/abs/D"), Some("/abs/D")),
            ("https://h/r.git", Some("sub/D"), Some("sub/D")),
            ("https://h/r.git", Some("cwd://D"), here.to_str()),
        ] {
            let found = dockerfile_of(context, dockerfile).expect("UTF-8");
            assert_eq!(found.as_deref(), expected, "{context} {dockerfile:?}");
        }
    }

    #[test]
    fn errors_name_the_key() {
        let files = || {
            let Command::Build(args) = Cli::try_parse_from(["bk", "build", "."])
                .expect("arguments")
                .command
            else {
                panic!("not a build");
            };
            (args.files, args.patience)
        };
        let (files, patience) = files();
        for (text, said) in [
            (
                r#"{"tags": ["UPPER"]}"#,
                "target t: tags: `UPPER`: a name must be lower case",
            ),
            (
                r#"{"context": "no/such/dir"}"#,
                "target t: context: `no/such/dir` does not exist",
            ),
            (
                r#"{"platforms": ["a b"]}"#,
                "target t: platforms: `a b` is not a platform",
            ),
            (
                r#"{"output": ["type=zip"]}"#,
                "target t: output: type `zip` is not known",
            ),
            (
                r#"{"context": "-"}"#,
                "target t: context: it cannot come from standard input",
            ),
        ] {
            let e = request("t", &target(text), None, &files, &patience).expect_err(text);
            assert_eq!(e.to_string(), said);
        }
        let inline = request(
            "t",
            &target(r#"{"dockerfile-inline": "FROM scratch"}"#),
            None,
            &files,
            &patience,
        )
        .expect("a request");
        assert!(matches!(inline.dockerfile, Dockerfile::Inline(_)));
    }
}
