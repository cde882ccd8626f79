//! Benchmarks live in `benches/`; this file only makes the package a library.
