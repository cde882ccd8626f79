//! From a failed call to an error that says who is at fault.

use bk_build::{
    Advice, BuildError, DockerfileFailure, InputError, LineRange, LossKind, Refusal, SessionLost,
    SourceSnippet, StepFailure,
};
use tonic::{Code, Status};

use crate::{advise, channel::chain, details::ErrorDetails, fold::StatusFold, loss::loss_kind};

/// Sorts the failure of a Solve. `filename` names the Dockerfile for daemons that say only a line.
pub(crate) fn solve_failure(status: &Status, fold: &StatusFold, address: &str, filename: &str) -> BuildError {
    if let Some(lost) = transport_failure(status, address) {
        return lost;
    }
    if status.code() == Code::Cancelled {
        return BuildError::Cancelled;
    }
    message_failure(
        status.code() as i32,
        status.message(),
        ErrorDetails::decode(status.details()),
        fold,
        address,
        filename,
    )
}

/// What a generated client says when its connection had ended before the call.
pub(crate) const NOT_READY: &str = "Service was not ready";

/// A failure that came from the connection, not from the daemon.
pub(crate) fn transport_failure(status: &Status, address: &str) -> Option<BuildError> {
    let (text, kind) = match std::error::Error::source(status) {
        Some(source) => (chain(source), loss_kind(source)),
        None if status.message().starts_with(NOT_READY) => {
            ("the connection had ended before".to_owned(), LossKind::Closed)
        }
        None => return None,
    };
    let advice = (matches!(kind, LossKind::GoAway(_)) || is_go_away(&text)).then_some(Advice::GoAway);
    Some(SessionLost::new(address, text).kind(kind).advise(advice).into())
}

/// Whether the other side ended a connection by its own will, in the words of Go's HTTP/2 or of ours.
fn is_go_away(text: &str) -> bool {
    ["GOAWAY", "connection error received"]
        .iter()
        .any(|words| text.contains(words))
}

/// Sorts a failure by its text and details: all that Docker's `/build` gives, and most of what older daemons say.
pub fn message_failure(
    code: i32,
    message: &str,
    details: ErrorDetails,
    fold: &StatusFold,
    address: &str,
    filename: &str,
) -> BuildError {
    let text = &without_ids(&without_refs(&strip(message)));
    let failed = details
        .vertex
        .as_deref()
        .and_then(|id| fold.get(id))
        .or_else(|| fold.failed());
    let exit_code = details.exit_code.or_else(|| exit_code(text));
    if exit_code.is_some()
        || text.contains("did not complete successfully")
        || text.contains("executor failed running")
    {
        let mut step = StepFailure::new(text.clone());
        step.exit_code = exit_code;
        step.snippets = details.snippets;
        if let Some(vertex) = failed {
            step.vertex = Some(vertex.id.clone());
            step.name.clone_from(&vertex.name);
            step.log_tail = fold.log_tail(&vertex.id);
        }
        let clipped = failed.is_some_and(|vertex| fold.is_clipped(&vertex.id));
        step.advice = advise::of_step(text, exit_code, &step.log_tail, clipped);
        return Box::new(step).into();
    }
    if text.contains("no active sessions") {
        return Refusal::new(code, text.clone())
            .advise(Some(Advice::NeedsSession))
            .into();
    }
    if is_go_away(text) {
        return SessionLost::new(address, text)
            .advise(Some(Advice::GoAway))
            .into();
    }
    if text.contains("no active session") || text.contains("session ") && text.contains("not found") {
        return SessionLost::new(address, text)
            .kind(LossKind::Forgotten)
            .advise(Some(Advice::NoSession))
            .into();
    }
    // The last four are what this client answers when a daemon asks.
    const AUTH: [&str; 10] = [
        "401 Unauthorized",
        "403 Forbidden",
        "insufficient_scope",
        "authorization failed",
        "failed to authorize",
        "no basic auth credentials",
        "cannot look up the credentials of registry",
        "wrong or missing credentials for registry",
        "will not give out credentials of registry",
        "cannot get a token of registry",
    ];
    if AUTH.iter().any(|a| text.contains(a)) {
        return BuildError::Auth {
            message: text.clone(),
            source: None,
        };
    }
    let advice = advise::of_message(code, text);
    // Whatever instruction it happened to, it is not the Dockerfile that is wrong.
    if matches!(
        advice,
        Some(
            Advice::DaemonDiskFull
                | Advice::DaemonMemory
                | Advice::RateLimit
                | Advice::MissingEntitlement { .. }
                | Advice::ForbiddenEntitlement { .. }
        )
    ) {
        return Refusal::new(code, text.clone()).advise(advice).into();
    }
    if text.contains("illegal exclusion pattern") || text.contains("syntax error in pattern") {
        return InputError::new("the ignore file", text.clone(), "").into();
    }
    if text.contains("context canceled") && details.snippets.is_empty() {
        return BuildError::Cancelled;
    }
    const DOCKERFILE: [&str; 9] = [
        "dockerfile parse error",
        "Dockerfile parse error",
        "failed to read dockerfile",
        "failed to compute cache key",
        "failed to calculate checksum",
        "failed to parse",
        "target stage",
        "unknown instruction",
        "failed to process",
    ];
    // What old daemons say before everything that their frontend has to say.
    let by_frontend = message.contains("failed to create LLB definition");
    if !details.snippets.is_empty() || by_frontend || DOCKERFILE.iter().any(|d| text.contains(d)) {
        let mut snippets = details.snippets;
        if snippets.is_empty() {
            // Old daemons say only the line; the file's text is the daemon's to show, so none is shown.
            snippets.extend(line_of(text).map(|line| {
                SourceSnippet::new(
                    filename,
                    Vec::new(),
                    vec![LineRange {
                        start: line,
                        end: line,
                    }],
                )
            }));
        }
        let mut failure =
            DockerfileFailure::new(text.clone(), snippets).advise(advice.or_else(|| advise::of_image(text)));
        if text.contains("failed to read dockerfile") {
            failure = failure.hint("name the Dockerfile with -f, or add one to the context");
        } else if text.contains("not found") && (text.contains("cache key") || text.contains("checksum")) {
            failure = failure.hint("the path is not in the context, or an ignore pattern leaves it out");
        }
        return failure.into();
    }
    let advice = advice.or_else(|| advise::of_image(text));
    Refusal::new(code, text.clone()).advise(advice).into()
}

/// A daemon's message without the words that only name the calls it came through.
fn strip(message: &str) -> String {
    let mut text = message;
    loop {
        let before = text;
        for prefix in [
            "failed to solve: ",
            "failed to solve with frontend dockerfile.v0: ",
            "failed to solve with frontend gateway.v0: ",
            "failed to build LLB: ",
        ] {
            text = text.strip_prefix(prefix).unwrap_or(text);
        }
        text = text.strip_prefix(CALL).unwrap_or(text);
        // It says as much as that the Dockerfile was read.
        text = text
            .strip_prefix("failed to create LLB definition: ")
            .unwrap_or(text);
        if text.len() == before.len() {
            return text.replace(CALL, "");
        }
    }
}

/// What gRPC puts before the words of the other side.
const CALL: &str = "rpc error: code = Unknown desc = ";

/// A message without the ids of sessions and builds, 25 letters and digits, which tell a user nothing.
fn without_ids(text: &str) -> String {
    let is_id = |word: &str| {
        word.len() == 25
            && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            && word.bytes().any(|b| b.is_ascii_digit())
    };
    let mut out = String::with_capacity(text.len());
    for (at, word) in text.split(' ').enumerate() {
        let bare = word.trim_end_matches([':', ',']);
        if is_id(bare) {
            let kept = out.strip_suffix(" for").or_else(|| out.strip_suffix(" session"));
            out.truncate(kept.map_or(out.len(), str::len));
            out.push_str(word.get(bare.len()..).unwrap_or_default());
            continue;
        }
        if at > 0 {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

/// A message without the daemon's internal references (` of ref <id>::<id>`), which tell a user nothing.
fn without_refs(text: &str) -> String {
    const WORDS: &str = " of ref ";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(WORDS) {
        let (before, behind) = (&rest[..at], &rest[at + WORDS.len()..]);
        let end = behind.find(": ").unwrap_or(behind.len());
        out.push_str(before);
        if !behind[..end].contains("::") {
            out.push_str(&rest[at..at + WORDS.len() + end]);
        }
        rest = &behind[end..];
    }
    out.push_str(rest);
    out
}

/// The number behind `exit code: `.
fn exit_code(text: &str) -> Option<i32> {
    let rest = &text[text.rfind("exit code: ")? + "exit code: ".len()..];
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .map_or(rest, |end| &rest[..end]);
    digits.parse().ok()
}

/// The number behind `line `, as old daemons place a syntax error.
fn line_of(text: &str) -> Option<i32> {
    text.match_indices("line ").find_map(|(at, word)| {
        let rest = &text[at + word.len()..];
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .map_or(rest, |end| &rest[..end]);
        digits.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use bk_build::{CredentialError, Fault};

    use super::*;

    fn sort(text: &str) -> BuildError {
        message_failure(
            2,
            text,
            ErrorDetails::default(),
            &StatusFold::new(),
            "unix:///x",
            "Dockerfile",
        )
    }

    #[test]
    fn texts_of_old_daemons_are_sorted() {
        let e = sort(
            "failed to solve with frontend dockerfile.v0: failed to solve with frontend gateway.v0: rpc error: code = Unknown \
             desc = failed to build LLB: executor failed running [/bin/sh -c exit 7]: runc did not terminate: exit code: 7",
        );
        assert!(
            matches!(&e, BuildError::Step(s) if s.exit_code == Some(7)),
            "{e:?}"
        );
        let e = sort("dockerfile parse error line 3: unknown instruction: FOO");
        assert!(
            matches!(&e, BuildError::Dockerfile(d) if d.snippets[0].first_line() == Some(3)),
            "{e:?}"
        );
        assert_eq!(sort("pull: 401 Unauthorized").fault(), Fault::Registry);
        assert_eq!(
            sort("no active session for abc: context deadline exceeded").fault(),
            Fault::Network
        );
        let e = sort("write: no space left on device");
        assert!(
            matches!(&e, BuildError::Refused(_)) && e.hint().is_some(),
            "{e:?}"
        );
        assert_eq!(
            sort("no active session for 0p3vj0b6a8l5d9u4x2y7z1q3w: late").to_string(),
            "lost the daemon at unix:///x: no active session: late"
        );
        assert_eq!(
            sort("x: http2: server sent GOAWAY").advice(),
            Some(&Advice::GoAway)
        );
        let e = sort(r#"failed to compute cache key: "/x" not found: not found"#);
        assert!(e.hint().is_some_and(|h| h.contains("ignore pattern")), "{e:?}");
        assert_eq!(sort("context canceled").fault(), Fault::Cancelled);
    }

    #[test]
    fn internal_references_are_left_out() {
        assert_eq!(
            without_refs(r#"checksum of ref abc::def: "/x": not found of ref my-branch: y"#),
            r#"checksum: "/x": not found of ref my-branch: y"#
        );
        assert_eq!(without_refs("of ref a::b"), "of ref a::b");
        assert_eq!(without_refs("x of ref a::b"), "x");
        assert!(matches!(
            sort("illegal exclusion pattern: \"!\""),
            BuildError::Input(_)
        ));
    }

    #[test]
    fn our_own_words_on_credentials_are_known() {
        for error in [
            CredentialError::new("h:1", "x"),
            CredentialError::refused("h:1", "x"),
            CredentialError::denied("h:1", "x"),
            CredentialError::token("h:1", "x"),
        ] {
            // New daemons add the line of the Dockerfile.
            let details = ErrorDetails {
                snippets: vec![SourceSnippet::new("Dockerfile", Vec::new(), Vec::new())],
                ..ErrorDetails::default()
            };
            let text = format!("failed to solve: {error}");
            let e = message_failure(2, &text, details, &StatusFold::new(), "unix:///x", "Dockerfile");
            assert_eq!(e.fault(), Fault::Registry, "{e:?}");
        }
    }

    #[test]
    fn details_win_over_text() {
        let details = ErrorDetails {
            exit_code: Some(3),
            ..ErrorDetails::default()
        };
        let e = message_failure(2, "boom", details, &StatusFold::new(), "unix:///x", "Dockerfile");
        assert!(matches!(&e, BuildError::Step(s) if s.exit_code == Some(3)));
    }
}
