//! What compose files mean.

use crate::{Definition, File, Plan, Target, Variables};

fn parsed(files: &[(&str, &str)], variables: &Variables) -> Result<(Definition, Plan), String> {
    let files: Vec<_> = files.iter().map(|(name, text)| File::new(*name, *text)).collect();
    let definition = Definition::parse(&files, variables).map_err(|e| e.to_string())?;
    let plan = definition.plan(&[], &[], variables).map_err(|e| e.to_string())?;
    Ok((definition, plan))
}

fn one(text: &str) -> Target {
    let variables = Variables::new([("FROM_ENV", "e"), ("HOME", "/home/u")]);
    let (_, mut plan) =
        parsed(&[("compose.yaml", text)], &variables).unwrap_or_else(|e| panic!("{text}: {e}"));
    plan.targets.pop_first().expect("a target").1
}

fn json(target: &Target) -> serde_json::Value {
    serde_json::to_value(target).expect("JSON")
}

#[test]
fn a_section_with_everything() {
    let text = r#"
x-args: &common { A: "1", B: two }
services:
  web.front:
    image: app:${TAG:-dev}
    ports: ["${NOT_READ:?}:80"]
    environment: [OWN=o]
    build:
      context: ./dir/
      dockerfile: D.txt
      args: { <<: *common, N: 1.10, O: 0777, T: true, OWN: , FROM_ENV: , NONE: , D: $$x }
      labels: ["l=v", m]
      cache_from: [a/b, "type=registry,ref=x"]
      cache_to: [type=inline]
      secrets: [s1, { source: s2, target: /x }]
      ssh: ["k=~/k", default]
      extra_hosts: ["h:1.2.3.4", "h=::1", "i:[::2]"]
      additional_contexts: { other: "service:d.b", img: docker-image://x, d: ./sub }
      shm_size: 2gb
      ulimits: { nofile: 5, core: { soft: 1, hard: 2 } }
      network: host
      provenance: mode=max
      sbom: true
      platforms: [linux/amd64]
      pull: true
      no_cache: "false"
      target: stage
      entitlements: [security.insecure]
      x-other: 1
      x-bake: { tags: a b, platforms: [linux/arm64], output: type=docker, no-cache: true, contexts: { d: ./no, e: ./z } }
  d.b:
    build: ../db
  none: { image: x }
  empty:
secrets:
  s1: { file: ./s1 }
  s2: { environment: S2 }
"#;
    let variables = Variables::new([("FROM_ENV", "e"), ("HOME", "/home/u")]);
    let (definition, plan) = parsed(&[("compose.yaml", text)], &variables).expect("a plan");
    assert!(definition.warnings().is_empty(), "{:?}", definition.warnings());
    assert_eq!(plan.groups["default"].targets, ["d_b", "web_front"]);
    assert_eq!(
        json(&plan.targets["d_b"]),
        serde_json::json!({"context": "../db", "dockerfile": "Dockerfile"})
    );
    assert_eq!(
        json(&plan.targets["web_front"]),
        serde_json::json!({
            "attest": [{"type": "sbom"}, {"type": "provenance", "mode": "max"}],
            "context": "dir",
            "contexts": {"d": "sub", "e": "./z", "img": "docker-image://x", "other": "target:d_b"},
            "dockerfile": "D.txt",
            "args": {"A": "1", "B": "two", "D": "$x", "FROM_ENV": "e", "N": "1.1", "O": "511", "OWN": "o", "T": "true"},
            "labels": {"l": "v", "m": ""},
            "tags": ["a", "b"],
            "cache-from": [{"type": "registry", "ref": "a/b"}, {"type": "registry", "ref": "x"}],
            "cache-to": [{"type": "inline"}],
            "target": "stage",
            "secret": [{"id": "s1", "src": "s1"}, {"id": "s2", "env": "S2"}],
            "ssh": [{"id": "default"}, {"id": "k", "paths": ["/home/u/k"]}],
            "platforms": ["linux/amd64", "linux/arm64"],
            "output": [{"type": "docker"}],
            "pull": true,
            "no-cache": true,
            "network": "host",
            "shm-size": "2GiB",
            "ulimits": ["nofile=5:5", "core=1:2"],
            "entitlements": ["security.insecure", "network.host"],
            "extra-hosts": {"h": "1.2.3.4,::1", "i": "::2"},
        })
    );
}

#[test]
fn the_image_names_what_has_no_tag() {
    let text = "services: {a: {image: 'app:${TAG-dev}', build: {context: .}}}";
    assert_eq!(one(text).tags, ["app:dev"]);
    let text = "services: {a: {image: app, build: {tags: [x, x]}}}";
    assert_eq!(one(text).tags, ["x"]);
}

#[test]
fn files_are_put_one_over_the_other() {
    let base = "
services:
  a:
    image: app
    build: {args: [A=1, B=2], tags: [x], labels: {k: v}, ulimits: {nofile: 5}, extra_hosts: {h: 1.1.1.1},
            additional_contexts: {c: ./x}, secrets: [s], x-bake: {tags: [q], platforms: [x/y]}}
  b: {build: .}
secrets: {s: {environment: S}}
";
    let over = "
services:
  a:
    image: other
    build: {context: sub, args: {B: 3, C: 4}, tags: [y, x], labels: [k=w], ulimits: {nofile: {soft: 1, hard: 2}},
            extra_hosts: ['h=2.2.2.2'], additional_contexts: ['c=./y'], secrets: [{source: s}],
            x-bake: {tags: [q, r]}}
";
    let bake = r#"{"target": {"b": {"tags": ["fromjson"], "args": {"J": "1"}}, "extra": {}}}"#;
    let files = [
        ("compose.yaml", base),
        ("over.yml", over),
        ("docker-bake.json", bake),
    ];
    let (_, plan) = parsed(&files, &Variables::default()).expect("a plan");
    assert_eq!(plan.groups["default"].targets, ["a", "b"]);
    assert_eq!(
        json(&plan.targets["a"]),
        serde_json::json!({
            "context": "sub", "dockerfile": "Dockerfile",
            "contexts": {"c": "y"},
            "args": {"A": "1", "B": "3", "C": "4"},
            "labels": {"k": "w"},
            "tags": ["x", "y", "q", "r"],
            "secret": [{"id": "s", "env": "S"}],
            "platforms": ["x/y"],
            "ulimits": ["nofile=1:2"],
            "extra-hosts": {"h": "1.1.1.1,2.2.2.2"},
        })
    );
    assert_eq!(
        json(&plan.targets["b"]),
        serde_json::json!({
            "context": ".", "dockerfile": "Dockerfile", "args": {"J": "1"}, "tags": ["fromjson"],
        })
    );
}

#[test]
fn variables_come_from_the_environment_and_the_file() {
    let variables = Variables::new([("A", "env")]).dot_env(".env", "A=file\nB=file\n");
    let text = "services: {a: {build: {args: [A, B, 'C=${NO}'], target: '${NO}'}, command: $NOT_READ}}";
    let (definition, plan) = parsed(&[("compose.yaml", text)], &variables).expect("a plan");
    let args: Vec<_> = plan.targets["a"]
        .args
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(args, ["A=env", "B=file", "C="]);
    assert_eq!(
        definition.warnings(),
        ["the variable `NO` is not set; it is taken as empty"]
    );
    assert_eq!(plan.targets["a"].target, None);
}

#[test]
fn services_extend_services() {
    let text = "
services:
  top: {extends: mid, build: {args: {C: 3}, tags: [t]}}
  mid: {extends: {service: base}, image: m, build: {context: sub, args: [B=2]}}
  base: {image: b, build: {args: {A: 1, B: 1}, tags: [x]}}
";
    let (_, plan) = parsed(&[("c.yml", text)], &Variables::default()).expect("a plan");
    assert_eq!(
        json(&plan.targets["top"]),
        serde_json::json!({"context": "sub", "dockerfile": "Dockerfile", "args": {"A": "1", "B": "2", "C": "3"}, "tags": ["x", "t"]})
    );
    assert_eq!(
        json(&plan.targets["base"])["args"],
        serde_json::json!({"A": "1", "B": "1"})
    );
}

#[test]
fn what_is_left_aside_is_told() {
    let text = "services: {a: {build: {context: ., privileged: true, isolation: hyperv}}}";
    let (definition, _) = parsed(&[("c.yml", text)], &Variables::default()).expect("a plan");
    assert_eq!(
        definition.warnings(),
        [
            "c.yml: services.a.build.isolation: it has no meaning here and is left aside",
            "c.yml: services.a.build.privileged: it has no meaning here and is left aside"
        ]
    );
}

#[test]
fn errors_name_file_service_and_key() {
    for (text, said) in [
        (
            "services: {a: {build: {contxt: .}}}",
            "c.yml: services.a.build: the key `contxt` is not known; did you mean `context`?",
        ),
        (
            "services: {a: {build: {args: 1}}}",
            "c.yml: services.a.build.args: it is a number, not a list of texts",
        ),
        (
            "services: {a: {build: {tags: x}}}",
            "c.yml: services.a.build.tags: it is a text, not a list of texts",
        ),
        (
            "services: {a: {build: {context: '${A:?set A}'}}}",
            "c.yml: services.a.build.context: the variable `A` has to be set: set A",
        ),
        (
            "services: {a: {build: [.]}}",
            "c.yml: services.a.build: it is a list, not a directory or an object",
        ),
        (
            "services: {a: {extends: b}}",
            "c.yml: services.a.extends: no service is named `b`",
        ),
        (
            "services: {a: {extends: b}, b: {extends: {service: a}}}",
            "c.yml: services.a.extends: services extend each other without end: a → b → a",
        ),
        (
            "services: {a: {extends: {service: b, file: x.yml}}}",
            "c.yml: services.a.extends: services of other files cannot be extended",
        ),
        (
            "include: [x.yml]\nservices: {}",
            "c.yml: include: files that include others are not supported",
        ),
        (
            "services: {a: {build: {secrets: [s]}}}",
            "c.yml: services.a.build.secrets: no secret is named `s`",
        ),
        (
            "services: {a: {build: {secrets: [s]}}}\nsecrets: {s: {external: true}}",
            "the secret `s` is external",
        ),
        (
            "services: {a: {build: {args: [X]}, env_file: e}}",
            "c.yml: services.a.build.args.X: it has no value",
        ),
        (
            "services: {a/b: {build: .}}",
            "c.yml: services.a/b: `a/b` is not a name for a target",
        ),
        (
            "services: {a: {build: {x-bake: {tag: x}}}}",
            "x-bake: the key `tag` is not known; did you mean `tags`?",
        ),
        (
            "services: {a: {build: {shm_size: much}}}",
            "c.yml: services.a.build.shm_size: `much` is not an amount",
        ),
        ("a: [", "c.yml: it is not a compose file: line "),
        (
            "x: y",
            "c.yml: it is not a compose file: it has neither `services` nor `secrets`",
        ),
        ("target: {a: {}}", "c.yml: target: this key is one of bake files"),
        (
            "services: {a: {build: !reset null}}",
            "the tag `!reset` is not supported",
        ),
    ] {
        let e = parsed(&[("c.yml", text)], &Variables::default()).expect_err(text);
        assert!(e.starts_with(said) || e.contains(said), "{text}: {e}");
    }
}
