//! Cases about Dockerfiles: bases, stages, steps and their output, places.

use bk_build::{BuildRequest, Dockerfile, LogStream};

use super::{Bench, BoxError, OneRegistry, fresh_token};
use crate::fixture::TreeBuilder;

impl Bench<'_> {
    pub(super) async fn arg_from(&self) -> Result<(), BoxError> {
        let dockerfile = "ARG FLAVOUR=plain\n\
                          FROM scratch AS base-plain\nCOPY plain /out/\n\
                          FROM scratch AS base-fancy\nCOPY fancy /out/\n\
                          FROM base-${FLAVOUR}\nCOPY common /out/common\n";
        let tree = TreeBuilder::new()
            .file("Dockerfile", dockerfile)
            .file("plain/which", "plain\n")
            .file("fancy/which", "fancy\n")
            .file("fancy/more", "more\n")
            .file("common", "common\n")
            .build()?;
        let source = tree.snapshot()?;
        for flavour in ["plain", "fancy"] {
            let mut request = BuildRequest::new(tree.path());
            if flavour != "plain" {
                request = request.build_arg("FLAVOUR", flavour);
            }
            let built = self.build(request).await?;
            let mut expected = source.below(flavour);
            expected.entries.extend(source.filter(|p| p == b"common").entries);
            self.expect(&built, "out", &expected).await?;
        }
        Ok(())
    }

    pub(super) async fn registry_base(&self) -> Result<(), BoxError> {
        let base = self.harness.base();
        let token = fresh_token();
        let dockerfile = "ARG REGISTRY\nARG NAME\nFROM ${REGISTRY}/${NAME}\nCOPY payload /out/payload\n";
        let tree = TreeBuilder::new()
            .file("Dockerfile", dockerfile)
            .file("payload", format!("{token}\n"))
            .build()?;
        let name = base
            .image
            .strip_prefix(&format!("{}/", base.host))
            .ok_or("the base is not in its registry")?;
        let request = || {
            BuildRequest::new(tree.path())
                .build_arg("REGISTRY", &base.host)
                .build_arg("NAME", name)
                .pull(true)
        };
        // Without credentials the daemon must be refused: else this case would prove nothing.
        let refused = self
            .build_fails(request().credentials(std::sync::Arc::new(bk_build::NoCredentials)))
            .await?
            .0;
        if !matches!(refused, bk_build::BuildError::Auth { .. }) {
            return Err(format!("without credentials: {refused:?}, expected an authentication error").into());
        }
        let registry = OneRegistry::new(base.clone());
        let built = self.build(request().credentials(registry.clone())).await?;
        if registry.asked() == 0 {
            return Err("the base image came without asking for credentials".into());
        }
        let shell = self.harness.tree(&built.tag, "bin").await?;
        if !shell.entries.contains_key(&b"sh"[..]) {
            return Err("the base image's files are not in the image".into());
        }
        self.expect(&built, "out", &tree.snapshot()?.filter(|p| p == b"payload"))
            .await
    }

    pub(super) async fn run_logs(&self) -> Result<(), BoxError> {
        let token = fresh_token();
        let dockerfile = "FROM scratch\nCOPY sh /bin/sh\nARG TOKEN\n\
                          RUN echo one-$TOKEN && echo two >&2 && echo three && echo made > /out\n";
        let tree = TreeBuilder::new()
            .file("Dockerfile", dockerfile)
            .program("sh", &self.harness.shell())?
            .build()?;
        let built = self
            .build(BuildRequest::new(tree.path()).build_arg("TOKEN", &token))
            .await?;
        let (out, err) = (
            built.recorder.log("RUN echo", LogStream::Stdout),
            built.recorder.log("RUN echo", LogStream::Stderr),
        );
        if out != format!("one-{token}\nthree\n") || err != "two\n" {
            return Err(format!("standard output {out:?}, standard error {err:?}").into());
        }
        if !built
            .recorder
            .completed()
            .iter()
            .any(|name| name.contains("RUN echo"))
        {
            return Err(format!("completed steps: {:?}", built.recorder.completed()).into());
        }
        let made = self.harness.tree(&built.tag, "").await?;
        let entry = made
            .entries
            .get(&b"out"[..])
            .ok_or("the step's file is not in the image")?;
        if entry.digest != Some(crate::snapshot::ContentDigest::of(b"made\n")) {
            return Err(format!("the step's file: {entry:?}").into());
        }
        self.harness.forget(&built.tag).await
    }

    pub(super) async fn multi_stage(&self) -> Result<(), BoxError> {
        let dockerfile = "FROM scratch AS one\nCOPY a /from/\n\
                          FROM scratch AS broken\nCOPY not-here /x\n\
                          FROM scratch AS two\nCOPY --from=one /from /out\nCOPY b /out/b\n\
                          FROM scratch AS three\nCOPY --from=two /out /out\nCOPY c /out/c\n";
        let tree = TreeBuilder::new()
            .file("Dockerfile", dockerfile)
            .file("a/x", "x\n")
            .file("a/deep/y", "y\n")
            .symlink("a/link", "deep/y")
            .file("b", "b\n")
            .file("c", "c\n")
            .build()?;
        let source = tree.snapshot()?;
        for (target, files) in [(None, &[b"b", b"c"][..]), (Some("two"), &[b"b"])] {
            let mut request = BuildRequest::new(tree.path());
            if let Some(target) = target {
                request = request.target(target);
            }
            let built = self.build(request).await?;
            let mut expected = source.below("a");
            expected
                .entries
                .extend(source.filter(|p| files.iter().any(|f| *f == p)).entries);
            self.expect(&built, "out", &expected).await?;
        }
        Ok(())
    }

    pub(super) async fn dockerfile_places(&self) -> Result<(), BoxError> {
        let text = |n| format!("FROM scratch\nCOPY file /out/{n}\n");
        let tree = TreeBuilder::new()
            .file("file", "content\n")
            .file("hidden", "x\n")
            .file("sub/Other.dockerfile", text("inside"))
            .build()?;
        let outside = TreeBuilder::new()
            .file("My Dockerfile", text("outside"))
            .file("not-walked", "x")
            .dir_with("not-walked-either", crate::fixture::Meta::mode(0o000))
            .build()?;
        let beside = TreeBuilder::new()
            .file("D", "FROM scratch\nCOPY . /out/\n")
            .file("D.dockerignore", "hidden\nsub\n")
            .build()?;
        let source = tree.snapshot()?;
        for (name, dockerfile) in [
            ("inside", Dockerfile::Path(tree.join("sub/Other.dockerfile"))),
            ("outside", Dockerfile::Path(outside.join("My Dockerfile"))),
            ("inline", Dockerfile::Inline(text("inline").into())),
            ("file", Dockerfile::Path(beside.join("D"))),
        ] {
            let request = BuildRequest::new(tree.path()).dockerfile(dockerfile);
            let built = self
                .build(request)
                .await
                .map_err(|e| format!("{name}: {}", crate::events::chain(&*e)))?;
            let mut expected = crate::snapshot::Snapshot::default();
            if let Some(entry) = source.entries.get(&b"file"[..]) {
                expected.entries.insert(name.as_bytes().to_vec(), entry.clone());
            }
            self.expect(&built, "out", &expected)
                .await
                .map_err(|e| format!("{name}: {e}"))?;
        }
        Ok(())
    }
}
