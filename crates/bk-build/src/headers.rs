//! Headers that a program adds to the calls of a build, for proxies and balancers in front of daemons.
//!
//! The rule: nothing that the protocol itself uses can be set here, and no value is ever shown.

use std::{collections::BTreeMap, fmt};

use crate::{
    InputError,
    limits::{MAX_HEADER_VALUE, MAX_HEADERS},
};

/// Headers for every gRPC call of a build and every request of Docker's API, by name. A later value for a name replaces the earlier one.
///
/// Names are lower case, as HTTP/2 wants them; values are printable ASCII. Names that HTTP, gRPC or BuildKit use
/// themselves are refused by [`check`](Self::check), which [`BuildRequest::validate`](crate::BuildRequest::validate)
/// calls. `Debug` shows names only: a value may be a token.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CallHeaders(BTreeMap<String, String>);

/// Names that are not for programs to set.
const RESERVED: [&str; 17] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// What names that are not for programs to set begin with.
const RESERVED_PREFIXES: [&str; 4] = ["grpc-", "buildkit-", "x-buildkit-", "x-docker-expose-session-"];

impl CallHeaders {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a header. What it is checked for, and when: see [`check`](Self::check).
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), value.into());
    }

    /// These headers and those of `other`, which win.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.0.extend(other.0.clone());
        self
    }

    /// Names and values, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks names, values and their number.
    ///
    /// # Errors
    /// An [`InputError`] names the header and what is allowed; it never holds a value.
    pub fn check(&self) -> Result<(), InputError> {
        if self.0.len() > MAX_HEADERS {
            let why = format!("{} are too many", self.0.len());
            return Err(InputError::new(WHAT, why, format!("at most {MAX_HEADERS}")));
        }
        self.iter().try_for_each(|(name, value)| check(name, value))
    }
}

/// What errors are about.
const WHAT: &str = "headers";

fn check(name: &str, value: &str) -> Result<(), InputError> {
    let bad = |why: &str, allowed: &str| Err(InputError::new(WHAT, format!("`{name}`: {why}"), allowed));
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    if name.is_empty() || !name.bytes().all(letter) {
        return bad(
            "this is no name of a header",
            "lower-case letters, digits, `-`, `_` and `.`",
        );
    }
    if name == "traceparent" || name == "tracestate" {
        return bad("a trace context is set as such", "the request's `trace`");
    }
    let prefixed = RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    if prefixed || RESERVED.contains(&name) {
        return bad("HTTP, gRPC or BuildKit use this name themselves", "another name");
    }
    if name.ends_with("-bin") {
        return bad("gRPC takes it for bytes", "a name that does not end in `-bin`");
    }
    if value.len() > MAX_HEADER_VALUE {
        return bad(
            "the value is too long",
            &format!("{MAX_HEADER_VALUE} bytes at most"),
        );
    }
    if !value.bytes().all(|b| (b' '..=b'~').contains(&b)) || value != value.trim() {
        return bad(
            "the value has a character that a header cannot have there",
            "printable ASCII without spaces around it",
        );
    }
    Ok(())
}

impl fmt::Debug for CallHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for CallHeaders {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(all: T) -> Self {
        Self(all.into_iter().map(|(n, v)| (n.into(), v.into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, value: &str) -> Result<(), String> {
        let headers: CallHeaders = [(name, value)].into_iter().collect();
        headers.check().map_err(|e| format!("{e} ({})", e.allowed))
    }

    #[test]
    fn what_the_protocol_uses_is_refused_by_name() {
        for good in ["x-affinity", "authorization", "x_a.b-1"] {
            assert_eq!(of(good, "some value; a=b"), Ok(()), "{good}");
        }
        for name in [
            "grpc-timeout",
            "te",
            "content-type",
            "host",
            "user-agent",
            "x-docker-expose-session-uuid",
            "buildkit-controlapi-buildid",
        ] {
            let e = of(name, "v").expect_err(name);
            let text =
                format!("headers: `{name}`: HTTP, gRPC or BuildKit use this name themselves (another name)");
            assert_eq!(e, text);
        }
        for (name, why) in [
            ("", "this is no name of a header"),
            ("X-Affinity", "this is no name of a header"),
            (":path", "this is no name of a header"),
            ("a b", "this is no name of a header"),
            ("traceparent", "a trace context is set as such"),
            ("x-key-bin", "gRPC takes it for bytes"),
        ] {
            let e = of(name, "v").expect_err(name);
            assert!(e.starts_with(&format!("headers: `{name}`: {why}")), "{e}");
        }
    }

    #[test]
    fn values_are_printable_and_never_shown() {
        let long = "x".repeat(MAX_HEADER_VALUE + 1);
        for bad in ["hunter2\r\nhost: x", "hunter2\0", "hunter2 ", "hünter2", &long] {
            let e = of("x-token", bad).expect_err(bad);
            assert!(
                e.contains("x-token") && !e.contains("nter2") && !e.contains("xxx"),
                "{e}"
            );
        }
        let mut headers = CallHeaders::new();
        headers.set("x-token", "hunter2");
        assert_eq!(format!("{headers:?}"), r#"["x-token"]"#);
    }

    #[test]
    fn later_values_win_and_the_number_is_bounded() {
        let mut first: CallHeaders = [("a", "1"), ("b", "1")].into_iter().collect();
        let second: CallHeaders = [("b", "2")].into_iter().collect();
        first = first.and(&second);
        assert_eq!(first.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
        let many: CallHeaders = (0..=MAX_HEADERS).map(|i| (format!("x-{i}"), "v")).collect();
        let e = many.check().expect_err("too many");
        assert_eq!(
            (e.to_string(), e.allowed),
            ("headers: 33 are too many".to_owned(), "at most 32".to_owned())
        );
    }
}
