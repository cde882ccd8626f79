//! Where the requests of a program go, and what goes with each of them.

use std::fmt;

use bk_build::CallHeaders;

use crate::endpoint::Endpoint;

/// An engine, and the headers of the program for every request to it: what is in front of daemons may choose by them, so
/// that none may lack them.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) endpoint: Endpoint,
    pub(crate) headers: CallHeaders,
}

impl Site {
    /// The same with more headers, which win.
    pub(crate) fn and(&self, headers: &CallHeaders) -> Self {
        Self {
            endpoint: self.endpoint.clone(),
            headers: self.headers.clone().and(headers),
        }
    }
}

impl From<Endpoint> for Site {
    fn from(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            headers: CallHeaders::new(),
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}
