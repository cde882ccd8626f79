//! What a session serves beside files and credentials, looked at before anything is sent: a missing file should not
//! be found out when half of the build is done.

use std::sync::Arc;

use bk_build::{BuildError, BuildRequest, SecretSource};

use crate::{
    agent::AgentSet,
    secret_file::{SecretFile, is_pipe},
    service::{policy::Verifier, secrets::SecretSet},
};

/// The secrets, SSH agents and keys of a build, and who decides about its sources. Cheap to clone; the default serves nothing.
#[derive(Clone, Default)]
pub struct Extras {
    pub(crate) secrets: SecretSet,
    pub(crate) agents: AgentSet,
    pub(crate) verifier: Option<Verifier>,
}

impl Extras {
    /// What `request` wants to be served. Looks at files, off the async threads.
    ///
    /// # Errors
    /// [`BuildError::Local`] names the file that cannot be used.
    pub async fn of(request: &BuildRequest) -> Result<Self, BuildError> {
        let request = request.clone();
        tokio::task::spawn_blocking(move || Self::collect(&request))
            .await
            .unwrap_or_else(|e| Err(BuildError::Misuse(format!("the runtime was shut down: {e}"))))
    }

    fn collect(request: &BuildRequest) -> Result<Self, BuildError> {
        Ok(Self {
            secrets: SecretSet::of(request)?,
            agents: AgentSet::of(request)?,
            verifier: request.policy_verifier.clone().map(Verifier::new),
        })
    }

    /// Whether `request` has a secret that can be read once only: one that comes through a pipe.
    pub async fn read_once(request: &BuildRequest) -> bool {
        let paths: Vec<_> = request
            .secrets
            .values()
            .filter_map(|secret| match secret {
                SecretSource::File(path) => Some(path.clone()),
                _ => None,
            })
            .collect();
        if paths.is_empty() {
            return false;
        }
        let looking = tokio::task::spawn_blocking(move || paths.iter().any(|path| is_pipe(path)));
        looking.await.unwrap_or(false)
    }

    /// `request` with every secret that can be read once only replaced by one that is read when it is first asked for, and
    /// then kept for all who build this request.
    ///
    /// # Errors
    /// [`BuildError::Local`] names a pipe that cannot be used.
    pub async fn keep_piped(request: BuildRequest) -> Result<BuildRequest, BuildError> {
        let keeping = tokio::task::spawn_blocking(move || keep_piped(request));
        keeping
            .await
            .unwrap_or_else(|e| Err(BuildError::Misuse(format!("the runtime was shut down: {e}"))))
    }

    /// Whether somebody decides about sources and was never asked.
    pub fn verifier_was_ignored(&self) -> bool {
        self.verifier.as_ref().is_some_and(|v| !v.was_asked())
    }
}

fn keep_piped(mut request: BuildRequest) -> Result<BuildRequest, BuildError> {
    for secret in request.secrets.values_mut() {
        match secret {
            SecretSource::File(path) if is_pipe(path) => {
                *secret = SecretSource::Provider(Arc::new(SecretFile::check(path)?));
            }
            _ => {}
        }
    }
    Ok(request)
}
