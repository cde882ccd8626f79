//! Questions about a Dockerfile that its frontend answers without building anything.

use std::{collections::BTreeMap, fmt, str::FromStr};

use bytes::Bytes;
use serde::{Deserialize, de::DeserializeOwned};

use crate::{InputError, ProtocolFailure, SourceSnippet, snippet::LineRange};

/// A question to the frontend. Nothing is built and nothing comes out but the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Call {
    /// What its rules find fault with. From BuildKit 0.14 on, or a Dockerfile frontend 1.8 that a `# syntax=` line names.
    Check,
    /// Which arguments, secrets and keys the chosen target takes. From BuildKit 0.11 on, or a frontend 1.5.
    Outline,
    /// Which stages there are. From BuildKit 0.11 on, or a frontend 1.5.
    Targets,
    /// A question by its name on the wire, for instance `frontend.subrequests.describe`.
    Named(String),
}

impl Call {
    /// The question's name on the wire.
    pub fn request_id(&self) -> &str {
        match self {
            Self::Check => "frontend.lint",
            Self::Outline => "frontend.outline",
            Self::Targets => "frontend.targets",
            Self::Named(name) => name,
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Check => "check",
            Self::Outline => "outline",
            Self::Targets => "targets",
            Self::Named(name) => name.strip_prefix(PREFIX).unwrap_or(name),
        })
    }
}

/// What the names of all questions begin with; left out on command lines.
const PREFIX: &str = "frontend.";

impl FromStr for Call {
    type Err = InputError;

    /// `check` (or `lint`), `outline`, `targets`, or the name of another question, with or without `frontend.`.
    fn from_str(text: &str) -> Result<Self, InputError> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        match text.strip_prefix(PREFIX).unwrap_or(text) {
            "check" | "lint" => Ok(Self::Check),
            "outline" => Ok(Self::Outline),
            "targets" => Ok(Self::Targets),
            name if !name.is_empty() && name.bytes().all(word) => Ok(Self::Named(format!("{PREFIX}{name}"))),
            _ => Err(InputError::new(
                "--call",
                format!("`{text}` is no name of a question"),
                "build, check, outline or targets",
            )),
        }
    }
}

/// What the frontend answered. It is the daemon's word and not checked until one of the typed readers is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallAnswer {
    /// For people: lines of text. `None` when the frontend gave none.
    pub text: Option<String>,
    /// For programs: JSON as it came. `None` when the frontend gave none.
    pub json: Option<Bytes>,
    /// The version of the JSON's form.
    pub version: Option<String>,
    /// What a process that shows the answer should exit with; 0 unless the frontend says something else.
    pub status: i32,
    /// All that came, by name; the fields above are made of it.
    pub metadata: BTreeMap<String, Bytes>,
}

impl CallAnswer {
    /// An answer out of the metadata of a result.
    ///
    /// # Errors
    /// [`ProtocolFailure`] when a text is not UTF-8 or the status is no number.
    pub fn from_metadata(metadata: BTreeMap<String, Bytes>) -> Result<Self, ProtocolFailure> {
        let text = |key: &str| {
            let Some(bytes) = metadata.get(key) else {
                return Ok(None);
            };
            match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Some(text.to_owned())),
                Err(e) => {
                    Err(ProtocolFailure::new(format!("its answer's `{key}` is not UTF-8")).caused_by(e))
                }
            }
        };
        let status = match text("result.statuscode")? {
            None => 0,
            Some(number) => number.trim().parse().map_err(|e: std::num::ParseIntError| {
                ProtocolFailure::new("its answer's `result.statuscode` is no number").caused_by(e)
            })?,
        };
        Ok(Self {
            text: text("result.txt")?,
            json: metadata.get("result.json").cloned(),
            version: text("version")?,
            status,
            metadata,
        })
    }

    /// The answer to [`Call::Check`].
    ///
    /// # Errors
    /// [`ProtocolFailure`] when the answer is none to that question.
    pub fn check(&self) -> Result<Check, ProtocolFailure> {
        self.read("check")
    }

    /// The answer to [`Call::Outline`].
    ///
    /// # Errors
    /// [`ProtocolFailure`] when the answer is none to that question.
    pub fn outline(&self) -> Result<Outline, ProtocolFailure> {
        self.read("outline")
    }

    /// The answer to [`Call::Targets`].
    ///
    /// # Errors
    /// [`ProtocolFailure`] when the answer is none to that question.
    pub fn targets(&self) -> Result<Targets, ProtocolFailure> {
        self.read("targets")
    }

    fn read<T: DeserializeOwned>(&self, what: &str) -> Result<T, ProtocolFailure> {
        let json = self
            .json
            .as_ref()
            .ok_or_else(|| ProtocolFailure::new(format!("its answer to `{what}` holds no JSON")))?;
        serde_json::from_slice(json)
            .map_err(|e| ProtocolFailure::new(format!("its answer to `{what}` cannot be read")).caused_by(e))
    }
}

/// What the rules of a frontend find fault with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Check {
    /// What was found, in the frontend's order.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub warnings: Vec<CheckWarning>,
    /// The Dockerfiles that places refer to.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub sources: Vec<CheckSource>,
    /// What stopped the check: with it the warnings are those found until then.
    #[serde(default, rename = "buildError")]
    pub error: Option<CheckError>,
}

impl Check {
    /// Whether there is nothing to say.
    pub fn is_clean(&self) -> bool {
        self.warnings.is_empty() && self.error.is_none()
    }

    /// A place with the lines around it; `None` when the answer lacks its Dockerfile.
    pub fn snippet(&self, place: &Place) -> Option<SourceSnippet> {
        let source = self.sources.get(place.source)?;
        let ranges = place.ranges.iter().map(|r| LineRange {
            start: r.start.line,
            end: r.end.line.max(r.start.line),
        });
        Some(SourceSnippet::new(
            source.filename.clone(),
            source.data.clone(),
            ranges.collect(),
        ))
    }
}

/// One thing that a rule finds fault with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[non_exhaustive]
pub struct CheckWarning {
    /// The rule, for instance `StageNameCasing`.
    pub rule_name: String,
    /// What the rule says.
    pub description: String,
    /// Where to read about it.
    pub url: String,
    /// What it says about this Dockerfile.
    pub detail: String,
    /// Where.
    pub location: Option<Place>,
}

/// What stopped a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct CheckError {
    /// What the frontend said.
    pub message: String,
    /// Where.
    pub location: Option<Place>,
}

/// A Dockerfile that places refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct CheckSource {
    /// Its name.
    pub filename: String,
    /// Its text.
    #[serde(deserialize_with = "base64_text")]
    pub data: Bytes,
}

/// What the chosen target takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Outline {
    /// The target.
    pub name: String,
    /// The comment above it.
    pub description: String,
    /// Build arguments that have an effect on it.
    #[serde(deserialize_with = "null_is_empty")]
    pub args: Vec<OutlineArg>,
    /// Secrets that its steps mount.
    #[serde(deserialize_with = "null_is_empty")]
    pub secrets: Vec<OutlineMount>,
    /// SSH agents and keys that its steps mount.
    #[serde(deserialize_with = "null_is_empty")]
    pub ssh: Vec<OutlineMount>,
}

/// A build argument.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// The comment above it.
    pub description: String,
    /// Its value in this build: the one that was given, else its default; empty without one.
    pub value: String,
    /// Where.
    pub location: Option<Place>,
}

/// A secret, or an SSH agent or key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct OutlineMount {
    /// Its id.
    pub name: String,
    /// Whether the build fails without it.
    pub required: bool,
    /// Where.
    pub location: Option<Place>,
}

/// The stages of a Dockerfile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Targets {
    /// The stages in the order of the file.
    #[serde(deserialize_with = "null_is_empty")]
    pub targets: Vec<TargetStage>,
}

/// One stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct TargetStage {
    /// Its name; empty when it has none.
    pub name: String,
    /// Whether it is the one that is built when none is named.
    pub default: bool,
    /// The comment above it.
    pub description: String,
    /// What it begins with: another stage, or an image.
    pub base: String,
    /// Its platform, when the file says one.
    pub platform: String,
    /// Where.
    pub location: Option<Place>,
}

/// A place in a Dockerfile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Place {
    /// Which of the answer's sources.
    #[serde(rename = "sourceIndex")]
    pub source: usize,
    /// Lines of it.
    #[serde(deserialize_with = "null_is_empty")]
    pub ranges: Vec<PlaceRange>,
}

/// Lines of a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct PlaceRange {
    /// The first.
    pub start: PlaceLine,
    /// The last.
    pub end: PlaceLine,
}

/// One end of a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct PlaceLine {
    /// The line, from 1 on.
    pub line: i32,
}

/// Go writes an empty list as `null`.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

fn base64_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    use base64::Engine as _;
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    bytes.map(Bytes::from).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(json: &'static str) -> CallAnswer {
        CallAnswer::from_metadata(BTreeMap::from([("result.json".to_owned(), json.into())]))
            .expect("an answer")
    }

    #[test]
    fn names_are_read_back() {
        for (text, call, id) in [
            ("check", Call::Check, "frontend.lint"),
            ("lint", Call::Check, "frontend.lint"),
            ("outline", Call::Outline, "frontend.outline"),
            ("frontend.targets", Call::Targets, "frontend.targets"),
            (
                "subrequests.describe",
                Call::Named("frontend.subrequests.describe".to_owned()),
                "frontend.subrequests.describe",
            ),
        ] {
            let read: Call = text.parse().expect(text);
            assert_eq!((&read, read.request_id()), (&call, id));
            assert_eq!(read.to_string().parse::<Call>().expect("its own text"), call);
        }
        for bad in ["", "a b", "frontend.", "x=y"] {
            assert_eq!(bad.parse::<Call>().expect_err(bad).what, "--call");
        }
    }

    #[test]
    fn a_check_is_read() {
        let check = answer(
            r#"{"warnings": [{"ruleName": "R", "detail": "d", "location": {"ranges": [{"start": {"line": 2}, "end": {}}]}}],
                "sources": [{"filename": "D", "data": "RlJPTSBhCkZST00gYgo=", "definition": {"def": []}}],
                "buildError": {"message": "m", "location": {"sourceIndex": 7, "ranges": null}}}"#,
        )
        .check()
        .expect("a check");
        assert_eq!((check.warnings.len(), check.is_clean()), (1, false));
        let place = check.warnings[0].location.as_ref().expect("a place");
        let snippet = check.snippet(place).expect("a snippet");
        assert_eq!(
            (snippet.first_line(), &snippet.data[..]),
            (Some(2), &b"FROM a\nFROM b\n"[..])
        );
        let error = check.error.as_ref().expect("an error");
        assert_eq!(check.snippet(error.location.as_ref().expect("a place")), None);
        assert!(
            answer(r#"{"warnings": null, "sources": null}"#)
                .check()
                .expect("a check")
                .is_clean()
        );
    }

    #[test]
    fn an_outline_and_targets_are_read() {
        let outline = answer(
            r#"{"name": "n", "args": [{"name": "A", "value": "1"}], "secrets": [{"name": "s", "required": true}], "ssh": null}"#,
        )
        .outline()
        .expect("an outline");
        assert_eq!(
            (outline.args[0].value.as_str(), outline.secrets[0].required),
            ("1", true)
        );
        let targets = answer(r#"{"targets": [{"name": "a", "base": "b"}, {"default": true}]}"#)
            .targets()
            .expect("targets");
        assert_eq!(
            (targets.targets[0].base.as_str(), targets.targets[1].default),
            ("b", true)
        );
    }

    #[test]
    fn hostile_answers_are_failures_of_the_daemon() {
        for json in ["", "[]x", r#"{"warnings": 1}"#, r#"{"sources": [{"data": "%"}]}"#] {
            assert!(answer(json).check().is_err(), "{json}");
        }
        assert!(CallAnswer::default().check().is_err());
        for (key, value) in [
            ("result.txt", &b"\xff"[..]),
            ("result.statuscode", b"x"),
            ("version", b"\xff"),
        ] {
            let metadata = BTreeMap::from([(key.to_owned(), Bytes::copy_from_slice(value))]);
            assert!(CallAnswer::from_metadata(metadata).is_err(), "{key}");
        }
    }
}
