//! Which trace a build belongs to, in the words of the W3C recommendation "Trace Context".
//!
//! The rule: what is passed on was checked here, character by character; nothing is repaired.

use crate::{
    InputError,
    limits::{MAX_TRACE_ENTRIES, MAX_TRACE_STATE},
};

/// The trace and the span in it that a build belongs to: a `traceparent`, and maybe a `tracestate`.
///
/// Both go with every gRPC call of the build, so that the daemon's spans become children of that span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    parent: String,
    state: Option<String>,
}

/// The lengths of the parts of a `traceparent`: version, trace id, span id, flags.
const PARTS: [usize; 4] = [2, 32, 16, 2];
const ALLOWED: &str = "00-TRACE-SPAN-FLAGS with 32, 16 and 2 lower-case hexadecimal digits";

impl TraceContext {
    /// Takes the text of a `traceparent`, for instance `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`.
    ///
    /// Later versions of the format are taken as long as they begin like version 00, and are passed on as they are.
    ///
    /// # Errors
    /// An [`InputError`] about `traceparent` says what is wrong with the text.
    pub fn parse(parent: &str) -> Result<Self, InputError> {
        let bad = |why: &str| {
            let shown: String = parent.chars().take(80).collect();
            Err(InputError::new(
                "traceparent",
                format!("`{shown}`: {why}"),
                ALLOWED,
            ))
        };
        let parts: Vec<&str> = parent.split('-').collect();
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let whole = parts.len() >= PARTS.len()
            && parts
                .iter()
                .zip(PARTS)
                .all(|(part, length)| part.len() == length && part.bytes().all(hex));
        if !whole {
            return bad("this is not a trace context");
        }
        match parts[0] {
            "ff" => return bad("there is no version ff"),
            "00" if parts.len() > PARTS.len() => return bad("version 00 has four parts"),
            // What a later version appends is not known here, but it is still text for a header.
            _ if parent.len() > MAX_TRACE_STATE || !parent.bytes().all(|b| (b'!'..=b'~').contains(&b)) => {
                return bad("it cannot be sent");
            }
            _ => {}
        }
        if parts[1].bytes().all(|b| b == b'0') {
            return bad("the trace has no id");
        }
        if parts[2].bytes().all(|b| b == b'0') {
            return bad("the span has no id");
        }
        Ok(Self {
            parent: parent.to_owned(),
            state: None,
        })
    }

    /// Adds the text of a `tracestate`: `key=value` entries with commas between them. Empty text means none.
    ///
    /// # Errors
    /// An [`InputError`] about `tracestate` says what is wrong with the text.
    pub fn state(mut self, state: &str) -> Result<Self, InputError> {
        check_state(state).map_err(|(why, allowed)| InputError::new("tracestate", why, allowed))?;
        let state = state.trim_matches([' ', '\t']);
        self.state = (!state.is_empty()).then(|| state.to_owned());
        Ok(self)
    }

    /// The `traceparent`.
    pub fn traceparent(&self) -> &str {
        &self.parent
    }

    /// The `tracestate`, if there is one.
    pub fn tracestate(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// The trace's id: 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        self.part(1)
    }

    /// The id of the span that the build is a part of: 16 hexadecimal digits.
    pub fn span_id(&self) -> &str {
        self.part(2)
    }

    /// Whether whoever began the trace records it. Daemons record nothing of one that is not.
    pub fn is_sampled(&self) -> bool {
        u8::from_str_radix(self.part(3), 16).is_ok_and(|flags| flags & 1 == 1)
    }

    fn part(&self, index: usize) -> &str {
        // There are four at least, or this value would not exist.
        self.parent.split('-').nth(index).unwrap_or_default()
    }
}

/// What is wrong with a `tracestate`, and what is allowed.
fn check_state(text: &str) -> Result<(), (String, String)> {
    if text.len() > MAX_TRACE_STATE {
        let allowed = format!("{MAX_TRACE_STATE} bytes at most");
        return Err(("the text is too long".to_owned(), allowed));
    }
    let entries: Vec<&str> = text
        .split(',')
        .map(|entry| entry.trim_matches([' ', '\t']))
        .filter(|entry| !entry.is_empty())
        .collect();
    if entries.len() > MAX_TRACE_ENTRIES {
        let allowed = format!("{MAX_TRACE_ENTRIES} at most");
        return Err((format!("{} entries are too many", entries.len()), allowed));
    }
    for (at, entry) in entries.iter().enumerate() {
        let wrong = || {
            let allowed = "KEY=VALUE,KEY=VALUE with keys of lower-case letters, digits, `_-*/@`";
            Err((format!("`{entry}` is no entry"), allowed.to_owned()))
        };
        let Some((key, value)) = entry.split_once('=') else {
            return wrong();
        };
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-*/@".contains(&b);
        let first = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let in_value = |b: u8| (b' '..=b'~').contains(&b) && b != b'=';
        if !key.as_bytes().first().is_some_and(first)
            || !key.bytes().all(letter)
            || value.is_empty()
            || !value.bytes().all(in_value)
        {
            return wrong();
        }
        if entries[..at]
            .iter()
            .any(|e| e.split_once('=').is_some_and(|(k, _)| k == key))
        {
            return Err((format!("`{key}` is there twice"), "each key once".to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_context_is_taken_apart_and_kept_as_it_is() {
        let context = TraceContext::parse(PARENT).expect("the recommendation's example");
        assert_eq!(context.traceparent(), PARENT);
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span_id(), "00f067aa0ba902b7");
        assert!(context.is_sampled() && context.tracestate().is_none());
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more";
        let later = TraceContext::parse(later).expect("a later version");
        assert!(!later.is_sampled());
        let state = "rojo=00f067aa0ba902b7, congo=t61rcWkgMzE,t@v/a=x y";
        let context = context.state(state).expect("a state");
        assert_eq!(context.tracestate(), Some(state));
        assert_eq!(context.state(" ").expect("nothing").tracestate(), None);
    }

    #[test]
    fn everything_else_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "this is not a trace context"),
            ("00-4bf9-00f067aa0ba902b7-01", "this is not a trace context"),
            (
                "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                "this is not a trace context",
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
                "this is not a trace context",
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
                "version 00 has four parts",
            ),
            (
                "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                "there is no version ff",
            ),
            (
                "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-a\r\nb",
                "it cannot be sent",
            ),
            (
                "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                "the trace has no id",
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                "the span has no id",
            ),
        ] {
            let e = TraceContext::parse(text).expect_err(text);
            assert_eq!(e.to_string(), format!("traceparent: `{text}`: {why}"));
        }
    }

    #[test]
    fn states_are_checked_entry_by_entry() {
        let many = (0..33).map(|i| format!("k{i}=v,")).collect::<String>();
        let long = format!("k={}", "v".repeat(512));
        for (text, why) in [
            ("k", "`k` is no entry"),
            ("K=v", "`K=v` is no entry"),
            ("=v", "`=v` is no entry"),
            ("k=", "`k=` is no entry"),
            ("k=a=b", "`k=a=b` is no entry"),
            ("k=ü", "`k=ü` is no entry"),
            ("k=v,k=w", "`k` is there twice"),
            (&many, "33 entries are too many"),
            (&long, "the text is too long"),
        ] {
            let context = TraceContext::parse(PARENT).expect("a parent");
            let e = context.state(text).expect_err(text);
            assert_eq!(e.to_string(), format!("tracestate: {why}"));
        }
    }
}
