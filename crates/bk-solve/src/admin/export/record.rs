//! A record of the history as the JSON that `docker buildx history export` writes: the names of BuildKit's Go types.
//!
//! The rule: what has its default is left out, keys are in order, and the same record gives the same bytes, as it has a digest.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bk_proto::{
    control::{BuildHistoryRecord, BuildResultInfo, Descriptor, Exporter},
    rpc_status::Status as RpcStatus,
};
use serde::{Deserialize, Serialize};

/// The attribute that names caches to read, and may hold how to log in to them.
const CACHES: &str = "cache-imports";
/// What of such a cache is no secret.
const PUBLIC: [&str; 2] = ["scope", "ref"];

/// The record as JSON, for a daemon with that platform of its own.
pub(super) fn json(record: &BuildHistoryRecord, platform: &str) -> Vec<u8> {
    pretty(&Record::of(record, platform))
}

/// JSON as Go writes it: indented with two spaces, and with what HTML obeys escaped.
pub(super) fn pretty(value: &impl Serialize) -> Vec<u8> {
    // Strings, numbers and maps of strings: nothing of it cannot be JSON.
    go_escaped(&serde_json::to_string_pretty(value).unwrap_or_default()).into_bytes()
}

/// Escapes what Go escapes in JSON and others do not; outside of strings it does not occur.
pub(super) fn go_escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text
}

/// The caches of an attribute without how to log in to them; nothing when it makes no sense.
fn caches(text: &str) -> String {
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    #[derive(Default)]
    struct Import {
        r#type: String,
        attrs: Option<BTreeMap<String, String>>,
    }
    let Ok(mut imports) = serde_json::from_str::<Vec<Import>>(text) else {
        return String::new();
    };
    for import in &mut imports {
        let attrs = import.attrs.get_or_insert_default();
        attrs.retain(|key, _| PUBLIC.contains(&&**key));
    }
    go_escaped(&serde_json::to_string(&imports).unwrap_or_default())
}

type Texts<'a> = BTreeMap<&'a str, std::borrow::Cow<'a, str>>;

fn texts(map: &BTreeMap<String, String>) -> Texts<'_> {
    map.iter().map(|(k, v)| (&**k, v.into())).collect()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

#[derive(Serialize)]
struct Record<'a> {
    #[serde(rename = "Ref", skip_serializing_if = "str::is_empty")]
    build_ref: &'a str,
    #[serde(rename = "Frontend", skip_serializing_if = "str::is_empty")]
    frontend: &'a str,
    #[serde(rename = "FrontendAttrs", skip_serializing_if = "BTreeMap::is_empty")]
    frontend_attrs: Texts<'a>,
    #[serde(rename = "Exporters", skip_serializing_if = "Vec::is_empty")]
    exporters: Vec<ExporterOf<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Error<'a>>,
    #[serde(rename = "CreatedAt", skip_serializing_if = "Option::is_none")]
    created_at: Option<Stamp>,
    #[serde(rename = "CompletedAt", skip_serializing_if = "Option::is_none")]
    completed_at: Option<Stamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logs: Option<Blob<'a>>,
    #[serde(rename = "ExporterResponse", skip_serializing_if = "BTreeMap::is_empty")]
    exporter_response: Texts<'a>,
    #[serde(rename = "Result", skip_serializing_if = "Option::is_none")]
    result: Option<ResultInfo<'a>>,
    #[serde(rename = "Results", skip_serializing_if = "BTreeMap::is_empty")]
    results: BTreeMap<&'a str, ResultInfo<'a>>,
    #[serde(rename = "Generation", skip_serializing_if = "is_zero")]
    generation: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<Blob<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pinned: bool,
    #[serde(rename = "numCachedSteps", skip_serializing_if = "is_zero")]
    cached_steps: i32,
    #[serde(rename = "numTotalSteps", skip_serializing_if = "is_zero")]
    total_steps: i32,
    #[serde(rename = "numCompletedSteps", skip_serializing_if = "is_zero")]
    completed_steps: i32,
    #[serde(rename = "externalError", skip_serializing_if = "Option::is_none")]
    external_error: Option<Blob<'a>>,
    #[serde(rename = "numWarnings", skip_serializing_if = "is_zero")]
    warnings: i32,
    #[serde(rename = "DefaultPlatform")]
    default_platform: &'a str,
}

#[derive(Serialize)]
struct ExporterOf<'a> {
    #[serde(rename = "Type", skip_serializing_if = "str::is_empty")]
    kind: &'a str,
    #[serde(rename = "Attrs", skip_serializing_if = "BTreeMap::is_empty")]
    attrs: Texts<'a>,
}

#[derive(Serialize)]
struct Error<'a> {
    #[serde(skip_serializing_if = "is_zero")]
    code: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Detail<'a>>,
}

#[derive(Serialize)]
struct Detail<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    type_url: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    value: String,
}

#[derive(Serialize)]
struct Stamp {
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<i64>,
    #[serde(skip_serializing_if = "is_zero")]
    nanos: i32,
}

#[derive(Serialize)]
struct Blob<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    media_type: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    digest: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<i64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: Texts<'a>,
}

#[derive(Serialize)]
struct ResultInfo<'a> {
    #[serde(rename = "ResultDeprecated", skip_serializing_if = "Option::is_none")]
    deprecated: Option<Blob<'a>>,
    #[serde(rename = "Attestations", skip_serializing_if = "Vec::is_empty")]
    attestations: Vec<Blob<'a>>,
    // Go orders the keys as texts.
    #[serde(rename = "Results", skip_serializing_if = "BTreeMap::is_empty")]
    results: BTreeMap<String, Blob<'a>>,
}

impl<'a> Record<'a> {
    fn of(wire: &'a BuildHistoryRecord, platform: &'a str) -> Self {
        let mut frontend_attrs = texts(&wire.frontend_attrs);
        if let Some(caches_read) = frontend_attrs.get_mut(CACHES) {
            *caches_read = caches(caches_read).into();
        }
        let results = wire.results.iter();
        Self {
            build_ref: &wire.r#ref,
            frontend: &wire.frontend,
            frontend_attrs,
            exporters: wire.exporters.iter().map(ExporterOf::of).collect(),
            error: wire.error.as_ref().map(Error::of),
            created_at: wire.created_at.as_ref().map(Stamp::of),
            completed_at: wire.completed_at.as_ref().map(Stamp::of),
            logs: wire.logs.as_ref().map(Blob::of),
            exporter_response: texts(&wire.exporter_response),
            result: wire.result.as_ref().map(ResultInfo::of),
            results: results.map(|(p, r)| (&**p, ResultInfo::of(r))).collect(),
            generation: wire.generation,
            trace: wire.trace.as_ref().map(Blob::of),
            pinned: wire.pinned,
            cached_steps: wire.num_cached_steps,
            total_steps: wire.num_total_steps,
            completed_steps: wire.num_completed_steps,
            external_error: wire.external_error.as_ref().map(Blob::of),
            warnings: wire.num_warnings,
            default_platform: platform,
        }
    }
}

impl<'a> ExporterOf<'a> {
    fn of(wire: &'a Exporter) -> Self {
        Self {
            kind: &wire.r#type,
            attrs: texts(&wire.attrs),
        }
    }
}

impl<'a> Error<'a> {
    fn of(wire: &'a RpcStatus) -> Self {
        let details = wire.details.iter().map(|any| Detail {
            type_url: &any.type_url,
            value: STANDARD.encode(&any.value),
        });
        Self {
            code: wire.code,
            message: &wire.message,
            details: details.collect(),
        }
    }
}

impl Stamp {
    fn of(wire: &prost_types::Timestamp) -> Self {
        Self {
            seconds: Some(wire.seconds).filter(|s| *s != 0),
            nanos: wire.nanos,
        }
    }
}

impl<'a> Blob<'a> {
    fn of(wire: &'a Descriptor) -> Self {
        Self {
            media_type: &wire.media_type,
            digest: &wire.digest,
            size: Some(wire.size).filter(|s| *s != 0),
            annotations: texts(&wire.annotations),
        }
    }
}

impl<'a> ResultInfo<'a> {
    fn of(wire: &'a BuildResultInfo) -> Self {
        let results = wire.results.iter();
        Self {
            deprecated: wire.result_deprecated.as_ref().map(Blob::of),
            attestations: wire.attestations.iter().map(Blob::of).collect(),
            results: results.map(|(i, d)| (i.to_string(), Blob::of(d))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_that_of_go() {
        let blob = |digest: &str, size| Descriptor {
            media_type: "m".to_owned(),
            digest: digest.to_owned(),
            size,
            annotations: BTreeMap::new(),
        };
        let mut result = BuildResultInfo::default();
        result.results.insert(10, blob("ten", 1));
        result.results.insert(2, blob("two", 0));
        let record = BuildHistoryRecord {
            r#ref: "r".to_owned(),
            frontend_attrs: [
                (
                    "cache-imports".to_owned(),
                    r#"[{"Type":"gha","Attrs":{"token":"secret","scope":"s&t"}},{"Type":"x"}]"#.to_owned(),
                ),
                ("build-arg:A".to_owned(), "<\u{2028}\"\u{1}\u{7f}ö>".to_owned()),
            ]
            .into(),
            exporters: vec![Exporter::default()],
            error: Some(RpcStatus {
                code: 2,
                message: "no".to_owned(),
                details: vec![prost_types::Any {
                    type_url: "t".to_owned(),
                    value: vec![0xff, 0xfe],
                }],
            }),
            created_at: Some(prost_types::Timestamp { seconds: 0, nanos: 7 }),
            completed_at: Some(prost_types::Timestamp::default()),
            logs: Some(blob("l", 3)),
            result: Some(result),
            generation: -1,
            pinned: true,
            num_warnings: 4,
            ..BuildHistoryRecord::default()
        };
        let text = String::from_utf8(json(&record, "linux/amd64")).expect("text");
        assert_eq!(
            text,
            r#"{
  "Ref": "r",
  "FrontendAttrs": {
    "build-arg:A": "\u003c\u2028\"\u0001«DEL»ö\u003e",
    "cache-imports": "[{\"Type\":\"gha\",\"Attrs\":{\"scope\":\"s\\u0026t\"}},{\"Type\":\"x\",\"Attrs\":{}}]"
  },
  "Exporters": [
    {}
  ],
  "error": {
    "code": 2,
    "message": "no",
    "details": [
      {
        "type_url": "t",
        "value": "//4="
      }
    ]
  },
  "CreatedAt": {
    "nanos": 7
  },
  "CompletedAt": {},
  "logs": {
    "media_type": "m",
    "digest": "l",
    "size": 3
  },
  "Result": {
    "Results": {
      "10": {
        "media_type": "m",
        "digest": "ten",
        "size": 1
      },
      "2": {
        "media_type": "m",
        "digest": "two"
      }
    }
  },
  "Generation": -1,
  "pinned": true,
  "numWarnings": 4,
  "DefaultPlatform": "linux/amd64"
}"#
            .replace("«DEL»", "\u{7f}")
        );
        assert_eq!(caches("nonsense"), "");
    }
}
