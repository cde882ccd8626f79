//! What bake files mean: inheritance, groups, matrices, variables, overrides.

use serde_json::{Value, json};

use crate::{Definition, File, Plan, Variables};

fn variables() -> Variables {
    Variables::new([
        ("ENV", "e"),
        ("TAG", "env"),
        ("N", "12"),
        ("BAD", "x"),
        ("LIST", "a,\"b,c\""),
        ("OBJ_JSON", r#"{"k":"v"}"#),
    ])
    .built_in("BAKE_LOCAL_PLATFORM", "linux/amd64")
}

fn read(texts: &[&str]) -> Result<Definition, String> {
    let names = ["a.json", "b.json", "c.json"];
    let files: Vec<_> = names.iter().zip(texts).map(|(n, t)| File::new(*n, *t)).collect();
    Definition::parse(&files, &variables()).map_err(|e| e.to_string())
}

fn plan(texts: &[&str], names: &[&str], overrides: &[&str]) -> Result<Plan, String> {
    let definition = read(texts)?;
    definition
        .plan(names, overrides, &variables())
        .map_err(|e| e.to_string())
}

fn shown(text: &str, names: &[&str], overrides: &[&str]) -> Value {
    let plan = plan(&[text], names, overrides).unwrap_or_else(|e| panic!("{text}: {e}"));
    serde_json::from_str(&plan.to_json()).expect("JSON")
}

/// The one target of a plan, without what every target has.
fn target(text: &str, overrides: &[&str]) -> Value {
    let mut all = shown(text, &["t"], overrides);
    let mut target = all["target"]["t"].take();
    if let Some(target) = target.as_object_mut() {
        target.remove("context");
        target.remove("dockerfile");
    }
    target
}

#[test]
fn parents_go_first_and_fields_merge_as_documented() {
    let text = r#"{"target": {
        "a": {"tags": ["a"], "args": {"A": "1", "X": "a"}, "platforms": ["x/y"], "cache-from": ["u"], "cache-to": ["u"],
              "output": ["type=image"], "no-cache-filter": ["f"], "attest": ["type=sbom"], "secret": ["id=s,env=A"]},
        "b": {"args": {"X": "b"}, "tags": ["b", "b"], "labels": {"l": "b"}, "cache-to": ["v"], "no-cache-filter": ["f", "g"],
              "attest": ["type=sbom,disabled=true"], "secret": ["id=s,env=B"]},
        "t": {"inherits": ["a", "b"], "args": {"C": "3"}, "cache-from": ["z", "u"], "platforms": [], "contexts": {"gone": ""}}
    }}"#;
    assert_eq!(
        target(text, &[]),
        json!({
            "args": {"A": "1", "C": "3", "X": "b"}, "attest": [{"type": "sbom", "disabled": true}],
            "cache-from": [{"type": "registry", "ref": "u"}, {"type": "registry", "ref": "z"}],
            "cache-to": [{"type": "registry", "ref": "v"}], "labels": {"l": "b"}, "no-cache-filter": ["f", "g"],
            "output": [{"type": "image"}], "secret": [{"id": "s", "env": "B"}], "tags": ["b"],
        })
    );
}

#[test]
fn a_later_file_goes_over_an_earlier_one() {
    let base = r#"{"variable": {"V": {"default": "1"}}, "group": {"default": {"targets": ["t", "u"]}},
                   "target": {"t": {"tags": ["x"], "args": {"A": "${V}"}}, "u": {}}}"#;
    let over = r#"{"variable": {"V": {"default": "2"}}, "group": {"default": {"targets": ["t"]}},
                   "target": {"t": {"tags": ["y"], "args": {"B": "${V}"}}}}"#;
    let plan = plan(&[base, over], &[], &[]).expect("a plan");
    assert_eq!(plan.targets.keys().collect::<Vec<_>>(), ["t"]);
    let t = &plan.targets["t"];
    assert_eq!(
        (&t.tags[..], &*t.args["A"], &*t.args["B"]),
        (&["y".to_owned()][..], "2", "2")
    );
}

#[test]
fn groups_hold_groups_and_names_may_be_patterns() {
    let text = r#"{"group": {"default": {"targets": ["b", "g", "b"]}, "g": {"description": "gd", "targets": ["a", "g"]}},
                   "target": {"a": {}, "b": {}, "c-1": {}, "c-2": {}, "_p": {}}}"#;
    let names = |asked: &[&str]| -> (Vec<String>, Value) {
        let all = shown(text, asked, &[]);
        let targets = all["target"].as_object().expect("targets");
        (targets.keys().cloned().collect(), all["group"].clone())
    };
    let group = json!({"description": "gd", "targets": ["a", "g"]});
    assert_eq!(
        names(&[]),
        (
            vec!["a".to_owned(), "b".to_owned()],
            json!({"default": {"targets": ["b", "g"]}, "g": group})
        )
    );
    assert_eq!(
        names(&["g", "c-*"]),
        (
            vec!["a".to_owned(), "c-1".to_owned(), "c-2".to_owned()],
            json!({"default": {"targets": ["c-1", "c-2", "g"]}, "g": group})
        )
    );
    let listed: Vec<_> = read(&[text])
        .expect("a definition")
        .listed()
        .into_iter()
        .map(|l| format!("{} {} {}", l.name, l.group, l.description))
        .collect();
    let expected = [
        "a false ",
        "b false ",
        "c-1 false ",
        "c-2 false ",
        "default true b, g",
        "g true gd (a, g)",
    ];
    assert_eq!(listed, expected);
}

#[test]
fn a_matrix_makes_targets_and_a_group() {
    let text = r#"{"target": {"t": {"name": "t-${i.n}-${v}", "matrix": {"i": [{"n": "x", "tags": ["q", "r"]}, {"n": "y", "tags": []}],
                   "v": [1, "2"]}, "tags": "${i.tags}", "args": {"V": "${v}", "${i.n}": "key"}}}}"#;
    let mut all = shown(text, &["t"], &["t-x-*.labels.l=1"]);
    let members = all["group"]["t"]["targets"].take();
    assert_eq!(members, json!(["t-x-1", "t-y-1", "t-x-2", "t-y-2"]));
    assert_eq!(
        all["target"]["t-x-2"],
        json!({"context": ".", "dockerfile": "Dockerfile", "tags": ["q", "r"], "args": {"V": "2", "x": "key"}, "labels": {"l": "1"}})
    );
    assert_eq!(
        all["target"]["t-y-1"],
        json!({"context": ".", "dockerfile": "Dockerfile", "args": {"V": "1", "y": "key"}})
    );
}

#[test]
fn variables_have_defaults_types_and_an_environment() {
    let text = r#"{"variable": {
        "TAG": {"default": "t"}, "N": {"default": 1}, "B": {"default": true}, "U": {}, "Z": {"default": "${TAG}-${N}-${own}"},
        "LIST": {"type": "list(string)", "default": ["x"], "description": "d"}, "OBJ": {"type": "object({k=string})"},
        "OBJ2": {"default": {"k": [1]}}, "T": {"type": "string"}
      }, "own": "o", "target": {"t": {"tags": "${LIST}", "args": {"N": "${N}", "B": "${B}", "U": "u${U}", "Z": "${Z}",
        "C": "${BAKE_CMD_CONTEXT}", "P": "${BAKE_LOCAL_PLATFORM}", "O": "${OBJ.k}${OBJ2.k[0]}", "E": "$${ENV}", "NULL": null}}}}"#;
    let shown = target(text, &[]);
    assert_eq!(
        shown,
        json!({"tags": ["a", "b,c"], "args": {"N": "12", "B": "true", "U": "u", "Z": "env-12-o", "C": "cwd://",
               "P": "linux/amd64", "O": "v1", "E": "$${ENV}"}})
    );
    let listed: Vec<_> = read(&[text])
        .expect("a definition")
        .variables()
        .iter()
        .map(|v| serde_json::to_string(v).expect("JSON"))
        .collect();
    assert_eq!(
        listed,
        [
            r#"{"name":"B","value":"true"}"#,
            r#"{"name":"LIST","description":"d","type":"list of string","value":"[\"a\",\"b,c\"]"}"#,
            r#"{"name":"N","value":"12"}"#,
            r#"{"name":"OBJ","type":"object of {k=string}","value":"{\"k\":\"v\"}"}"#,
            r#"{"name":"OBJ2","value":"{\"k\":[1]}"}"#,
            r#"{"name":"T","type":"string"}"#,
            r#"{"name":"TAG","value":"env"}"#,
            r#"{"name":"U","value":""}"#,
            r#"{"name":"Z","value":"env-12-o"}"#,
        ]
    );
    let debug = format!("{:?}", Variables::new([("SECRET", "s3cret")]));
    assert!(!debug.contains("s3cret"), "{debug}");
}

#[test]
fn overrides_go_over_everything() {
    let text = r#"{"target": {"p": {"tags": ["p"]}, "t": {"inherits": ["p"], "platforms": ["x/y"], "output": ["type=image"],
                   "ulimits": ["a=1"], "attest": ["type=sbom"]}, "u": {}}}"#;
    let overrides = [
        "t.tags=x",
        "t.tags=y",
        "*.platform+=linux/arm64",
        "t.args.Q=1=2",
        "t.args.ENV",
        "t.args.NOT_THERE",
        "t.labels.a.b=c",
        "t.contexts.w=./q/",
        "t.context=./sub/../dir/",
        "t.dockerfile=D",
        "t.target=s",
        "t.no-cache=1",
        "t.pull=false",
        "t.network=host",
        "t.annotations=k=v",
        "t.attest=type=provenance,mode=max",
        "t.secrets=id=a,env=B",
        "t.ssh=default",
        "t.cache-from=a/b",
        "t.no-cache-filter=s",
        "t.ulimits+=b=2",
        "t.shm-size=1g",
        "t.extra-hosts.h=1.2.3.4",
        "t.call=check",
        "t.entitlements=security.insecure",
        "*.push=true",
        "*.load=true",
    ];
    let mut all = shown(text, &["t"], &overrides);
    assert_eq!(
        all["target"]["t"].take(),
        json!({
            "annotations": ["k=v"], "attest": [{"type": "sbom"}, {"type": "provenance", "mode": "max"}], "context": "dir",
            "contexts": {"w": "./q/"}, "dockerfile": "D", "args": {"Q": "1=2", "ENV": "e"}, "labels": {"a.b": "c"},
            "tags": ["x", "y"], "cache-from": [{"type": "registry", "ref": "a/b"}], "target": "s",
            "secret": [{"id": "a", "env": "B"}], "ssh": [{"id": "default"}], "platforms": ["x/y", "linux/arm64"],
            "output": [{"type": "image", "push": "true"}, {"type": "docker"}], "pull": false, "no-cache": true,
            "network": "host", "no-cache-filter": ["s"], "shm-size": "1g", "ulimits": ["a=1", "b=2"], "call": "check",
            "entitlements": ["security.insecure", "network.host"], "extra-hosts": {"h": "1.2.3.4"},
        })
    );
    // What is put over a parent is inherited.
    assert_eq!(target(text, &["p.tags=q"])["tags"], json!(["q"]));
    for (overrides, said) in [
        ("t", "--set: `t`: no key is named"),
        ("t.tags", "--set: `t.tags`: no value is named"),
        ("t.args=1", "this key takes a name behind it"),
        ("t.tags.x=1", "this key takes no name behind it"),
        (
            "t.platforms=x",
            "the key `platforms` is not known; did you mean `platform`?",
        ),
        ("t.context+=x", "only lists can be added to"),
        ("x*.tags=1", "no target is named `x*`"),
        ("t.pull=maybe", "--set t.pull: `maybe` is neither true nor false"),
        ("t.output=type=", "the output has no type"),
    ] {
        let e = plan(&[text], &["t"], &[overrides]).expect_err(overrides);
        assert!(e.contains(said), "{overrides}: {e}");
    }
}

#[test]
fn pushes_and_loads_leave_files_alone() {
    let text = r#"{"target": {"i": {"output": ["type=image"]}, "n": {}, "f": {"output": ["type=tar,dest=x"]},
                   "d": {"output": ["type=docker"]}, "r": {"output": ["type=registry"]}}}"#;
    let outputs = |overrides: &[&str]| -> String {
        let plan = plan(&[text], &["*"], overrides).expect("a plan");
        let one = |t: &crate::Target| {
            t.output
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let all: Vec<_> = plan
            .targets
            .iter()
            .map(|(n, t)| format!("{n}: {}", one(t)))
            .collect();
        all.join("; ")
    };
    assert_eq!(
        outputs(&["*.push=true"]),
        "d: type=docker type=image,push=true; f: type=tar,dest=x; i: type=image,push=true; n: type=image,push=true; \
         r: type=registry"
    );
    assert_eq!(
        outputs(&["*.load=true"]),
        "d: type=docker; f: type=tar,dest=x; i: type=image type=docker; n: type=docker; r: type=registry type=docker"
    );
    assert_eq!(
        outputs(&["*.push=false", "*.load=false"]),
        "d: type=docker; f: type=tar,dest=x; i: type=image,push=false; n: ; r: "
    );
}

#[test]
fn targets_that_others_use_come_along() {
    let text = r#"{"target": {"t": {"contexts": {"x": "target:a"}}, "a": {"tags": ["a"], "contexts": {"y": "target:b"},
                   "entitlements": ["network.host"], "output": ["type=image"]}, "b": {}}}"#;
    let plan = plan(&[text], &["t"], &[]).expect("a plan");
    let linked: Vec<_> = plan.targets.iter().map(|(n, t)| (n.as_str(), t.linked)).collect();
    assert_eq!(linked, [("a", true), ("b", true), ("t", false)]);
    assert_eq!(plan.targets["a"].output[0].to_string(), "type=cacheonly");
    assert_eq!(plan.targets["t"].entitlements, ["network.host"]);
    assert_eq!(plan.groups["default"].targets, ["t"]);
}

#[test]
fn errors_name_file_target_and_key() {
    for (text, said) in [
        (
            r#"{"target": {"t": {"contxt": "x"}}}"#,
            "a.json: target.t: the key `contxt` is not known; did you mean `context`?",
        ),
        (
            r#"{"target": {"t": {"tags": "x"}}}"#,
            "a.json: target.t.tags: it is a text, not a list of texts",
        ),
        (
            r#"{"target": {"t": {"tags": ["${UNK}"]}}}"#,
            "a.json: target.t.tags: there is no variable `UNK`",
        ),
        (
            r#"{"target": {"t": {"args": {"A": "${upper(x)}"}}}}"#,
            "a.json: target.t.args: `${upper(x)}`: expressions are not",
        ),
        (
            r#"{"target": {"t": {"args": {"A": "${target.u.tags}"}}}}"#,
            "`target`: references to other blocks",
        ),
        (
            r#"{"target": {"t": {"resources": {}}}}"#,
            "a.json: target.t.resources: this key is not supported",
        ),
        (
            r#"{"target": {"t": {"name": "x"}}}"#,
            "a.json: target.t.name: it takes a `matrix`",
        ),
        (
            r#"{"target": {"t": {"matrix": {"i": [1, 2]}, "name": "t"}}}"#,
            "the name `t` is made twice",
        ),
        (
            r#"{"target": {"t": {"matrix": {"i": ["a/b"]}, "name": "${i}"}}}"#,
            "`a/b` is not a name for a target",
        ),
        (
            r#"{"target": {"t.u": {}}}"#,
            "a.json: target.t.u: `t.u` is not a name for a target",
        ),
        (
            r#"{"target": {"t": {"output": [{"dest": "x"}]}}}"#,
            "a.json: target.t.output[0]: it has no `type`",
        ),
        (
            r#"{"target": {"t": {"secret": [{"idd": "x"}]}}}"#,
            "target.t.secret[0]: the key `idd` is not known; did you mean `id`?",
        ),
        (
            r#"{"target": {"t": {"inherits": ["no"]}}}"#,
            "target t: inherits: no target or group is named `no`; there are `t`",
        ),
        (
            r#"{"target": {"t": {"inherits": ["u"]}, "u": {"inherits": ["t"]}}}"#,
            "target t: inherits: it inherits from itself: t → u → t",
        ),
        (
            r#"{"target": {"t": {"contexts": {"x": "target:t"}}}}"#,
            "target t: contexts.x: it uses its own result: t → t",
        ),
        (
            r#"{"target": {"t": {"contexts": {"x": "target:no"}}}}"#,
            "target t: contexts.x: no target or group is named `no`",
        ),
        (
            r#"{"target": {"t": {"contexts": {"x": "target:u"}, "platforms": ["a/b", "c/d"]}, "u": {"platforms": ["a/b", "e/f"]}}}"#,
            "target t: contexts.x: target u is not built for c/d",
        ),
        (
            r#"{"target": {"u": {}}}"#,
            "TARGET: no target or group is named `t`; there are `u`",
        ),
        ("{}", "TARGET: no target or group is named `t`; none is defined"),
        (
            r#"{"function": {}}"#,
            "a.json: function: functions are not supported",
        ),
        (
            r#"{"variable": {"V": {"default": "${W}"}, "W": {"default": "${V}"}}}"#,
            "a.json: variable.V: the variable `V` refers to itself",
        ),
        (
            r#"{"variable": {"BAD": {"default": 1}}}"#,
            "a.json: variable.BAD: the environment variable `BAD` is not a number",
        ),
        (
            r#"{"variable": {"LIST": {"default": []}}}"#,
            "the variable `LIST` is a list or an object without a type",
        ),
        (
            r#"{"variable": {"V": {"validation": []}}}"#,
            "a.json: variable.V.validation: rules for values",
        ),
        (
            r#"{"group": {"g": {"target": []}}}"#,
            "a.json: group.g: the key `target` is not known; did you mean `targets`?",
        ),
        (r#"{"target": ["#, "a.json: it is not a bake file in JSON: EOF"),
        (
            r#"{"target": {"t": {}, "t": {}}}"#,
            "the key `t` stands there twice",
        ),
    ] {
        let e = plan(&[text], &["t"], &[]).expect_err(text);
        assert!(e.contains(said), "{text}: {e}");
    }
    let hcl = File::new("docker-bake.hcl", "target \"t\" {}");
    let e = Definition::parse(&[hcl], &Variables::default()).expect_err("HCL");
    assert_eq!(
        (&*e.what, &*e.message),
        ("docker-bake.hcl", "HCL is not supported")
    );
    assert!(e.allowed.contains("docker buildx bake --print"), "{}", e.allowed);
}

#[test]
fn a_plan_is_a_bake_file_that_means_itself() {
    let text = r#"{"variable": {"TAG": {}}, "target": {"t": {"tags": ["x:${TAG}"], "args": {"A": "$${B} %%{c"}, "labels": {"l": "$${x}"},
                   "secret": ["id=a,src=f"], "ssh": ["k=a,b"], "attest": ["type=sbom,disabled=true"], "contexts": {"c": "target:u"},
                   "dockerfile-inline": "RUN $${X}", "output": ["type=local,dest=o"], "network": "host"}, "u": {}}}"#;
    let first = plan(&[text], &["t"], &[]).expect("a plan");
    let again = plan(&[&first.to_json()], &[], &[]).expect("the same plan");
    assert_eq!(first.to_json(), again.to_json());
    assert_eq!(first.targets["t"].args["A"], "${B} %{c");
}

#[test]
fn long_chains_are_errors_and_not_crashes() {
    let chain = |key: &str, link: fn(usize) -> Value| {
        let all: serde_json::Map<_, _> = (0..5000).map(|i| (format!("t{i}"), link(i + 1))).collect();
        json!({ key: all, "group": {"default": {"targets": ["t0"]}} }).to_string()
    };
    for (text, said) in [
        (
            chain("target", |i| json!({"inherits": [format!("t{i}")]})),
            "inherit one from the other",
        ),
        (
            chain("target", |i| json!({"contexts": {"c": format!("target:t{i}")}})),
            "use one the result of the other",
        ),
        (
            chain("variable", |i| json!({"default": format!("${{t{i}}}")})),
            "refer to each other too deeply",
        ),
    ] {
        let e = plan(&[&text], &[], &[]).expect_err(said);
        assert!(e.contains(said), "{e}");
    }
    let groups: serde_json::Map<_, _> = (0..5000)
        .map(|i| (format!("t{i}"), json!({"targets": [format!("t{}", i + 1)]})))
        .collect();
    let text = json!({"group": groups, "target": {"t5000": {}}}).to_string();
    let plan = plan(&[&text], &["t0"], &[]).expect("a plan");
    assert_eq!(plan.targets.keys().collect::<Vec<_>>(), ["t5000"]);
}
