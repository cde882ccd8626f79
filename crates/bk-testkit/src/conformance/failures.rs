//! Cases that must fail, and say why.

use bk_build::{BuildError, BuildRequest, LogStream};

use super::{Bench, BoxError, fresh_token};
use crate::{events::chain, fixture::TreeBuilder};

impl Bench<'_> {
    pub(super) async fn failing_step(&self) -> Result<(), BoxError> {
        let token = fresh_token();
        let dockerfile =
            "FROM scratch\nCOPY sh /bin/sh\nARG TOKEN\nRUN echo before-$TOKEN && echo bad >&2 && exit 7\n";
        let tree = TreeBuilder::new()
            .file("Dockerfile", dockerfile)
            .program("sh", &self.harness.shell())?
            .build()?;
        let request = BuildRequest::new(tree.path()).build_arg("TOKEN", &token);
        let (error, recorder) = self.build_fails(request).await?;
        let BuildError::Step(step) = &error else {
            return Err(format!("expected a failed step, got {error:?}").into());
        };
        if step.exit_code != Some(7) {
            return Err(format!("exit code {:?}: {}", step.exit_code, step.message).into());
        }
        let tail = step.log_tail.join("\n");
        if !tail.contains(&format!("before-{token}")) || !tail.contains("bad") {
            return Err(format!("last lines: {:?}", step.log_tail).into());
        }
        if !step.name.contains("RUN echo") {
            return Err(format!("the step's name: {:?}", step.name).into());
        }
        if self.harness.places() && step.snippets.first().and_then(|s| s.first_line()) != Some(4) {
            return Err(format!("place: {:?}", step.snippets).into());
        }
        let out = recorder.log("RUN echo", LogStream::Stdout);
        if out != format!("before-{token}\n") {
            return Err(format!("log events: {out:?}").into());
        }
        Ok(())
    }

    pub(super) async fn syntax_error(&self) -> Result<(), BoxError> {
        let tree = TreeBuilder::new()
            .file("Dockerfile", "FROM scratch\n\nCOPPY a /a\n")
            .file("a", "a")
            .file("Not-Here", "other capitals")
            .build()?;
        let (error, _) = self.build_fails(BuildRequest::new(tree.path())).await?;
        let BuildError::Dockerfile(failure) = &error else {
            return Err(format!("expected a Dockerfile error, got {error:?}").into());
        };
        if !failure.message.contains("COPPY") {
            return Err(format!("message: {}", failure.message).into());
        }
        let line = failure.snippets.first().and_then(|s| s.first_line());
        // Where a place cannot be carried, the message itself must tell the line.
        let told = if self.harness.places() {
            line == Some(3)
        } else {
            failure.message.contains("line 3")
        };
        if told {
            Ok(())
        } else {
            Err(format!("no line: {error:?}").into())
        }
    }

    pub(super) async fn missing_dockerfile(&self) -> Result<(), BoxError> {
        let tree = TreeBuilder::new().file("a", "a").build()?;
        let (error, _) = self.build_fails(BuildRequest::new(tree.path())).await?;
        let text = chain(&error);
        if !text.contains("Dockerfile") || !text.contains("dockerfile") {
            return Err(format!("does not say which names were looked for: {text}").into());
        }
        match error {
            BuildError::Input(_) | BuildError::Local(_) | BuildError::Dockerfile(_) => Ok(()),
            other => Err(format!("expected the user's fault, got {other:?}").into()),
        }
    }

    pub(super) async fn missing_source(&self) -> Result<(), BoxError> {
        let dockerfile = "FROM scratch\nCOPY a /a\nCOPY not-here /x\n";
        let tree = TreeBuilder::new()
            .file("Dockerfile", dockerfile)
            .file("a", "a")
            .file("Not-Here", "other capitals")
            .build()?;
        let (error, _) = self.build_fails(BuildRequest::new(tree.path())).await?;
        let BuildError::Dockerfile(failure) = &error else {
            return Err(format!("expected a Dockerfile error, got {error:?}").into());
        };
        if !failure.message.contains("not-here") {
            return Err(format!("message: {}", failure.message).into());
        }
        let hint = "there is `Not-Here`, and no `not-here`: capitals count";
        if failure.hint.as_deref() != Some(hint) {
            return Err(format!("hint: {:?}", failure.hint).into());
        }
        if self.harness.places() && failure.snippets.first().and_then(|s| s.first_line()) != Some(3) {
            return Err(format!("place: {:?}", failure.snippets).into());
        }
        Ok(())
    }
}
