//! Exit codes: what a script may rely on. The numbers are those of `docker buildx` where it has one.

use bk_client::{Advice, BuildError, Fault, Refusal};

/// The build succeeded, or help was asked for.
pub(crate) const SUCCESS: u8 = 0;
/// The build failed.
pub(crate) const FAILURE: u8 = 1;
/// The command line is wrong; nothing was sent to a daemon.
pub(crate) const USAGE: u8 = 2;
/// A fault inside the daemon or inside `bk`, not in what was built.
pub(crate) const INTERNAL: u8 = 100;
/// `bk` ran into a bug and stopped; what Rust programs use.
pub(crate) const PANIC: u8 = 101;
/// The daemon ran out of memory or disk space.
pub(crate) const RESOURCES: u8 = 102;
/// The build was cancelled, by a signal or on the daemon.
pub(crate) const CANCELLED: u8 = 130;

/// The exit code of a failed build.
pub(crate) fn of(error: &BuildError) -> u8 {
    match error {
        BuildError::Input(_) => USAGE,
        BuildError::Cancelled => CANCELLED,
        BuildError::Refused(e) if e.code == Refusal::INTERNAL => INTERNAL,
        BuildError::Refused(e) if e.code == Refusal::RESOURCE_EXHAUSTED => RESOURCES,
        BuildError::Refused(e) if e.advice.as_ref().is_some_and(Advice::is_about_resources) => RESOURCES,
        BuildError::Protocol(_) => INTERNAL,
        e if e.fault() == Fault::Program => INTERNAL,
        _ => FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use bk_client::{ConnectError, DockerfileFailure, InputError, ProtocolFailure, StepFailure};

    use super::*;

    #[test]
    fn each_fault_has_its_code() {
        for (error, code) in [
            (BuildError::from(InputError::new("--tag", "bad", "")), 2),
            (BuildError::Cancelled, 130),
            (Refusal::new(13, "panic").into(), 100),
            (Refusal::new(8, "no space left on device").into(), 102),
            (Refusal::new(2, "no").into(), 1),
            (ProtocolFailure::new("odd").into(), 100),
            (BuildError::Misuse("x".to_owned()), 100),
            (Box::new(StepFailure::new("exit code: 1")).into(), 1),
            (
                DockerfileFailure::new("unknown instruction", Vec::new()).into(),
                1,
            ),
            (ConnectError::single("unix:///x", "gone").into(), 1),
        ] {
            assert_eq!(of(&error), code, "{error}");
        }
    }
}
