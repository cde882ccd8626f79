//! How much a build bears before it gives up on its daemon, and how often it begins again.

use std::time::Duration;

use crate::{BuildRequest, Context, limits};

/// What a build does about a daemon that falls silent or is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Patience {
    /// How long nothing at all may come from the daemon before the build ends with
    /// [`BuildError::Stalled`](crate::BuildError::Stalled); `None` waits for ever. Default:
    /// [`limits::STALL_TIMEOUT`].
    ///
    /// A step that is silent is no stall: the daemon is asked for a sign of life all the time (HTTP/2 pings), and every
    /// byte of its answers counts. The Docker route `tar` cannot ask, so there only the system's own probes of a TCP
    /// connection notice a daemon that is gone.
    pub stall: Option<Duration>,
    /// How many more times the whole build is begun when its daemon was lost or has stalled. Default: 0.
    ///
    /// After such a loss it is begun again only when nothing was exported yet as far as the daemon told, and when its context and its secrets
    /// can be read twice, which is not so for an [`Archive`](crate::Archive) and a secret that comes through a pipe.
    ///
    /// It is begun again as well when the daemon's image store lost a layer of the finished image
    /// ([`Advice::LayerRemoved`](crate::Advice::LayerRemoved)) and an image is all that the build yields: the steps come
    /// from the cache then (with `no_cache` they run again), and the image gets the same names once more.
    pub retries: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            stall: Some(limits::STALL_TIMEOUT),
            retries: 0,
        }
    }
}

impl BuildRequest {
    /// Sets how long nothing at all may come from the daemon; the default is [`limits::STALL_TIMEOUT`], `None` waits for
    /// ever. See [`Patience::stall`].
    #[must_use]
    pub fn stall_timeout(mut self, after: Option<Duration>) -> Self {
        self.patience.stall = after;
        self
    }

    /// Sets how many more times the build is begun when its daemon was lost; the default is 0. See
    /// [`Patience::retries`].
    #[must_use]
    pub fn retries(mut self, times: u32) -> Self {
        self.patience.retries = times;
        self
    }

    /// Whether the same request can be built twice: not when its context is a stream, which is read once.
    pub fn is_repeatable(&self) -> bool {
        !matches!(self.context, Context::Archive(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Archive;

    #[test]
    fn streams_are_read_once() {
        assert!(BuildRequest::new("/x").is_repeatable());
        let archive = Archive::new("-", &b""[..]);
        assert!(!BuildRequest::new(archive).is_repeatable());
        let patience = BuildRequest::new("/x").retries(2).stall_timeout(None).patience;
        assert_eq!((patience.retries, patience.stall), (2, None));
    }
}
