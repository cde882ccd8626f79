//! Needs of Dockerfiles, in the frontend's terms.

use super::*;

fn given<'a>(args: &'a BTreeMap<String, String>) -> Given<'a> {
    Given {
        target: None,
        build_args: args,
        platform: None,
        contexts: BTreeSet::new(),
        look: None,
    }
}

fn read(text: &str, given: &Given<'_>) -> Needs {
    needs(text.as_bytes(), given).expect("a Dockerfile")
}

fn follow(needs: &Needs) -> Vec<String> {
    assert_eq!(needs.unknown, None);
    let paths = needs.follow();
    paths
        .into_iter()
        .map(|p| String::from_utf8_lossy(&p).into_owned())
        .collect()
}

#[test]
fn the_stages_that_the_target_needs_count() {
    let text = "FROM scratch AS Base\nCOPY b /\nFROM scratch AS unused\nCOPY u /\nFROM base AS one\n\
                COPY --from=tool x /\nFROM scratch AS tool\nRUN --mount=src=m,target=/m \\\n true\nFROM one\nADD z/../a/ q* /\n";
    let none = BTreeMap::new();
    assert_eq!(follow(&read(text, &given(&none))), ["a", "b", "m", "q*"]);
    let with = |target| {
        let given = Given {
            target: Some(target),
            ..given(&none)
        };
        read(text, &given)
    };
    assert_eq!(follow(&with("base")), ["b"]);
    assert_eq!(follow(&with("UNUSED")), ["u"]);
    assert_eq!(follow(&with("3")), ["m"]);
    let lines = read(text, &given(&none));
    let lines: Vec<_> = lines.instructions.iter().map(|n| (n.line, &*n.text)).collect();
    assert_eq!(
        lines,
        [
            (2, "COPY b /"),
            (8, "RUN --mount=src=m,target=/m \\"),
            (11, "ADD z/../a/ q* /")
        ]
    );
    let given = Given {
        target: Some("no"),
        ..given(&none)
    };
    let error = needs(text.as_bytes(), &given).expect_err("no such stage");
    assert!(error.to_string().contains("no stage `no`"), "{error}");
}

#[test]
fn variables_have_the_values_of_the_frontend() {
    let text = "ARG G=g\nARG V=${G}v\nFROM scratch\nARG V\nARG W=w\nENV E=\"e $W\" F=$V\nENV OLD style $W\n\
                COPY $V $F ${E:-x} ${OLD} ${N:-none} ${W:+has} $W /\n";
    let mut args = BTreeMap::new();
    assert_eq!(
        follow(&read(text, &given(&args))),
        ["e w", "gv", "has", "none", "style w", "w"]
    );
    args.insert("W".to_owned(), "given".to_owned());
    args.insert("V".to_owned(), "over".to_owned());
    assert_eq!(
        follow(&read(text, &given(&args))),
        ["e given", "given", "has", "none", "over", "style given"]
    );
    let text = "# escape=`\nFROM scratch\nCOPY [\"a b\", \"c`$d\", \"/\"]\n";
    assert_eq!(follow(&read(text, &given(&args))), ["a b", "c$d"]);
    let child = "FROM scratch AS a\nARG X=x\nENV Y=y\nFROM a\nCOPY $X $Y /\n";
    assert_eq!(follow(&read(child, &given(&args))), ["x", "y"]);
    let arch = "FROM alpine\nARG TARGETARCH\nARG TARGETPLATFORM\nCOPY bin-$TARGETARCH ${TARGETPLATFORM} /\n";
    assert!(read(arch, &given(&args)).unknown.is_some());
    let known = Given {
        platform: Some("linux/aarch64/v8"),
        ..given(&args)
    };
    assert_eq!(follow(&read(arch, &known)), ["bin-arm64", "linux/arm64"]);
}

#[test]
fn what_is_no_path_of_the_context_is_left_out() {
    let none = BTreeMap::new();
    let text = "FROM scratch\nADD https://x.example/a git@x.example:a.git local /\nCOPY <<EOF more /x\nin\nEOF\n\
                RUN --mount=type=secret,id=s --mount=type=cache,target=/c --mount=type=bind,from=alpine,target=/a true\n";
    assert_eq!(follow(&read(text, &given(&none))), ["local", "more"]);
    let nothing = read("FROM alpine\nRUN true\n", &given(&none));
    assert!(nothing.nothing() && !nothing.everything());
    for all in [
        "COPY . /",
        "ADD / /",
        "COPY a ./b/.. /",
        "RUN --mount=target=/x true",
        "RUN --mount=type=tmpfs,target=/t x",
    ] {
        let needs = read(&format!("FROM alpine\nCOPY c /\n{all}\n"), &given(&none));
        assert!(needs.everything() && needs.unknown.is_none(), "{all}: {needs:?}");
        assert!(needs.follow().is_empty());
    }
}

#[test]
fn what_is_not_known_is_said() {
    let none = BTreeMap::new();
    for (text, why) in [
        (
            "# syntax=example.com/own:1\nFROM scratch\nCOPY a /\n",
            "`example.com/own:1`",
        ),
        (
            "FROM alpine\nCOPY $HOME/a /\n",
            "line 2 of the Dockerfile: the value of `$HOME`",
        ),
        ("FROM scratch AS a\nONBUILD COPY x /\nFROM a\n", "ONBUILD"),
        ("FROM scratch\nCOPY \"a /\n", "double quote"),
        ("FROM scratch\nNONSENSE\n", "cannot be read here"),
    ] {
        let needs = read(text, &given(&none));
        let said = needs.unknown.clone().unwrap_or_default();
        assert!(said.contains(why) && needs.everything(), "{text}: {needs:?}");
    }
    assert!(
        needs(b"FROM \xff\n", &given(&none))
            .expect("a file")
            .unknown
            .is_some()
    );
    let fine = "# syntax=docker/dockerfile:1.7\nFROM scratch\nCOPY a /\n";
    assert_eq!(follow(&read(fine, &given(&none))), ["a"]);
}

#[test]
fn contexts_by_name_take_the_place_of_stages_and_images() {
    let none = BTreeMap::new();
    let text = "FROM scratch AS lib\nCOPY main /\nFROM alpine\nCOPY --from=lib x y /\nCOPY --from=other z /\nCOPY own /\n";
    let look = |look, contexts: &[&'static str]| Given {
        look,
        contexts: contexts.iter().copied().collect(),
        ..given(&none)
    };
    assert_eq!(follow(&read(text, &look(None, &["lib"]))), ["own"]);
    assert_eq!(follow(&read(text, &look(Some("other"), &["other"]))), ["z"]);
    assert!(read(text, &look(Some("alpine"), &["alpine"])).everything());
    assert!(read(text, &look(Some("unused"), &["unused"])).nothing());
}
