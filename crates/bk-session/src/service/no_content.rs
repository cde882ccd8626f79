//! No blobs: there are no layouts that they could come from or go to.

use std::sync::Arc;

use super::dispatch::Services;
use crate::{content::Contents, session::SessionState};

/// Adds nothing.
pub(crate) fn serve(_: &mut Services, _: Contents, _: Arc<SessionState>) {}
