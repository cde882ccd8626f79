//! Tuned numbers of bake files, each with its unit and reason.

/// The longest file, in bytes. Files that people write have a few KiB, those that programs write some hundreds.
pub const FILE_BYTES: usize = 4 * 1024 * 1024;

/// Values of one YAML document with its aliases written out. A few lines of aliases to aliases can stand for billions.
pub const YAML_VALUES: usize = 200_000;

/// How deep values of a file may be nested. Compose files need about ten levels.
pub const DEPTH: usize = 64;

/// Targets that one definition may have, with those that matrices make. A matrix multiplies quickly, and each of them is
/// a build.
pub const TARGETS: usize = 10_000;
