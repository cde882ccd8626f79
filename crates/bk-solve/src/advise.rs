//! What is known by the words of a daemon or of a step, beyond what they say.
//!
//! The rule: only words that mean one thing are recognised; a wrong advice is worse than none.

use bk_build::Advice;

/// What BuildKit writes into the output of a step instead of what it leaves out.
const CLIPPED: &[u8] = b"[output clipped, log limit ";

/// Whether a piece of a step's output says that output was left out.
pub(crate) fn is_clipped(output: &[u8]) -> bool {
    output.windows(CLIPPED.len()).any(|w| w == CLIPPED)
}

/// What is known by a daemon's message that is not about the process of a step; `code` is the gRPC code that it came with.
pub fn of_message(code: i32, text: &str) -> Option<Advice> {
    let has = |part: &str| text.contains(part);
    if has("no space left on device") {
        return Some(Advice::DaemonDiskFull);
    }
    if has("cannot allocate memory") || has("out of memory") {
        return Some(Advice::DaemonMemory);
    }
    if has("toomanyrequests") || has("429 Too Many Requests") {
        return Some(Advice::RateLimit);
    }
    if let Some(entitlement) = between(text, "granting entitlement ", " is not allowed") {
        return Some(Advice::ForbiddenEntitlement { entitlement });
    }
    for entitlement in ["network.host", "security.insecure"] {
        if has(&format!("{entitlement} is not allowed")) {
            let entitlement = entitlement.to_owned();
            return Some(Advice::MissingEntitlement { entitlement });
        }
    }
    if let Some(id) = between(text, "secret ", " not found").filter(|id| !id.contains(' ')) {
        let id = id.trim_end_matches(':').to_owned();
        return Some(Advice::MissingSecret { id });
    }
    if has("dial tcp") || has("no such host") || has("connection refused") {
        let address = between(text, "\"https://", "\"").or_else(|| between(text, "\"http://", "\""));
        let host = address.and_then(|a| a.split('/').next().map(str::to_owned));
        return host.map(|host| Advice::Unreachable { host });
    }
    let no_exporter = has("exporter \"") && has("could not be found");
    if no_exporter || has("unknown cache exporter") || has("unknown scheme oci-layout") {
        return Some(Advice::ContainerdStore);
    }
    if has("failed to prepare extraction snapshot") && has("parent snapshot") && has("does not exist") {
        return Some(Advice::LayerRemoved);
    }
    if has("invalid frontend") || has("no such frontend") {
        return Some(Advice::NoFrontend);
    }
    match code {
        INTERNAL => Some(Advice::DaemonFault),
        UNAVAILABLE => Some(Advice::TryAgain),
        _ => None,
    }
}

const INTERNAL: i32 = bk_build::Refusal::INTERNAL;
const UNAVAILABLE: i32 = bk_build::Refusal::UNAVAILABLE;

/// About an image that could not be found in its registry, as daemons of all ages say it.
pub(crate) fn of_image(text: &str) -> Option<Advice> {
    if text.contains("no match for platform in manifest") {
        return Some(Advice::NoPlatform);
    }
    let about_image = text.contains("failed to resolve source metadata for") || image_alone(text);
    (about_image && text.trim_end().ends_with("not found")).then_some(Advice::NoImage)
}

/// `host/name:tag: not found` and nothing else.
fn image_alone(text: &str) -> bool {
    let name = text.strip_suffix(": not found").unwrap_or_default();
    name.contains('/') && !name.contains([' ', '"'])
}

/// About a step whose process failed with that code; `tail` is its last output, `clipped` whether some was left out.
pub(crate) fn of_step(text: &str, exit_code: Option<i32>, tail: &[String], clipped: bool) -> Option<Advice> {
    let says = |part: &str| text.contains(part) || tail.iter().any(|line| line.contains(part));
    // Only the last line: what failed says so last, and much else may have been said before.
    let last = |part: &str| tail.last().is_some_and(|line| line.contains(part)) || text.contains(part);
    if last("exec format error") || text.contains("buildkit_qemu_emulator") {
        return Some(Advice::NoEmulator);
    }
    if last("unable to start container process")
        && let Some(program) = [text]
            .into_iter()
            .chain(tail.last().map(String::as_str))
            .find_map(|line| between(line, "exec: \"", "\""))
    {
        return Some(match last("permission denied") {
            true => Advice::NotExecutable,
            false => Advice::NoProgram { program },
        });
    }
    match exit_code {
        Some(137) => Some(Advice::Killed),
        _ if last("Cannot allocate memory") || last("cannot allocate memory") => Some(Advice::Killed),
        Some(127) if last("not found") => Some(Advice::CommandNotFound),
        Some(126) if last("ermission denied") => Some(Advice::NotExecutable),
        _ if clipped || says("[output clipped, log limit ") => Some(Advice::ClippedLog),
        _ => None,
    }
}

fn between(text: &str, before: &str, behind: &str) -> Option<String> {
    let start = text.find(before)? + before.len();
    let rest = text.get(start..)?;
    let found = rest.get(..rest.find(behind)?)?;
    (!found.is_empty() && !found.contains('\n')).then(|| found.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_daemons_are_recognised() {
        let entitlement = "network.host".to_owned();
        for (text, advice) in [
            (
                "failed to load LLB: network.host is not allowed",
                Some(Advice::MissingEntitlement {
                    entitlement: entitlement.clone(),
                }),
            ),
            (
                "granting entitlement network.host is not allowed by build daemon configuration",
                Some(Advice::ForbiddenEntitlement { entitlement }),
            ),
            (
                "secret token not found: not found",
                Some(Advice::MissingSecret {
                    id: "token".to_owned(),
                }),
            ),
            (
                "secret token: not found",
                Some(Advice::MissingSecret {
                    id: "token".to_owned(),
                }),
            ),
            (
                "failed to do request: Head \"https://h.test:5000/v2/x\": dial tcp 10.0.0.1:5000: connect: connection refused",
                Some(Advice::Unreachable {
                    host: "h.test:5000".to_owned(),
                }),
            ),
            ("429 Too Many Requests", Some(Advice::RateLimit)),
            ("something else", None),
        ] {
            assert_eq!(of_message(2, text), advice, "{text}");
        }
        assert_eq!(of_image("h.test/a:1: not found"), Some(Advice::NoImage));
        assert_eq!(of_image("\"/a\": not found"), None);
        for text in [
            "h.test/a:1: failed to resolve source metadata for h.test/a:1: no match for platform in manifest: not found",
            "no match for platform in manifest sha256:12: not found",
        ] {
            assert_eq!(of_image(text), Some(Advice::NoPlatform));
        }
    }

    #[test]
    fn ends_of_steps_are_recognised() {
        let step = |code, line: &str| of_step("process failed", Some(code), &[line.to_owned()], false);
        assert_eq!(
            step(1, "exec /bin/x: exec format error"),
            Some(Advice::NoEmulator)
        );
        assert_eq!(
            step(127, "/bin/sh: make: not found"),
            Some(Advice::CommandNotFound)
        );
        assert_eq!(step(127, "my own 127"), None);
        assert_eq!(step(137, ""), Some(Advice::Killed));
        assert_eq!(step(126, "sh: x: Permission denied"), Some(Advice::NotExecutable));
        let no_program = "runc run failed: unable to start container process: exec: \"/bin/bash\": stat /bin/bash: no such \
                          file or directory";
        assert_eq!(
            step(1, no_program),
            Some(Advice::NoProgram {
                program: "/bin/bash".to_owned()
            })
        );
        assert_eq!(of_step("", Some(1), &[], true), Some(Advice::ClippedLog));
        assert!(is_clipped(b"x\n[output clipped, log limit 2MiB reached]\n"));
    }
}
