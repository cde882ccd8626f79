//! Marks by which services fold a part of a log: GitHub Actions, GitLab CI and Buildkite.

/// How each step is marked, for a log that can be folded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fold {
    /// Not at all.
    #[default]
    None,
    /// `::group::` of GitHub Actions (`GITHUB_ACTIONS=true`).
    GitHub,
    /// `section_start` and `section_end` of GitLab CI (`GITLAB_CI=true`).
    GitLab,
    /// `---` of Buildkite (`BUILDKITE=true`). A step that failed is unfolded.
    Buildkite,
}

impl Fold {
    /// The lines that open step `n`, which began at that second since 1970.
    pub(crate) fn open(self, n: u32, unix: u64, title: &str) -> String {
        match self {
            Self::None => format!("{title}\n"),
            // The service reads `%` as the beginning of an escaped byte.
            Self::GitHub => format!("::group::{}\n", title.replace('%', "%25")),
            Self::GitLab => {
                format!("\u{1b}[0Ksection_start:{unix}:bk_step_{n}[collapsed=true]\r\u{1b}[0K{title}\n")
            }
            Self::Buildkite => format!("--- {title}\n"),
        }
    }

    /// The lines that close it.
    pub(crate) fn close(self, n: u32, unix: u64, failed: bool) -> String {
        match self {
            Self::Buildkite if failed => "^^^ +++\n".to_owned(),
            Self::None | Self::Buildkite => String::new(),
            Self::GitHub => "::endgroup::\n".to_owned(),
            Self::GitLab => format!("\u{1b}[0Ksection_end:{unix}:bk_step_{n}\r\u{1b}[0K\n"),
        }
    }
}
