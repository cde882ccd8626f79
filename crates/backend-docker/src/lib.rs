//! Reach the BuildKit inside Docker Engine and build on it.
