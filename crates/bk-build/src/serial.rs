//! How events are serialised where a derived form would not do: times as text, bytes as base64, keys as shared text.

use std::time::{Duration, SystemTime};

use ::time::{OffsetDateTime, format_description::well_known::Rfc3339};
use serde::{Deserialize, Deserializer, Serializer, de::Error as _, ser::Error as _};

use crate::{LogStream, VertexId};

pub(crate) fn is_false(value: &bool) -> bool {
    !value
}

pub(crate) fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// A time as RFC 3339 in UTC; `None` outside the years that it has.
fn to_text(at: SystemTime) -> Option<String> {
    // Not `OffsetDateTime::from`, which panics far outside of these years.
    let (magnitude, past) = match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => (after, false),
        Err(e) => (e.duration(), true),
    };
    let offset = ::time::Duration::try_from(magnitude).ok()?;
    let offset = if past { -offset } else { offset };
    OffsetDateTime::UNIX_EPOCH
        .checked_add(offset)?
        .format(&Rfc3339)
        .ok()
}

/// A time as daemons write it: RFC 3339, of any offset. `None` when it is none.
pub fn parse_time(text: &str) -> Option<SystemTime> {
    from_text::<serde::de::value::Error>(text).ok()
}

/// A time as RFC 3339 in UTC; `None` outside of the years that it has.
pub fn format_time(at: SystemTime) -> Option<String> {
    to_text(at)
}

fn from_text<E: serde::de::Error>(text: &str) -> Result<SystemTime, E> {
    let offset = OffsetDateTime::parse(text, &Rfc3339).map_err(E::custom)? - OffsetDateTime::UNIX_EPOCH;
    let magnitude = Duration::try_from(offset.abs()).map_err(E::custom)?;
    let at = match offset.is_negative() {
        true => SystemTime::UNIX_EPOCH.checked_sub(magnitude),
        false => SystemTime::UNIX_EPOCH.checked_add(magnitude),
    };
    at.ok_or_else(|| E::custom("the time is out of range"))
}

pub(crate) mod time {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(at: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        let text = to_text(*at).ok_or_else(|| S::Error::custom("the time is out of range"))?;
        to.serialize_str(&text)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        from_text(&String::deserialize(from)?)
    }
}

/// A daemon's time; one that cannot be written counts as unknown.
pub(crate) mod maybe_time {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(at: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
        match at.and_then(to_text) {
            Some(text) => to.serialize_some(&text),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SystemTime>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.as_deref().map(from_text).transpose()
    }
}

pub(crate) mod id {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(id: &VertexId, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(id)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<VertexId, D::Error> {
        String::deserialize(from).map(VertexId::from)
    }
}

pub(crate) mod maybe_id {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(id: &Option<VertexId>, to: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => to.serialize_some(&**id),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<VertexId>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.map(VertexId::from))
    }
}

pub(crate) mod ids {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(ids: &[VertexId], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(ids.iter().map(|id| &**id))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<VertexId>, D::Error> {
        let ids = Vec::<String>::deserialize(from)?;
        Ok(ids.into_iter().map(VertexId::from).collect())
    }
}

pub(crate) mod bytes {
    use ::bytes::Bytes;
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    pub(crate) fn serialize<S: Serializer>(data: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(data))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map(Bytes::from).map_err(D::Error::custom)
    }
}

pub(crate) mod stream {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(stream: &LogStream, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(stream.to_wire())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<LogStream, D::Error> {
        i64::deserialize(from).map(LogStream::from_wire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        BuildEvent, BuilderInfo, CredentialGiven, CredentialUse, LineRange, LogChunk, ProgressGroup,
        SourceSnippet, StatusUpdate, Transfer, Vertex, Warning, WarningKind,
    };

    #[test]
    fn events_go_both_ways_and_look_as_documented() {
        let at = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 120_000_000);
        let mut vertex = Vertex::new("sha256:1", "[1/2] RUN x");
        vertex.inputs = vec!["sha256:0".into()];
        vertex.started = Some(at);
        vertex.group = Some(ProgressGroup::new("g", "group", true));
        let mut status = StatusUpdate::new("sha256:1".into(), "transferring context:");
        (status.current, status.timestamp) = (5, Some(at));
        let log = LogChunk::new("sha256:1".into(), LogStream::Other(7), &b"\xff\n"[..]).at(Some(at));
        let mut warning = Warning::new(WarningKind::SkippedFile("a/socket".to_owned()), "left out");
        warning.source = Some(SourceSnippet::new(
            "Dockerfile",
            "FROM x",
            vec![LineRange { start: 1, end: 1 }],
        ));
        let mut transfer = Transfer::new("context", 1);
        transfer.report.sent_bytes = 3;
        let events = [
            BuildEvent::Started {
                build_ref: "r".to_owned(),
                builder: BuilderInfo::new("docker", "unix:///x"),
                at,
            },
            BuildEvent::VertexQueued(Vertex::new("sha256:0", "")),
            BuildEvent::VertexStarted(vertex),
            BuildEvent::Status(status),
            BuildEvent::Log(log),
            BuildEvent::Warning(warning),
            BuildEvent::Transfer(transfer),
            BuildEvent::Credentials(CredentialUse::new("h", "config.json", CredentialGiven::Token)),
            BuildEvent::Retrying {
                retry: 1,
                of: 2,
                error: "lost".to_owned(),
                build_ref: "s".to_owned(),
            },
            BuildEvent::Completed { at, error: None },
        ];
        let lines: Vec<_> = events
            .iter()
            .map(|e| serde_json::to_string(e).expect("an event can be written"))
            .collect();
        assert_eq!(
            lines,
            [
                r#"{"event":"started","build_ref":"r","builder":{"backend":"docker","address":"unix:///x"},"at":"2023-11-14T22:13:20.12Z"}"#,
                r#"{"event":"vertex_queued","id":"sha256:0"}"#,
                r#"{"event":"vertex_started","id":"sha256:1","inputs":["sha256:0"],"name":"[1/2] RUN x","group":{"id":"g","name":"group","weak":true},"started":"2023-11-14T22:13:20.12Z"}"#,
                r#"{"event":"status","vertex":"sha256:1","id":"transferring context:","current":5,"timestamp":"2023-11-14T22:13:20.12Z"}"#,
                r#"{"event":"log","vertex":"sha256:1","stream":7,"data":"/wo=","timestamp":"2023-11-14T22:13:20.12Z"}"#,
                r#"{"event":"warning","kind":{"skipped_file":"a/socket"},"short":"left out","source":{"filename":"Dockerfile","data":"RlJPTSB4","ranges":[{"start":1,"end":1}]}}"#,
                r#"{"event":"transfer","source":"context","transfer":1,"report":{"entries":0,"offered_bytes":0,"requested_files":0,"sent_files":0,"sent_bytes":3,"skipped":0,"changed":0}}"#,
                r#"{"event":"credentials","host":"h","source":"config.json","given":"token"}"#,
                r#"{"event":"retrying","retry":1,"of":2,"error":"lost","build_ref":"s"}"#,
                r#"{"event":"completed","at":"2023-11-14T22:13:20.12Z"}"#,
            ]
        );
        for line in lines {
            let event: BuildEvent = serde_json::from_str(&line).expect("an event can be read");
            assert_eq!(serde_json::to_string(&event).expect("and written again"), line);
        }
    }

    #[test]
    fn a_time_outside_of_the_calendar_counts_as_unknown() {
        let mut vertex = Vertex::new("v", "n");
        vertex.started = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(1 << 60));
        assert!(vertex.started.is_some());
        let line = serde_json::to_string(&vertex).expect("a vertex can be written");
        assert_eq!(line, r#"{"id":"v","name":"n","started":null}"#);
        let read: Vertex = serde_json::from_str(&line).expect("and read");
        assert_eq!(read.started, None);
    }
}
