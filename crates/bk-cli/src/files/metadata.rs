//! The file of `--metadata-file`: what the exporters answered and what else is known of a build, under the keys of
//! `docker buildx`.
//!
//! The rule: a key means what it means there, so that scripts read either file.

use std::sync::{Arc, Mutex, PoisonError};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bk_client::{BuildEvent, BuildOutcome, BuilderInfo, InputError, Inspect, WarningKind};
use bk_progress::{Renderer, warning_json};
use serde_json::{Map, Value};

use crate::{limits::METADATA_WARNINGS, request::Surroundings};

const PROVENANCE: &str = "BUILDX_METADATA_PROVENANCE";
const WARNINGS: &str = "BUILDX_METADATA_WARNINGS";

/// How much of the provenance stands in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// None of it.
    #[default]
    Disabled,
    /// All but the steps, their times and their layers.
    Min,
    /// All.
    Max,
}

/// What stands in the file beside the exporters' answer.
#[derive(Clone, Default)]
pub(crate) struct Metadata {
    pub(crate) provenance: Mode,
    /// Whether the variable asked for it, so that its absence is worth a word.
    pub(crate) provenance_named: bool,
    /// The builder's name and its node's.
    builder: Option<(String, String)>,
    /// The daemon's warnings, when they are wanted.
    warnings: Option<Arc<Mutex<Vec<Value>>>>,
}

impl Metadata {
    /// What the environment says, for a build whose file is wanted.
    ///
    /// # Errors
    /// A variable with a value that is not known.
    pub(crate) fn from_environment(around: &impl Surroundings) -> Result<Self, InputError> {
        let var = |name| {
            let value = around.var(name).unwrap_or_default();
            value
                .into_string()
                .map_err(|_| unknown(name, "bytes that are not UTF-8"))
        };
        let provenance = var(PROVENANCE)?;
        let warnings = var(WARNINGS)?;
        let mode = match &*provenance {
            "" | "min" => Mode::Min,
            "max" => Mode::Max,
            "disabled" => Mode::Disabled,
            other => match bool_of(other) {
                Some(true) => Mode::Min,
                Some(false) => Mode::Disabled,
                None => return Err(unknown(PROVENANCE, other)),
            },
        };
        let wanted = match &*warnings {
            "" => false,
            other => bool_of(other).ok_or_else(|| unknown(WARNINGS, other))?,
        };
        Ok(Self {
            provenance: mode,
            provenance_named: !provenance.is_empty(),
            builder: None,
            warnings: wanted.then(Arc::default),
        })
    }

    /// What the daemon has to be asked for.
    pub(crate) fn inspect(&self) -> Inspect {
        Inspect::new().provenance(self.provenance != Mode::Disabled)
    }

    /// Notes who builds. The engine's own builder has the name that `docker buildx` gives it, so that its commands about
    /// past builds take the reference in the file.
    pub(crate) fn built_by(&mut self, info: &BuilderInfo) {
        let (builder, node) = match &*info.backend {
            "docker" => ("default", "default".to_owned()),
            other => (other, format!("{other}0")),
        };
        self.builder = Some((builder.to_owned(), node));
    }

    /// `renderer`, and a look at the warnings on their way to it.
    pub(crate) fn watch(&self, renderer: Box<dyn Renderer + Send>) -> Box<dyn Renderer + Send> {
        match &self.warnings {
            Some(warnings) => Box::new(Watching {
                warnings: warnings.clone(),
                renderer,
            }),
            None => renderer,
        }
    }
}

/// The spellings that Go knows.
fn bool_of(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn unknown(name: &str, value: &str) -> InputError {
    let allowed = match name {
        PROVENANCE => "min, max, disabled, true or false",
        _ => "true or false",
    };
    InputError::new(name, format!("`{value}` is not known"), allowed)
}

/// Keeps the daemon's warnings.
struct Watching {
    warnings: Arc<Mutex<Vec<Value>>>,
    renderer: Box<dyn Renderer + Send>,
}

impl Renderer for Watching {
    fn event(&mut self, event: &BuildEvent) -> std::io::Result<()> {
        if let BuildEvent::Warning(warning) = event
            && warning.kind == WarningKind::Daemon
        {
            let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
            if warnings.len() < METADATA_WARNINGS {
                warnings.push(warning_json(warning));
            }
        }
        self.renderer.event(event)
    }

    fn tick(&mut self, now: std::time::Instant) -> std::io::Result<()> {
        self.renderer.tick(now)
    }

    fn finish(&mut self) -> std::io::Result<()> {
        self.renderer.finish()
    }
}

/// Two-space indentation, sorted keys, no line end at the end.
pub(super) fn text(outcome: &BuildOutcome, more: &Metadata) -> String {
    with_warnings(object(outcome, more), more)
}

/// The same for several builds: an object for each name.
pub(super) fn text_of(outcomes: &[(&str, &BuildOutcome)], more: &Metadata) -> String {
    let each = outcomes.iter();
    let each = each.map(|(name, outcome)| ((*name).to_owned(), Value::Object(object(outcome, more))));
    with_warnings(each.collect(), more)
}

fn object(outcome: &BuildOutcome, more: &Metadata) -> Map<String, Value> {
    let mut object: Map<String, Value> = outcome
        .exporter_response
        .iter()
        .map(|(key, value)| (key.clone(), inlined(value)))
        .collect();
    if let Some((builder, node)) = &more.builder {
        let build_ref = format!("{builder}/{node}/{}", outcome.build_ref);
        object.insert("buildx.build.ref".to_owned(), build_ref.into());
    }
    for (platform, provenance) in &outcome.inspected.provenance {
        let shown = match more.provenance {
            Mode::Disabled => break,
            Mode::Min => provenance.minimal(),
            Mode::Max => provenance.object(),
        };
        let key = match platform.is_empty() {
            true => "buildx.build.provenance".to_owned(),
            false => format!("buildx.build.provenance/{platform}"),
        };
        // The library gives out objects only.
        object.insert(key, shown.map_or(Value::Null, Value::Object));
    }
    object
}

fn with_warnings(mut object: Map<String, Value>, more: &Metadata) -> String {
    if let Some(warnings) = &more.warnings {
        let warnings = warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if !warnings.is_empty() {
            object.insert("buildx.build.warnings".to_owned(), Value::Array(warnings.clone()));
        }
    }
    format!("{:#}", Value::Object(object))
}

/// A value that is base64 of a JSON object which is not empty, or of a list of objects, is that; any other is a string.
fn inlined(value: &str) -> Value {
    let decoded = STANDARD
        .decode(value)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    match decoded {
        Some(Value::Object(object)) if !object.is_empty() => Value::Object(object),
        Some(Value::Array(list)) if !list.is_empty() && list.iter().all(Value::is_object) => {
            Value::Array(list)
        }
        _ => Value::String(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, ffi::OsString, io::Read};

    use bk_client::{ArchiveReader, Provenance, Warning};

    use super::*;

    struct With(BTreeMap<&'static str, &'static str>);

    impl Surroundings for With {
        fn var(&self, name: &str) -> Option<OsString> {
            self.0.get(name).map(Into::into)
        }

        fn stdin(&self) -> Box<dyn Read> {
            Box::new(std::io::empty())
        }

        fn stdin_rest(&self) -> ArchiveReader {
            Box::pin(tokio::io::empty())
        }
    }

    fn outcome(pairs: &[(&str, &str)]) -> BuildOutcome {
        let mut outcome = BuildOutcome::default();
        outcome.build_ref = "abc".to_owned();
        outcome.exporter_response = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        outcome
    }

    #[test]
    fn objects_are_inlined_and_nothing_else() {
        let encoded = STANDARD.encode(r#"{"b":{"size":2},"a":[]}"#);
        let numbers = STANDARD.encode("[1]");
        let list = STANDARD.encode(r#"[{"a":1}]"#);
        let empty = STANDARD.encode("{}");
        let text = text(
            &outcome(&[
                ("containerimage.descriptor", &encoded),
                ("containerimage.digest", "sha256:1"),
                ("empty", &empty),
                ("image.name", "a,b"),
                ("list", &list),
                ("numbers", &numbers),
            ]),
            &Metadata::default(),
        );
        assert_eq!(
            text,
            r#"{
  "containerimage.descriptor": {
    "a": [],
    "b": {
      "size": 2
    }
  },
  "containerimage.digest": "sha256:1",
  "empty": "e30=",
  "image.name": "a,b",
  "list": [
    {
      "a": 1
    }
  ],
  "numbers": "WzFd"
}"#
        );
        assert_eq!(super::text(&outcome(&[]), &Metadata::default()), "{}");
    }

    #[test]
    fn the_environment_says_what_is_in_the_file() {
        let read = |vars: &[(&'static str, &'static str)]| {
            Metadata::from_environment(&With(vars.iter().copied().collect()))
        };
        for (value, mode) in [
            ("", Mode::Min),
            ("min", Mode::Min),
            ("true", Mode::Min),
            ("max", Mode::Max),
            ("disabled", Mode::Disabled),
            ("0", Mode::Disabled),
        ] {
            let metadata = read(&[(PROVENANCE, value)]).expect(value);
            assert_eq!(metadata.provenance, mode, "{value}");
            assert_eq!(metadata.inspect().provenance, mode != Mode::Disabled);
        }
        let error = read(&[(PROVENANCE, "most")]).err().expect("not known");
        assert_eq!(error.to_string(), format!("{PROVENANCE}: `most` is not known"));
        assert!(read(&[(WARNINGS, "2")]).is_err());
        assert!(read(&[(WARNINGS, "0")]).expect("no").warnings.is_none());
    }

    #[test]
    fn references_provenance_and_warnings_have_the_keys_of_buildx() {
        let around = With([(WARNINGS, "1"), (PROVENANCE, "max")].into());
        let mut metadata = Metadata::from_environment(&around).expect("known values");
        metadata.built_by(&BuilderInfo::new("docker", "unix:///d.sock"));
        let mut renderer = metadata
            .watch(bk_progress::Mode::Quiet.renderer(std::io::sink(), &bk_progress::Output::default()));
        let mut warned = outcome(&[]);
        let provenance = Provenance::new(
            "https://slsa.dev/provenance/v0.2",
            r#"{"metadata":{"a":1},"builder":{}}"#,
        );
        warned.inspected.provenance = [("linux/arm64".to_owned(), provenance)].into();
        assert!(!text(&warned, &metadata).contains("warnings"));
        for kind in [WarningKind::Daemon, WarningKind::Client] {
            let event = BuildEvent::Warning(Warning::new(kind, "short"));
            renderer.event(&event).expect("quiet");
        }
        let read: Value = serde_json::from_str(&text(&warned, &metadata)).expect("JSON");
        assert_eq!(
            read,
            serde_json::json!({
                "buildx.build.provenance/linux/arm64": {"builder": {}, "metadata": {"a": 1}},
                "buildx.build.ref": "default/default/abc",
                "buildx.build.warnings": [{"short": "c2hvcnQ="}],
            })
        );
        metadata.provenance = Mode::Min;
        metadata.built_by(&BuilderInfo::new("buildkitd", "unix:///b.sock"));
        let read: Value = serde_json::from_str(&text(&warned, &metadata)).expect("JSON");
        assert_eq!(
            read["buildx.build.provenance/linux/arm64"],
            serde_json::json!({"builder": {}})
        );
        assert_eq!(read["buildx.build.ref"], "buildkitd/buildkitd0/abc");
    }
}
