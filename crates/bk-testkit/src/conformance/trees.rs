//! Cases about trees: what was copied must be what was there.

use bk_build::{BuildError, BuildRequest};

use super::{Bench, BoxError, Done, Exception};
use crate::{
    events::chain,
    fixture::{Meta, Tree, TreeBuilder, raw},
    snapshot::{Kind, Snapshot},
};

const COPY_TREE: &str = "FROM scratch\nCOPY tree /out/\n";

const IGNORE: &str = "# what is left out\n\
                      tree/logs\n\
                      !tree/logs/keep\n\
                      tree/**/*.tmp\n\
                      !tree/a/important.tmp\n\
                      tree/private/**\n\
                      !tree/private/shared/*.txt\n\
                      tree/link-first\n";

/// What the ignore file hides, said by hand and not by any pattern code.
const HIDDEN: [&str; 8] = [
    "logs/one.log",
    "logs/more/two.log",
    "logs/more",
    "a/junk.tmp",
    "top.tmp",
    "private/secret",
    "private/shared/binary",
    "link-first",
];

impl Bench<'_> {
    pub(super) async fn rich_tree(&self) -> Result<(), BoxError> {
        let long = "n".repeat(200);
        let tree = TreeBuilder::new()
            .file("Dockerfile", COPY_TREE)
            .file(".dockerignore", IGNORE)
            .symlink("tree/dangling", "no/such/file")
            .symlink("tree/absolute", "/etc/passwd-of-nobody")
            .symlink("tree/up", "../../outside")
            .symlink("tree/a/to-dir", "../dir")
            .symlink("tree/long-target", "t/".repeat(120))
            .file_with(
                "tree/private-key",
                "secret\n",
                Meta::mode(0o600).mtime(1_234_567_890, 987_654_321),
            )
            .file_with("tree/read-only", "r\n", Meta::mode(0o444))
            .file_with("tree/nobody", "n\n", Meta::mode(0o000))
            .file_with("tree/run-me", "#!/bin/sh\n", Meta::mode(0o755))
            .file_with("tree/setuid", "s\n", Meta::mode(0o4755))
            .file_with("tree/setgid", "s\n", Meta::mode(0o2755))
            .file_with("tree/ancient", "o\n", Meta::mode(0o644).mtime(1, 0))
            .file("tree/empty", "")
            .dir_with("tree/dir", Meta::mode(0o700).mtime(1_500_000_000, 1))
            .dir_with("tree/sticky", Meta::mode(0o1777))
            .dir_with("tree/empty-dir", Meta::mode(0o750))
            // `a`, `a-b` and `a.c` come in another order by component than by byte.
            .file("tree/a/x", "x\n")
            .file("tree/a-b", "-\n")
            .file("tree/a.c/y", "y\n")
            .file("tree/link-first", "linked\n")
            .hard_link("tree/link-second", "tree/link-first")
            .hard_link("tree/sub/link-third", "tree/link-first")
            .file("tree/sub/pair-a", "pair\n")
            .hard_link("tree/sub/pair-b", "tree/sub/pair-a")
            .file("tree/logs/one.log", "1")
            .file("tree/logs/keep", "kept\n")
            .file("tree/logs/more/two.log", "2")
            .file("tree/a/junk.tmp", "j")
            .file("tree/a/important.tmp", "i\n")
            .file("tree/top.tmp", "t")
            .file("tree/private/secret", "s")
            .file("tree/private/shared/note.txt", "n\n")
            .file("tree/private/shared/binary", "b")
            .deep("tree/deep", 200)
            .file(format!("tree/{long}/{long}/{long}"), "long\n")
            .symlink("tree/with space and \u{fc}ml\u{e4}ut", "a/x")
            .file("tree/ünï/çödé", "u\n")
            .file("tree/=odd&?#%41+.$[x]", "odd\n")
            .build()?;
        self.copy_tree(&tree, |p| !HIDDEN.iter().any(|h| h.as_bytes() == p))
            .await
    }

    pub(super) async fn many_files(&self) -> Result<(), BoxError> {
        let files = self.harness.scale().files;
        let tree = TreeBuilder::new()
            .file("Dockerfile", COPY_TREE)
            .many("tree", files)
            .build()?;
        self.copy_tree(&tree, |_| true).await
    }

    pub(super) async fn big_file(&self) -> Result<(), BoxError> {
        let bytes = self.harness.scale().bytes;
        let tree = TreeBuilder::new()
            .file("Dockerfile", COPY_TREE)
            .big("tree/big", bytes, 42)
            .build()?;
        self.copy_tree(&tree, |_| true).await
    }

    pub(super) async fn raw_names(&self) -> Result<Done, BoxError> {
        let tree = TreeBuilder::new()
            .file("Dockerfile", COPY_TREE)
            .file("tree/plain", "p\n")
            .file(raw(b"tree/raw-\xff\xfe-name"), "r\n")
            .file(raw(b"tree/raw-dir-\xe9/file"), "d\n")
            .symlink(raw(b"tree/raw-link-\x80"), raw(b"raw-\xff\xfe-name"))
            .build()?;
        let refusal = match self.exception {
            Some(Exception::Refuses(_)) => self.build_fails(BuildRequest::new(tree.path())).await?.0,
            may => match self.copy_tree(&tree, |_| true).await {
                Ok(()) => return Ok(Done::Built),
                Err(error) if !matches!(may, Some(Exception::MayRefuse(_))) => return Err(error),
                Err(error) => *error.downcast::<BuildError>()?,
            },
        };
        let text = chain(&refusal);
        if matches!(refusal, BuildError::Local(_) | BuildError::Refused(_)) && text.contains("raw-") {
            Ok(Done::Refused)
        } else {
            Err(format!("does not name the file: {text}").into())
        }
    }

    pub(super) async fn special_files(&self) -> Result<(), BoxError> {
        let tree = TreeBuilder::new()
            .file("Dockerfile", COPY_TREE)
            .file("tree/plain", "p\n")
            .fifo("tree/pipe")
            .socket("tree/sub/socket")
            .file("tree/sub/beside", "b\n")
            .build()?;
        let built = self.build(BuildRequest::new(tree.path())).await?;
        let skipped = built.recorder.skipped();
        if skipped != ["tree/sub/socket"] {
            return Err(format!("warnings of skipped files: {skipped:?}").into());
        }
        if built.outcome.transfer.skipped != 1 {
            return Err(format!(
                "the report counts {} skipped files",
                built.outcome.transfer.skipped
            )
            .into());
        }
        let expected = tree.snapshot()?.below("tree").without(&[Kind::Socket]);
        self.expect(&built, "out", &expected).await
    }

    /// Builds a context whose Dockerfile copies `tree` and compares.
    async fn copy_tree(&self, tree: &Tree, keep: impl Fn(&[u8]) -> bool) -> Result<(), BoxError> {
        let expected = tree.snapshot()?.below("tree").filter(keep);
        let built = self.build(BuildRequest::new(tree.path())).await?;
        self.check_report(&built.outcome.transfer, &expected)?;
        self.expect(&built, "out", &expected).await
    }

    /// What was sent must be at least what arrived in the image.
    fn check_report(&self, report: &bk_build::TransferReport, expected: &Snapshot) -> Result<(), BoxError> {
        let bytes = expected.content_bytes();
        if report.sent_bytes < bytes || report.entries < expected.entries.len() as u64 {
            let entries = expected.entries.len();
            return Err(format!("{report:?} for {entries} entries and {bytes} bytes").into());
        }
        Ok(())
    }
}
