//! Whether a build has to do with layouts on disk at all.

use bk_build::{BuildRequest, Cache, NamedContext};

pub(super) fn is_local(cache: &Cache) -> bool {
    cache.kind == "local"
}

/// Whether a request names any layout.
pub(super) fn concerns(request: &BuildRequest) -> bool {
    request.cache_from.iter().chain(&request.cache_to).any(is_local)
        || request
            .named_contexts
            .values()
            .any(|c| matches!(c, NamedContext::OciLayout(_)))
        || request.outputs.iter().any(|o| o.layout_dir().is_some())
}
