//! A system on which layouts on disk cannot be read and written so that no link leads out of them.
//!
//! The rule: a build that names one is refused before anything is sent.

mod concerns;

use std::{collections::BTreeMap, convert::Infallible};

use bk_build::{BuildError, BuildOutcome, BuildRequest, EventSink, ExportReport, InputError};

/// The layouts of a build, by the ids under which the daemon asks for them. Cheap to clone; the default has none, and on
/// Windows there is no other yet.
#[derive(Clone, Default)]
pub struct Contents(Option<Infallible>);

impl Contents {
    /// Looks whether `request` names a layout: a context in one, a local cache, or a result with `tar=false`.
    ///
    /// # Errors
    /// [`BuildError::Input`] when it does.
    pub async fn of(request: &mut BuildRequest, _: &EventSink) -> Result<Self, BuildError> {
        if concerns::concerns(request) {
            let why = "OCI layouts on disk (contexts `oci-layout://…`, `type=local` caches, results with `tar=false`) are \
                       not supported on Windows yet";
            return Err(InputError::new("the build", why, "registries, images and archives").into());
        }
        Ok(Self::default())
    }

    /// Attributes for the frontend that say which layouts stand behind the names of contexts: none.
    pub fn frontend_attrs(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// Nothing is left to do when the build has succeeded.
    ///
    /// # Errors
    /// Never.
    pub async fn finish(&self, _: &BuildOutcome, _: &EventSink) -> Result<Vec<ExportReport>, BuildError> {
        Ok(Vec::new())
    }

    /// Nothing is left to do when the build has failed.
    pub async fn abandon(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use bk_build::Cache;

    #[tokio::test]
    async fn what_names_a_layout_is_refused() {
        let mut request = BuildRequest::default();
        let (events, _seen) = EventSink::channel(1);
        assert!(Contents::of(&mut request, &events).await.is_ok());
        request.cache_from.push(Cache::new("local"));
        let e = Contents::of(&mut request, &events).await.err().expect("refused");
        assert!(e.to_string().contains("not supported on Windows yet"), "{e}");
    }
}
