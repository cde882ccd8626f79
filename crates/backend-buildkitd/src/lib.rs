//! Reach a native buildkitd by unix:// or tcp:// and build on it.
