//! `bk bake` without a daemon: what files mean, what is printed, what is refused, and that `docker buildx bake --print` says
//! the same.

use std::{env, fs, path::Path, process::Command};

use bk_testkit::live::say;
use serde_json::Value;

use super::{Ran, bk, run};

/// A directory with these files.
pub(crate) fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("writable");
        fs::write(path, text).expect("writable");
    }
    dir
}

/// `bk bake` in a directory.
pub(crate) fn bake(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = bk(&["--addr", "unix:///nonexistent.sock", "bake"]);
    command.args(arguments).current_dir(dir);
    command
}

fn printed(dir: &Path, arguments: &[&str]) -> Value {
    let ran = run(bake(dir, &["--print"]).args(arguments));
    assert_eq!((ran.code, &*ran.err), (Some(0), ""), "{arguments:?}");
    serde_json::from_str(&ran.out).expect("JSON")
}

#[test]
fn files_of_the_usual_names_are_put_together() {
    let dir = dir(&[
        (
            "compose.yaml",
            "services: {web: {image: w, build: .}, db: {build: {args: [A, B]}}}",
        ),
        (".env", "A=file\nB=file\n"),
        (
            "docker-bake.json",
            r#"{"target": {"web": {"tags": ["${TAG}"]}}, "variable": {"TAG": {"default": "x"}}}"#,
        ),
        (
            "docker-bake.override.json",
            r#"{"target": {"web": {"labels": {"l": "v"}}}}"#,
        ),
    ]);
    let mut command = bake(dir.path(), &["--print"]);
    let ran = run(command
        .env("TAG", "y")
        .env("B", "own")
        .env("SOURCE_DATE_EPOCH", "7"));
    assert_eq!((ran.code, &*ran.err), (Some(0), ""));
    assert_eq!(
        ran.out,
        r#"{
  "group": {
    "default": {
      "targets": [
        "db",
        "web"
      ]
    }
  },
  "target": {
    "db": {
      "context": ".",
      "dockerfile": "Dockerfile",
      "args": {
        "A": "file",
        "B": "own",
        "SOURCE_DATE_EPOCH": "7"
      }
    },
    "web": {
      "context": ".",
      "dockerfile": "Dockerfile",
      "args": {
        "SOURCE_DATE_EPOCH": "7"
      },
      "labels": {
        "l": "v"
      },
      "tags": [
        "y"
      ]
    }
  }
}
"#
    );
    // What was printed is a file that means the same.
    let flat = dir.path().join("flat.json");
    fs::write(&flat, &ran.out).expect("writable");
    let again = run(&mut bake(dir.path(), &["-f", "flat.json", "--print"]));
    assert_eq!(again.out, ran.out);
    // And so it does on standard input.
    let stdin = fs::File::open(&flat).expect("readable");
    assert_eq!(
        run(bake(dir.path(), &["-f", "-", "--print"]).stdin(stdin)).out,
        ran.out
    );
}

#[test]
fn flags_are_short_for_overrides() {
    let text = r#"{"target": {"a": {"output": ["type=image"]}, "b": {}}}"#;
    let dir = dir(&[("docker-bake.json", text)]);
    let all = [
        "a",
        "--push",
        "--load",
        "--no-cache",
        "--pull=false",
        "--sbom=true",
        "--provenance=mode=max",
        "--set=*.args.X=1",
    ];
    assert_eq!(
        printed(dir.path(), &all)["target"],
        serde_json::json!({"a": {
            "attest": [{"type": "sbom"}, {"type": "provenance", "mode": "max"}],
            "context": ".", "dockerfile": "Dockerfile", "args": {"X": "1"},
            "output": [{"type": "image", "push": "true"}, {"type": "docker"}],
            "pull": false, "no-cache": true,
        }})
    );
    assert_eq!(
        printed(dir.path(), &["b", "--check"])["target"]["b"]["call"],
        "lint"
    );
}

#[test]
fn targets_and_variables_are_listed() {
    let text = r#"{"variable": {"V": {"default": "1", "description": "what"}, "W": {"type": "number"}},
                   "group": {"default": {"targets": ["a"]}}, "target": {"a": {"description": "An app"}, "_b": {}}}"#;
    let dir = dir(&[("docker-bake.json", text)]);
    let listed = |what: &str| {
        let ran = run(&mut bake(dir.path(), &["--list", what]));
        assert_eq!((ran.code, &*ran.err), (Some(0), ""), "{what}");
        ran.out
    };
    assert_eq!(
        listed("targets"),
        "TARGET   DESCRIPTION\na        An app\ndefault  a\n"
    );
    assert_eq!(
        listed("variables"),
        "VARIABLE  TYPE    VALUE   DESCRIPTION\nV                 1       what\nW         number  <null>\n"
    );
    assert_eq!(
        serde_json::from_str::<Value>(&listed("type=targets,format=json")).expect("JSON"),
        serde_json::json!([{"name": "a", "description": "An app"}, {"name": "default", "description": "a", "group": true}])
    );
    let ran = run(&mut bake(dir.path(), &["--list", "builders"]));
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.err
            .starts_with("ERROR: --list: `builders` cannot be listed\n"),
        "{}",
        ran.err
    );
}

/// Files, arguments, and how the error begins.
type Refusal<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], &'a str);

#[test]
fn what_cannot_be_built_is_named_before_any_daemon_is_asked() {
    let cases: &[Refusal<'_>] = &[
        (
            &[],
            &[],
            "ERROR: --file: none is here: compose.yaml, compose.yml, ",
        ),
        (
            &[],
            &["-f", "no.json"],
            "ERROR: --file: `no.json` does not exist\n",
        ),
        (
            &[("b.hcl", "")],
            &["-f", "b.hcl"],
            "ERROR: b.hcl: HCL is not supported\n  hint: b.hcl takes JSON: `docker buildx bake --print",
        ),
        (
            &[("docker-bake.hcl", ""), ("compose.yaml", "services: {}")],
            &[],
            "ERROR: docker-bake.hcl: HCL is not supported, and without this file the definition is not complete\n",
        ),
        (
            &[("docker-bake.json", "{}")],
            &[],
            "ERROR: TARGET: no target or group is named `default`; none is defined\n",
        ),
        (
            &[(
                "docker-bake.json",
                r#"{"target": {"default": {"tags": ["A B"]}}}"#,
            )],
            &[],
            "ERROR: target default: tags: `A B`: ",
        ),
        (
            &[(
                "docker-bake.json",
                r#"{"target": {"default": {"dockerfile": "no/such"}}}"#,
            )],
            &["--jobs", "0"],
            "ERROR: --jobs: no build could ever begin\n",
        ),
        (
            &[(
                "docker-bake.json",
                r#"{"target": {"default": {"contexts": {"x": "target:b"}}, "b": {}}}"#,
            )],
            &["--check"],
            "ERROR: target default: contexts.x: `target:b`: a target that uses the result of another one can \
             only be built\n",
        ),
        (
            &[(
                "docker-bake.json",
                r#"{"target": {"default": {"context": "..", "network": "host"}}}"#,
            )],
            &["--allow", "network.host"],
            "ERROR: bk bake: the targets want more than they may: fs.read=/",
        ),
        (
            &[(
                "docker-bake.json",
                r#"{"target": {"a": {"output": ["-"]}, "b": {"output": ["-"]}}}"#,
            )],
            &["a", "b"],
            "ERROR: output: only one result can go to standard output, not those of a and b\n",
        ),
        (
            &[],
            &["https://h/r.git"],
            "ERROR: TARGET: `https://h/r.git`: definitions are not fetched\n",
        ),
        (&[], &["--call", "x y"], "ERROR: --call: "),
        (
            &[],
            &["--allow", "x"],
            "ERROR: --allow: `x` is nothing that can be allowed\n",
        ),
        (
            &[(".env", "A")],
            &["-f", "https://h/r.git"],
            "ERROR: --file: `https://h/r.git`: definitions are not fetched\n",
        ),
    ];
    for (files, arguments, said) in cases {
        let dir = dir(files);
        let ran = run(&mut bake(dir.path(), arguments));
        assert_eq!((ran.code, &*ran.out), (Some(2), ""), "{said}: {}", ran.err);
        assert!(ran.err.starts_with(said), "{said}: {}", ran.err);
    }
}

#[test]
fn an_allowed_directory_may_be_read() {
    let dir = dir(&[
        (
            "in/docker-bake.json",
            r#"{"target": {"default": {"context": ".."}}}"#,
        ),
        ("Dockerfile", ""),
    ]);
    let ran = run(&mut bake(&dir.path().join("in"), &["--allow", "fs.read=.."]));
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.starts_with("ERROR: cannot reach a daemon"), "{}", ran.err);
}

#[test]
fn variables_of_other_tools_name_files_and_permit_paths() {
    let dir = dir(&[
        ("in/x.json", r#"{"target": {"default": {"context": ".."}}}"#),
        ("in/y.json", r#"{"target": {"default": {"tags": ["y"]}}}"#),
        ("Dockerfile", ""),
    ]);
    let place = dir.path().join("in");
    let with = |arguments: &[&str], variables: &[(&str, &str)]| {
        run(bake(&place, arguments).envs(variables.iter().copied()))
    };
    let files = ("BUILDX_BAKE_FILE", "x.json:y.json");
    let ran = with(&["--print"], &[files]);
    assert!(ran.code == Some(0) && ran.out.contains("\"y\""), "{}", said(&ran));
    let ran = with(
        &[],
        &[
            ("BUILDX_BAKE_FILE", "x.json;y.json"),
            ("BUILDX_BAKE_PATH_SEPARATOR", ";"),
        ],
    );
    assert!(
        ran.err.starts_with("ERROR: bk bake: the targets want more"),
        "{}",
        said(&ran)
    );
    let ran = with(&[], &[files, ("BUILDX_BAKE_ENTITLEMENTS_FS", "0")]);
    assert!(
        ran.err.starts_with("ERROR: cannot reach a daemon"),
        "{}",
        said(&ran)
    );
    let ran = with(&[], &[files, ("BUILDX_BAKE_ENTITLEMENTS_FS", "maybe")]);
    assert_eq!(ran.code, Some(2), "{}", said(&ran));
}

/// Files, and arguments.
type Same<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);

/// What both programs must read the same.
const SAME: &[Same<'_>] = &[
    (
        &[(
            "docker-bake.json",
            r#"{"variable": {"N": {"default": 1}, "B": {"default": true}, "TAG": {"default": "t"}, "Z": {"default": "${TAG}-${N}"},
                "L": {"type": "list(string)", "default": ["x", "y"]}, "U": {}},
              "target": {
                "base": {"args": {"A": "1", "X": "a"}, "platforms": ["linux/amd64"], "cache-from": ["u/v"], "labels": {"a": "<b>"}},
                "default": {"inherits": ["base"], "args": {"X": "b", "N": "${N}", "B": "${B}", "Z": "${Z}", "U": "u${U}",
                    "C": "${BAKE_CMD_CONTEXT}", "P": "${BAKE_LOCAL_PLATFORM}", "E": "$${ENV} %%{x} $x $$", "F": 1.10, "NULL": null},
                  "tags": "${L}", "context": "./a/../b/", "dockerfile": "sub/D", "contexts": {"x": "target:o", "y": "./q"},
                  "output": ["type=image,push=true", "out"], "cache-to": ["type=inline"],
                  "attest": ["type=sbom", "type=provenance,mode=max", {"type": "sbom", "disabled": true}], "no-cache": true,
                  "pull": "true", "network": "host", "shm-size": "64m", "ulimits": ["nofile=1:2"], "extra-hosts": {"h": "1.2.3.4"},
                  "call": "build", "description": "d", "annotations": ["a=b", "a=b"], "no-cache-filter": ["x"],
                  "entitlements": ["security.insecure"], "cache-from": [{"type": "registry", "ref": "q"}], "target": "s"},
                "o": {"dockerfile-inline": "FROM scratch\n# ${TAG} $${X}", "context": "cwd://zz", "tags": ["t"], "output": ["type=image"]}}}"#,
        )],
        &[],
    ),
    (
        &[(
            "docker-bake.json",
            r#"{"group": {"default": {"targets": ["m", "g"]}, "g": {"description": "gd", "targets": ["b", "a"]}},
                "target": {"a": {}, "b": {"inherits": ["a"]}, "m": {"name": "m-${i.n}", "matrix": {"i": [{"n": "x", "t": ["q"]},
                {"n": "y", "t": []}]}, "tags": "${i.t}", "args": {"${i.n}": "k"}}}}"#,
        )],
        &[],
    ),
    (
        &[(
            "docker-bake.json",
            r#"{"target": {"a": {"tags": ["a"], "output": ["type=image"]}, "b": {"output": ["type=tar,dest=x"]},
             "c": {}, "d": {"output": ["type=docker"]}, "e": {"output": ["type=registry"]}}}"#,
        )],
        &[
            "*",
            "--load",
            "--push",
            "--sbom=true",
            "--provenance=mode=max",
            "--no-cache",
            "--call=check",
            "--set=a.tags=x",
            "--set=a.tags=y",
            "--set=*.platform+=linux/arm64",
            "--set=a.args.Q=1=2",
            "--set=[bc].labels.a.b=1",
            "--set=c.contexts.w=./q/",
            "--set=c.pull=true",
            "--set=c.annotations=k=v",
            "--set=c.args.NOT_THERE",
        ],
    ),
    (
        &[
            (
                "docker-bake.json",
                r#"{"variable": {"V": {"default": "1"}}, "group": {"default": {"targets": ["t", "u"]}},
                "target": {"t": {"tags": ["x"], "args": {"A": "${V}"}}, "u": {}}}"#,
            ),
            (
                "docker-bake.override.json",
                r#"{"variable": {"V": {"default": "2"}}, "group": {"default": {"targets": ["t"]}},
                "target": {"t": {"tags": ["y"], "args": {"B": "${V}"}}}}"#,
            ),
            (
                "compose.yml",
                "services: {t: {image: i, build: {args: {C: 3}}}, w: {build: ./w/}}",
            ),
        ],
        &[],
    ),
    (
        &[
            (
                "compose.yaml",
                r#"
x-common: &common { A: "1", B: two }
services:
  web.front:
    image: app:${TAG:-dev}
    environment: { OWN: o }
    ports: ["80:80"]
    build:
      context: ./dir/
      dockerfile: D.txt
      args: { <<: *common, N: 1.10, O: 0777, T: true, OWN: , FROM_FILE: , NONE: , D: $$x }
      labels: ["l=v", m]
      tags: [t1, "${NO-t2}"]
      cache_from: [a/b, "type=registry,ref=x"]
      secrets: [{ source: s2, target: /x }]
      extra_hosts: ["h:1.2.3.4", "h=2.2.2.2"]
      additional_contexts: { other: "service:d.b", img: docker-image://x, d: ./sub }
      shm_size: 2gb
      ulimits: { core: { soft: 1, hard: 2 } }
      network: host
      provenance: mode=max
      sbom: true
      platforms: [linux/amd64]
      pull: true
      no_cache: false
      target: stage
      x-bake: { tags: a b, platforms: linux/arm64, output: type=docker, no-cache-filter: [q], contexts: { d: ./no, e: ./z } }
  d.b: { build: ../db }
  none: { image: x }
secrets: { s2: { environment: PATH } }
"#,
            ),
            (".env", "FROM_FILE=f\n"),
        ],
        &[],
    ),
    (
        &[
            (
                "a.yaml",
                "services: {a: {image: app, build: {args: [A=1, B=2], tags: [x], labels: {k: v}, extra_hosts: {h: 1.1.1.1}, \
                additional_contexts: {c: ./x}, x-bake: {tags: [q], platforms: [x/y]}}}, b: {build: .}}",
            ),
            (
                "b.yaml",
                "services: {a: {image: other, build: {context: sub, args: {B: 3, C: 4}, tags: [y, x], labels: [k=w], \
                extra_hosts: ['h=2.2.2.2'], additional_contexts: ['c=./y'], x-bake: {tags: [q, r]}}}}",
            ),
        ],
        &["-f", "a.yaml", "-f", "b.yaml"],
    ),
    (
        &[(
            "compose.yml",
            "services: {top: {extends: mid, build: {args: {C: 3}, tags: [t]}}, mid: {extends: {service: base}, image: m, \
             build: {context: sub, args: [B=2]}}, base: {image: b, build: {context: ., args: {A: 1, B: 1}, tags: [x]}}}",
        )],
        &[],
    ),
    (
        &[(
            "docker-bake.json",
            r#"{"group": {"default": {"targets": ["a"]}}, "target": {"a": {"context": "https://h/r.git#b:d", "dockerfile": "./q/../D",
                "cache-from": ["type=gha,scope=x", "a/b,c/d"], "contexts": {"x": "docker-image://y", "z": "oci-layout://l:1"}},
                "b": [{"tags": ["x"]}, {"args": {"A": "1"}}]}}"#,
        )],
        &["a", "b"],
    ),
];

/// Lists whose order the other program leaves to chance.
fn sorted(mut value: Value) -> Value {
    for (kind, list) in [("group", "targets"), ("target", "output")] {
        let blocks = value[kind].as_object_mut().into_iter().flatten();
        for items in blocks.filter_map(|(_, block)| block.get_mut(list)?.as_array_mut()) {
            items.sort_by_key(Value::to_string);
        }
    }
    value
}

#[test]
fn docker_buildx_bake_prints_the_same() {
    let variable = |name| env::var(name).ok().filter(|v| !v.is_empty());
    let (Some(program), Some(config)) = (
        variable("BK_LIVE_DOCKER_CLI"),
        variable("BK_LIVE_DOCKER_CLI_CONFIG"),
    ) else {
        assert!(
            variable("BK_LIVE_REQUIRED").is_none(),
            "BK_LIVE_DOCKER_CLI is not set"
        );
        say("NOT RUN: bake::docker_buildx_bake_prints_the_same: BK_LIVE_DOCKER_CLI is not set");
        return;
    };
    for (files, arguments) in SAME {
        let dir = dir(files);
        let theirs = run(Command::new(&program)
            .args(["buildx", "bake", "--print"])
            .args(*arguments)
            .env("DOCKER_CONFIG", &config)
            .env("DOCKER_HOST", "unix:///nonexistent")
            .current_dir(dir.path()));
        assert_eq!(theirs.code, Some(0), "{}", theirs.err);
        let theirs: Value = serde_json::from_str(&theirs.out).expect("JSON");
        let ours = printed(dir.path(), arguments);
        assert_eq!(sorted(ours), sorted(theirs), "{files:?}");
    }
}

/// For the other files of these tests.
pub(crate) fn said(ran: &Ran) -> String {
    format!("{:?}: {}{}", ran.code, ran.out, ran.err)
}
