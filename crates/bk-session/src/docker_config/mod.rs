//! Credentials from Docker's config file: `auths`, `credsStore` and `credHelpers`.
//!
//! The file is read again for each question, off the async threads, so a `docker login` during a build counts. Helpers
//! are asked only for hosts that somebody asks for, one at a time for each, several hosts in parallel; their answers are
//! kept for a short while.

mod cache;
mod file;
mod helper;
mod key;
#[cfg(all(test, unix))]
mod tests;

use std::{
    ffi::{OsStr, OsString},
    fmt,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use bk_build::{Credential, CredentialAnswer, CredentialError, CredentialProvider, CredentialQuery};
use zeroize::Zeroizing;

use self::{
    cache::HelperCache,
    file::{File, HelperCall},
    helper::HelperError,
};
use crate::limits::MAX_CONFIG_FILE;

/// Answers from a Docker `config.json`. A missing file answers nothing for every host. Clones share what helpers said.
///
/// For one host: the helper that `credHelpers` names for it, else that of `credsStore`, else (also when the helper does
/// not know the host) the entry of `auths`. Keys are `host[:port]`, with `http://` or `https://` before and `/v1/` or
/// `/v2/` behind it or not; a key with another path, `host/team`, answers for the repositories below it where the daemon
/// tells the repository, which it does when tokens are fetched here.
#[derive(Clone)]
pub struct DockerConfig {
    path: PathBuf,
    search_path: Option<OsString>,
    cache: Arc<HelperCache>,
}

impl DockerConfig {
    /// Reads `path` (usually `~/.docker/config.json`) whenever the daemon asks.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            search_path: None,
            cache: Arc::default(),
        }
    }

    /// Sets where credential helpers are looked for and what they get as `PATH`; the default is the `PATH` of this
    /// process.
    #[must_use]
    pub fn search_path(mut self, path: impl Into<OsString>) -> Self {
        self.search_path = Some(path.into());
        self
    }

    async fn read(&self) -> Result<File, String> {
        let path = self.path.clone();
        let reading = tokio::task::spawn_blocking(move || read(&path));
        reading
            .await
            .map_err(|e| e.to_string())?
            .map_err(|reason| format!("{}: {reason}", self.path.display()))
    }

    async fn answer(&self, query: &CredentialQuery) -> Result<CredentialAnswer, String> {
        let file = self.read().await?;
        let shown = self.path.display();
        let mut warning = None;
        if let Some(call) = file.helper(query) {
            match self
                .cache
                .get(&call, query.refused, self.search_path.as_deref())
                .await
            {
                Ok(Some(credential)) => {
                    let source = format!(
                        "credential helper `docker-credential-{}`, {} of {shown}",
                        call.helper, call.entry
                    );
                    return Ok(CredentialAnswer::new(Some(credential), source));
                }
                Ok(None) => {}
                Err(e) if call.expected => return Err(format!("{e}; {} of {shown} names it", call.entry)),
                // Nothing says that this helper knows this host, and most images are public.
                Err(e) => {
                    warning = Some(format!(
                        "{e}; {} of {shown} names it. Registry {} is asked without credentials",
                        call.entry, query.host
                    ));
                }
            }
        }
        let inline = file
            .inline(query)
            .map_err(|reason| format!("{shown}: {reason}"))?;
        let mut answer = match inline {
            Some((key, credential)) => {
                CredentialAnswer::new(Some(credential), format!("`auths` entry `{key}` of {shown}"))
            }
            None => CredentialAnswer::new(None, format!("nothing in {shown}")),
        };
        if answer.credential.is_none() {
            answer.warning = warning;
        }
        Ok(answer)
    }
}

fn read(path: &Path) -> Result<File, String> {
    let mut text = Zeroizing::new(Vec::new());
    match std::fs::File::open(path) {
        Ok(file) => file
            .take(MAX_CONFIG_FILE + 1)
            .read_to_end(&mut text)
            .map_err(|e| e.to_string())?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(File::default()),
        Err(e) => return Err(e.to_string()),
    };
    if text.len() as u64 > MAX_CONFIG_FILE {
        return Err(format!("longer than {} MiB", MAX_CONFIG_FILE / 1024 / 1024));
    }
    File::parse(&text)
}

/// Asks the helper of `call`.
async fn ask(call: &HelperCall, path: Option<&OsStr>) -> Result<Option<Credential>, HelperError> {
    helper::get(&call.helper, &call.server, path).await
}

#[async_trait::async_trait]
impl CredentialProvider for DockerConfig {
    async fn credential(&self, host: &str) -> Result<Option<Credential>, CredentialError> {
        Ok(self.look_up(&CredentialQuery::new(host)).await?.credential)
    }

    async fn look_up(&self, query: &CredentialQuery) -> Result<CredentialAnswer, CredentialError> {
        self.answer(query)
            .await
            .map_err(|reason| CredentialError::new(&query.host, reason))
    }
}

impl fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerConfig")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
