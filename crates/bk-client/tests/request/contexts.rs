//! Where files come from: contexts by name, and contexts that the daemon fetches.

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use bk_client::{
    BuildError, BuildRequest, Context, Definition, Dockerfile, MemoryTree, NamedContext, Output, SecretSource,
};
use bk_proto::ops::{Input, Op, SourceOp, op};
use bk_testkit::{
    events::chain,
    live::{Daemon, Route},
    snapshot::{ContentDigest, Snapshot},
    web::{Web, make_repository},
};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::on;

/// Rows of the table of what works where.
const NAMED: &str = "Contexts by name (`--build-context`)";
const WEB: &str = "Contexts by name from the web, as a file";

/// A tar archive of some files.
fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, text.as_bytes())
            .expect("in memory");
    }
    tar.into_inner().expect("in memory")
}

/// The archive that [`web`] serves.
fn served() -> Vec<u8> {
    archive(&[
        ("Dockerfile", "FROM scratch\nCOPY said /said\n"),
        ("said", "from tar\n"),
    ])
}

/// A server with a repository `/git/r.git` and an archive `/c.tar`, each with a Dockerfile that copies `said`.
fn web(root: &Path) -> Web {
    let files = [
        ("Dockerfile", "FROM scratch\nCOPY said /said\n"),
        ("said", "from git\n"),
        ("sub/Other", "FROM scratch\nCOPY said /other\n"),
        ("sub/said", "from below\n"),
    ];
    make_repository(root, "r.git", &files).expect("a repository");
    Web::start(HashMap::from([("/c.tar".to_owned(), served())]), root).expect("a web server")
}

/// Holds files of an image, by their paths, against texts; `None` is a file that must not be there.
fn holds(name: &str, image: &Snapshot, expected: &[(&str, Option<&str>)]) {
    for (path, text) in expected {
        let found = image.entries.get(path.as_bytes()).map(|e| e.digest);
        let wanted = text.map(|t| Some(ContentDigest::of(t.as_bytes())));
        assert_eq!(found, wanted, "{name}: {path}");
    }
}

#[test]
fn contexts_have_names() {
    let places = [
        (Daemon::Docker20_10, Route::Grpc),
        (Daemon::Docker26_1, Route::Grpc),
        (Daemon::Docker28_5, Route::Grpc),
        (Daemon::Docker28_5Containerd, Route::Grpc),
        (Daemon::BuildkitUnix, Route::Direct),
    ];
    on(&places, "request::contexts_have_names", async |place| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let web = web(dir.path());
        let (named, main) = (dir.path().join("named"), dir.path().join("main"));
        for made in [&named, &main] {
            fs::create_dir(made).expect("a directory");
        }
        for (name, text) in [
            ("kept", "kept\n"),
            ("left-out", "x"),
            (".dockerignore", "left-out\n"),
        ] {
            fs::write(named.join(name), text).expect("writable");
        }
        fs::write(main.join("main"), "main\n").expect("writable");
        let mut tree = MemoryTree::new();
        tree.add_file("made", 0o640, "in memory\n").expect("a file");
        let text = "FROM base AS own\nFROM scratch\nCOPY --from=dir / /dir/\nCOPY --from=tree / /tree/\n\
                    COPY --from=one / /one/\nCOPY --from=git /said /git/\n\
                    COPY --from=own /bin /own/\nCOPY main /main/\n";
        let request = BuildRequest::new(main.as_path())
            .dockerfile(Dockerfile::Inline(text.into()))
            .tag(&place.tag)
            .named_context("dir", NamedContext::Dir(named.clone()))
            .named_context("tree", NamedContext::Tree(Arc::new(tree)))
            .named_context("one", NamedContext::File(named.join("kept")))
            .named_context("git", NamedContext::Remote(web.url("/git/r.git#main")))
            .named_context(
                "base:latest",
                NamedContext::Image(place.target.base.image.clone()),
            );
        if place.is_old() {
            let error = place.failed(request).await;
            assert!(matches!(error, BuildError::TooOld(_)), "{error:?}");
            let text = error.to_string();
            assert!(text.starts_with("--build-context needs BuildKit 0.10"), "{text}");
            place.target.refuses(NAMED, &text);
            return;
        }
        place.built(request).await;
        let image = place.engine.tree(&place.tag, "").await.expect("the image");
        holds(
            &place.target.name(),
            &image,
            &[
                ("dir/kept", Some("kept\n")),
                ("dir/left-out", None),
                ("tree/made", Some("in memory\n")),
                ("one/kept", Some("kept\n")),
                ("one/left-out", None),
                ("git/said", Some("from git\n")),
                ("main/main", Some("main\n")),
            ],
        );
        assert!(
            image.entries.keys().any(|k| k.starts_with(b"own/")),
            "{}: nothing of the base image",
            place.target.name()
        );
        place.target.supports(NAMED);
    });
}

#[test]
fn a_named_context_from_the_web_is_one_file() {
    let places = [
        (Daemon::Docker26_1, Route::Grpc),
        (Daemon::Docker28_5, Route::Grpc),
    ];
    on(
        &places,
        "request::a_named_context_from_the_web_is_one_file",
        async |place| {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let web = web(dir.path());
            let request = BuildRequest::new(Context::None)
                .dockerfile(Dockerfile::Inline(
                    "FROM scratch\nCOPY --from=tar /c.tar /tar/\n".into(),
                ))
                .tag(&place.tag)
                .no_cache(true)
                .named_context("tar", NamedContext::Remote(web.url("/c.tar")));
            if place.target.daemon == Daemon::Docker28_5 {
                // BuildKit 0.25 cannot, whoever asks: `docker buildx` gets the same answer.
                let text = chain(&place.failed(request).await);
                assert!(text.contains("invalid argument"), "{text}");
                place.target.refuses(WEB, &text);
                return;
            }
            place.built(request).await;
            let image = place.engine.tree(&place.tag, "").await.expect("the image");
            let tar = image.entries.get(&b"tar/c.tar"[..]).map(|e| e.digest);
            // Only the main context is unpacked.
            assert_eq!(tar, Some(Some(ContentDigest::of(&served()))));
            place.target.supports(WEB);
        },
    );
}

#[test]
fn contexts_are_fetched() {
    let places = [
        (Daemon::Docker20_10, Route::Grpc),
        (Daemon::Docker20_10, Route::Build),
        (Daemon::Docker28_5, Route::Grpc),
        (Daemon::Docker28_5, Route::Build),
        (Daemon::BuildkitUnix, Route::Direct),
    ];
    on(&places, "request::contexts_are_fetched", async |place| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let web = web(dir.path());
        let remote = |path: &str| BuildRequest::new(Context::Remote(web.url(path))).tag(&place.tag);
        let inside = Dockerfile::InContext("Other".to_owned());
        // Another text each time: a daemon does not ask again for what it has.
        let inline = format!("FROM scratch\nLABEL of=\"{}\"\nCOPY said /inline\n", place.tag);
        let inline = Dockerfile::Inline(inline.into());
        let mut builds = vec![
            (remote("/git/r.git#main"), ("said", "from git\n")),
            (remote("/c.tar"), ("said", "from tar\n")),
        ];
        let below = remote("/git/r.git#main:sub").dockerfile(inside);
        if place.is_old() {
            let text = place.failed(below).await.to_string();
            assert!(
                text.starts_with("a subdirectory of a Git context needs BuildKit 0.9"),
                "{text}"
            );
        } else {
            builds.push((below, ("other", "from below\n")));
        }
        if place.target.route != Route::Build {
            builds.push((
                remote("/git/r.git#main").dockerfile(inline),
                ("inline", "from git\n"),
            ));
        }
        for (request, (path, text)) in builds {
            let name = format!("{}: {:?}", place.target.name(), request.dockerfile);
            let (outcome, _) = place.built(request).await;
            assert_eq!(outcome.transfer.sent_bytes > 0, path == "inline", "{name}");
            let image = place.engine.tree(&place.tag, "").await.expect("the image");
            holds(&name, &image, &[(path, Some(text))]);
        }
        let git = "Git contexts below a directory";
        match place.is_old() {
            true => place
                .target
                .refuses(git, "a subdirectory of a Git context needs BuildKit 0.9"),
            false => place.target.supports(git),
        }
        place
            .target
            .supports("Contexts that the daemon fetches (Git, HTTP)");
    });
}

#[test]
fn private_repositories_are_fetched_with_a_token() {
    let places = [
        (Daemon::Docker20_10, Route::Grpc),
        (Daemon::Docker28_5, Route::Grpc),
        (Daemon::Docker28_5, Route::Build),
        (Daemon::BuildkitUnix, Route::Direct),
    ];
    let name = "request::private_repositories_are_fetched_with_a_token";
    on(&places, name, async |place| {
        let name = place.target.name();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let token = format!("token-{}", place.tag.replace([':', '/'], "-"));
        let web = Web::private(dir.path(), &token).expect("a web server");
        let files = [
            ("Dockerfile", "FROM scratch\nCOPY said /said\n"),
            ("said", "private\n"),
        ];
        make_repository(dir.path(), "p.git", &files).expect("a repository");
        let request = || BuildRequest::new(Context::Remote(web.url("/git/p.git#main"))).tag(&place.tag);
        let denied = chain(&place.failed(request()).await);
        assert!(!denied.contains(&token), "{name}: {denied}");
        let wrong = request().secret("GIT_AUTH_TOKEN", SecretSource::bytes("wrong"));
        place.failed(wrong).await;

        let right = request().secret("GIT_AUTH_TOKEN", SecretSource::bytes(token.as_str()));
        let (_, did) = place.built(right).await;
        assert!(!did.output.contains(&token), "{name}: {}", did.output);
        let image = place.engine.tree(&place.tag, "").await.expect("the image");
        holds(&name, &image, &[("said", Some("private\n"))]);
        place.target.supports("Private Git contexts (`GIT_AUTH_TOKEN`)");
    });
}

/// A build graph of one step: the files of the local source `name`.
fn files_of(name: &str) -> Definition {
    let source = Op {
        op: Some(op::Op::Source(SourceOp {
            identifier: format!("local://{name}"),
            ..SourceOp::default()
        })),
        ..Op::default()
    };
    let source = source.encode_to_vec();
    let digest: String = Sha256::digest(&source)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let last = Op {
        inputs: vec![Input {
            digest: format!("sha256:{digest}"),
            index: 0,
        }],
        ..Op::default()
    };
    Definition {
        def: vec![source, last.encode_to_vec()],
        ..Definition::default()
    }
}

#[test]
fn steps_that_were_made_elsewhere_run() {
    let places = [
        (Daemon::Docker20_10, Route::Grpc),
        (Daemon::Docker28_5, Route::Grpc),
        (Daemon::BuildkitUnix, Route::Direct),
    ];
    on(
        &places,
        "request::steps_that_were_made_elsewhere_run",
        async |place| {
            let dir = tempfile::tempdir().expect("a temporary directory");
            fs::write(dir.path().join("file"), &place.tag).expect("writable");
            let request = BuildRequest::from_definition(files_of("anything"))
                .named_context("anything", NamedContext::Dir(dir.path().to_owned()))
                .tag(&place.tag);
            let (outcome, _) = place.built(request.clone()).await;
            assert_eq!(outcome.transfer.sent_files, 1, "{}", place.target.name());
            let image = place.engine.tree(&place.tag, "").await.expect("the image");
            holds(&place.target.name(), &image, &[("file", Some(&place.tag))]);
            let (outcome, _) = place.built(request.output(Output::cache_only())).await;
            assert!(outcome.image_id.is_none());
            place.target.supports("Build graphs that were made elsewhere");
        },
    );
}
