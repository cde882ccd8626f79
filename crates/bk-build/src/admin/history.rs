//! What a daemon remembers of its builds.

use std::{
    collections::BTreeMap,
    str::FromStr,
    time::{Duration, SystemTime},
};

use super::parse_duration;
use crate::{Descriptor, InputError, serial};

/// One build that a daemon remembers. BuildKit 0.11.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct HistoryRecord {
    /// Its id.
    pub build_ref: String,
    /// How it stands.
    pub state: HistoryState,
    /// Why it failed.
    pub error: Option<HistoryError>,
    /// The frontend that it asked for.
    pub frontend: String,
    /// What it asked of the frontend. Values of arguments may be private.
    pub attrs: BTreeMap<String, String>,
    /// The exporters that it asked for.
    pub exporters: Vec<HistoryExporter>,
    /// When it began.
    #[serde(with = "serial::maybe_time")]
    pub created_at: Option<SystemTime>,
    /// When it ended; `None` while it runs.
    #[serde(with = "serial::maybe_time")]
    pub completed_at: Option<SystemTime>,
    /// Steps so far.
    pub total_steps: u32,
    /// Steps that ended.
    pub completed_steps: u32,
    /// Steps whose result came from the cache.
    pub cached_steps: u32,
    /// Warnings.
    pub warnings: u32,
    /// It is kept when the daemon cleans its history.
    pub pinned: bool,
    /// Grows with every change of the record.
    pub generation: u32,
    /// What the exporters answered.
    pub exporter_response: BTreeMap<String, String>,
    /// Results by platform, `os/arch[/variant]`; under an empty name for a build that names none.
    pub results: BTreeMap<String, HistoryResult>,
    /// Blob with its progress.
    pub logs: Option<Descriptor>,
    /// Blob with its trace: spans as JSON objects, one behind the other, as Go's OpenTelemetry writes them.
    pub trace: Option<Descriptor>,
    /// Blob with the whole error, when it is too large for the record.
    pub external_error: Option<Descriptor>,
}

/// How a build of the history stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum HistoryState {
    /// It runs.
    #[default]
    Running,
    /// It succeeded.
    Completed,
    /// It failed.
    Error,
    /// It was cancelled.
    Canceled,
}

impl HistoryState {
    /// Its name, as filters spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Error => "error",
            Self::Canceled => "canceled",
        }
    }
}

/// Why a build of the history failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct HistoryError {
    /// The gRPC code.
    pub code: i32,
    /// What the daemon said.
    pub message: String,
}

impl HistoryError {
    /// The daemon said `message` with that gRPC code.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// An exporter that a build asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct HistoryExporter {
    /// Its type.
    pub kind: String,
    /// Its attributes.
    pub attrs: BTreeMap<String, String>,
}

impl HistoryExporter {
    /// An exporter of that type with these attributes.
    pub fn new(kind: impl Into<String>, attrs: BTreeMap<String, String>) -> Self {
        Self {
            kind: kind.into(),
            attrs,
        }
    }
}

/// What came out of a build, for one platform.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct HistoryResult {
    /// The result of each exporter, by its index in the request.
    pub results: BTreeMap<i64, Descriptor>,
    /// Statements about it, the provenance above all.
    pub attestations: Vec<Descriptor>,
}

/// What an export of the history has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct HistoryExport {
    /// Records of builds.
    pub records: u64,
    /// Blobs, those of the records themselves too.
    pub blobs: u64,
    /// Bytes of the archive.
    pub bytes: u64,
}

impl HistoryRecord {
    /// How long it took; so far, when it runs. `None` when the daemon does not say when it began, or clocks disagree.
    pub fn duration(&self) -> Option<Duration> {
        let end = self.completed_at.unwrap_or_else(SystemTime::now);
        end.duration_since(self.created_at?).ok()
    }

    /// A name for people: the target and the Dockerfile or the context, as far as the request says.
    pub fn name(&self) -> String {
        let attr = |name: &str| self.attrs.get(name).map(String::as_str).filter(|v| !v.is_empty());
        let context = attr("vcs:localdir:context")
            .or_else(|| attr("context"))
            .unwrap_or_default();
        let file = attr("vcs:localdir:dockerfile")
            .map(|dir| format!("{dir}/{}", attr("filename").unwrap_or("Dockerfile")))
            .or_else(|| attr("filename").map(str::to_owned));
        let mut name = match (context, file) {
            ("", None) => String::new(),
            ("", Some(file)) => file,
            (context, None) => context.to_owned(),
            (context, Some(file)) if file == "Dockerfile" => context.to_owned(),
            (context, Some(file)) => format!("{} ({file})", context.trim_end_matches('/')),
        };
        if let Some(target) = attr("target") {
            name = match name.is_empty() {
                true => target.to_owned(),
                false => format!("{name} [{target}]"),
            };
        }
        name
    }
}

/// The record that a user means: a whole id (behind `BUILDER/NODE/` or not), the beginning of exactly one, `^N` for the
/// one N before the newest, or nothing for the newest. `records` are newest first.
///
/// # Errors
/// An [`InputError`] that says why none is meant, or which are.
pub fn find_record<'a>(records: &'a [HistoryRecord], text: &str) -> Result<&'a HistoryRecord, InputError> {
    const ALLOWED: &str = "the id of a build or its beginning, or ^N for the N-th before the newest";
    let bad = |why: String| InputError::new("REF", why, ALLOWED);
    if text.is_empty() || text.starts_with('^') {
        let digits = text.strip_prefix('^').unwrap_or("0");
        let offset: usize = digits
            .parse()
            .map_err(|_| bad(format!("`{text}` has no number behind the ^")))?;
        return records.get(offset).ok_or_else(|| match records.len() {
            0 => bad("the daemon remembers no build".to_owned()),
            count => bad(format!("`{text}`: the daemon remembers {count} builds only")),
        });
    }
    let wanted = text.rsplit('/').next().unwrap_or(text);
    if wanted.is_empty() {
        return Err(bad(format!("`{text}` ends without an id")));
    }
    if let Some(record) = records.iter().find(|r| r.build_ref == wanted) {
        return Ok(record);
    }
    let mut found = records.iter().filter(|r| r.build_ref.starts_with(wanted));
    match (found.next(), found.next()) {
        (Some(record), None) => Ok(record),
        (None, _) => Err(bad(format!("the daemon remembers no build `{wanted}`"))),
        (Some(one), Some(other)) => Err(bad(format!(
            "`{wanted}` is the beginning of several, among them {} and {}",
            one.build_ref, other.build_ref
        ))),
    }
}

/// A condition on builds of the history, for instance `status=error`, `ref=abc…` or `duration>10s`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HistoryFilter {
    /// `ref=ID`, a whole id; `ref~=TEXT`, a part of one.
    Ref(String, bool),
    /// `status=running|completed|error|canceled`, or `status!=…` with `false`.
    Status(HistoryState, bool),
    /// `duration>TIME`, and `<`: whether it took longer, or less.
    Duration(std::cmp::Ordering, Duration),
    /// `startedAt>TIME` and `completedAt>TIME`, and `<`: later or earlier than so long ago.
    Age {
        /// Whether the end is meant, not the beginning.
        completed: bool,
        /// Later or earlier.
        order: std::cmp::Ordering,
        /// How long ago.
        ago: Duration,
    },
    /// `pinned`, or `pinned=false`.
    Pinned(bool),
}

impl FromStr for HistoryFilter {
    type Err = InputError;

    fn from_str(text: &str) -> Result<Self, InputError> {
        const ALLOWED: &str = "ref=ID, ref~=TEXT, status=STATE (running, completed, error, canceled), status!=STATE, \
            duration>TIME, startedAt<TIME, completedAt>TIME (with > or <, a time ago), pinned";
        let bad = |why: &str| InputError::new("--filter", format!("`{text}`: {why}"), ALLOWED);
        let end = text.find(['=', '!', '~', '<', '>']).unwrap_or(text.len());
        let (field, rest) = text.split_at(end);
        let signs = rest.find(|c: char| !"=!~<>".contains(c)).unwrap_or(rest.len());
        let (sign, value) = rest.split_at(signs);
        let order = || match sign {
            ">" | ">=" => Ok(std::cmp::Ordering::Greater),
            "<" | "<=" => Ok(std::cmp::Ordering::Less),
            _ => Err(bad("it is compared with > or <")),
        };
        Ok(match (field, sign) {
            ("ref", "=" | "==") => Self::Ref(value.to_owned(), true),
            ("ref", "~=") => Self::Ref(value.to_owned(), false),
            ("status", "=" | "==" | "!=") => {
                use HistoryState::{Canceled, Completed, Error, Running};
                let mut states = [Running, Completed, Error, Canceled].into_iter();
                let state = states
                    .find(|s| s.name() == value)
                    .ok_or_else(|| bad("there is no such state"))?;
                Self::Status(state, sign != "!=")
            }
            ("duration", _) => Self::Duration(order()?, parse_duration("--filter", value)?),
            ("startedAt" | "completedAt", _) => Self::Age {
                completed: field == "completedAt",
                order: order()?,
                ago: parse_duration("--filter", value)?,
            },
            ("pinned", "") => Self::Pinned(true),
            ("pinned", "=" | "==") => Self::Pinned(value.parse().map_err(|_| bad("it is true or false"))?),
            ("ref" | "status" | "pinned", _) => return Err(bad("it cannot be compared like that")),
            _ => return Err(bad("there is no such field")),
        })
    }
}

impl HistoryFilter {
    /// Whether a build fulfils it. It is this side that looks, so daemons of every age give the same.
    pub fn holds(&self, record: &HistoryRecord) -> bool {
        match self {
            Self::Ref(text, true) => record.build_ref == *text,
            Self::Ref(text, false) => record.build_ref.contains(text),
            Self::Status(state, is) => (record.state == *state) == *is,
            Self::Duration(order, time) => record.duration().is_some_and(|d| d.cmp(time) == *order),
            Self::Age {
                completed,
                order,
                ago,
            } => {
                let at = if *completed {
                    record.completed_at
                } else {
                    record.created_at
                };
                let mark = SystemTime::now().checked_sub(*ago);
                matches!((at, mark), (Some(at), Some(mark)) if at.cmp(&mark) == *order)
            }
            Self::Pinned(yes) => record.pinned == *yes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> HistoryRecord {
        HistoryRecord {
            build_ref: id.to_owned(),
            ..HistoryRecord::default()
        }
    }

    #[test]
    fn records_are_found_by_id_beginning_and_place() {
        let records = [record("abc1"), record("abd2"), record("abc")];
        for (text, id) in [
            ("", "abc1"),
            ("^0", "abc1"),
            ("^2", "abc"),
            ("abd", "abd2"),
            ("default/default/abd2", "abd2"),
            ("abc", "abc"),
        ] {
            assert_eq!(find_record(&records, text).expect(text).build_ref, id);
        }
        for (text, why) in [
            ("^3", "REF: `^3`: the daemon remembers 3 builds only"),
            ("^x", "REF: `^x` has no number behind the ^"),
            (
                "ab",
                "REF: `ab` is the beginning of several, among them abc1 and abd2",
            ),
            ("z", "REF: the daemon remembers no build `z`"),
            ("a/", "REF: `a/` ends without an id"),
        ] {
            assert_eq!(find_record(&records, text).expect_err(text).to_string(), why);
        }
        assert_eq!(
            find_record(&[], "").expect_err("none").to_string(),
            "REF: the daemon remembers no build"
        );
    }

    #[test]
    fn filters_select() {
        let second = Duration::from_secs(1);
        let mut one = record("one");
        one.state = HistoryState::Error;
        one.created_at = SystemTime::now().checked_sub(second * 100);
        one.completed_at = one.created_at.map(|t| t + second * 10);
        for (text, holds) in [
            ("ref=one", true),
            ("ref=on", false),
            ("ref~=n", true),
            ("status=error", true),
            ("status!=error", false),
            ("duration>9s", true),
            ("duration<9s", false),
            ("startedAt>1h", true),
            ("completedAt<1m", true),
            ("pinned", false),
            ("pinned=false", true),
        ] {
            let filter: HistoryFilter = text.parse().expect(text);
            assert_eq!(filter.holds(&one), holds, "{text}");
        }
        for bad in [
            "x=1",
            "status=odd",
            "status>x",
            "duration=1s",
            "duration>x",
            "ref",
            "pinned=maybe",
        ] {
            assert!(bad.parse::<HistoryFilter>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_say_what_was_built() {
        let name = |attrs: &[(&str, &str)]| {
            let mut one = record("x");
            one.attrs = attrs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            one.name()
        };
        assert_eq!(name(&[]), "");
        assert_eq!(name(&[("target", "t")]), "t");
        assert_eq!(
            name(&[("context", "https://h/r.git"), ("filename", "Dockerfile")]),
            "https://h/r.git"
        );
        assert_eq!(name(&[("filename", "other"), ("target", "t")]), "other [t]");
        assert_eq!(
            name(&[("context", "c"), ("filename", "d/Dockerfile")]),
            "c (d/Dockerfile)"
        );
    }
}
