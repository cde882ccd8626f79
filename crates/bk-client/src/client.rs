//! The builder that [`connect`](crate::connect) picked.

use std::sync::Arc;

use async_trait::async_trait;
use bk_build::{BuildError, BuildOutcome, BuildRequest, BuilderInfo, EventSink, ImageBuilder};

/// A builder on a daemon that was reached. Cheap to clone; clones build at the same time without waiting for each
/// other.
#[derive(Clone)]
pub struct Client {
    builder: Arc<dyn ImageBuilder>,
}

impl Client {
    /// Wraps any builder, for instance one with an own configuration or a third party's.
    pub fn from_builder(builder: impl ImageBuilder + 'static) -> Self {
        Self {
            builder: Arc::new(builder),
        }
    }
}

#[async_trait]
impl ImageBuilder for Client {
    async fn build(&self, request: BuildRequest, events: EventSink) -> Result<BuildOutcome, BuildError> {
        self.builder.build(request, events).await
    }

    fn info(&self) -> BuilderInfo {
        self.builder.info()
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Client").field(&self.builder.info()).finish()
    }
}
