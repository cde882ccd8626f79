//! A trace without what gives access: the values of attributes that look like tokens and keys are replaced.
//!
//! The rule: no I/O, one span at a time. Everything else stays as it is, in its order, indented as Go indents; what a span says
//! twice is said once, as `docker buildx` does.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
    ser::{SerializeMap as _, SerializeSeq as _},
};

use super::record::go_escaped;
use crate::limits::MAX_SPAN;

/// What stands for a secret.
const HIDDEN: &str = "xxxxx";
/// What is in front of the `=` of a secret, whatever else is in front of that, in any case.
const KEYS: [&str; 3] = ["token", "access_key_id", "secret_access_key"];
/// Tokens that are known by their form: how they begin, and how many letters, digits and maybe `_` follow.
const FORMS: [(&str, usize, bool); 3] = [
    ("ghu_", 36, false),
    ("ghs_", 36, false),
    ("github_pat_", 82, true),
];

/// What a span has under two names: newer daemons write both, readers know the first.
const SCOPE: [&str; 2] = ["InstrumentationLibrary", "InstrumentationScope"];

/// Takes a trace piece by piece and gives it out cleaned.
#[derive(Default)]
pub(super) struct Cleaner {
    /// The span at hand, as far as it has come.
    span: Vec<u8>,
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Cleaner {
    /// Takes the next piece and adds every span that is complete to `out`.
    ///
    /// # Errors
    /// What makes it no trace.
    pub(super) fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        for byte in piece {
            if self.depth == 0 && byte.is_ascii_whitespace() {
                continue;
            }
            if self.span.len() >= MAX_SPAN {
                return Err(format!("one of its spans is larger than {} MiB", MAX_SPAN >> 20));
            }
            self.span.push(*byte);
            match (self.in_text, byte) {
                (true, _) if self.escaped => self.escaped = false,
                (true, b'\\') => self.escaped = true,
                (true, b'"') => self.in_text = false,
                (true, _) => {}
                (false, b'"') if self.depth > 0 => self.in_text = true,
                (false, b'{' | b'[') if self.depth > 0 || *byte == b'{' => self.depth += 1,
                (false, b'}' | b']') if self.depth > 0 => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        clean(&self.span, out)?;
                        self.span.clear();
                    }
                }
                (false, _) if self.depth == 0 => return Err("it is not made of JSON objects".to_owned()),
                (false, _) => {}
            }
        }
        Ok(())
    }

    /// Whether it ends here.
    ///
    /// # Errors
    /// It does not: a span is cut off.
    pub(super) fn end(&self) -> Result<(), String> {
        match self.depth {
            0 => Ok(()),
            _ => Err("its last span is cut off".to_owned()),
        }
    }
}

fn clean(span: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let mut span: Json = serde_json::from_slice(span).map_err(|e| format!("a span is no JSON: {e}"))?;
    if let Json::Object(members) = &mut span
        && members.iter().any(|(key, _)| key == SCOPE[0])
    {
        members.retain(|(key, _)| key != SCOPE[1]);
    }
    span.clean();
    let text = serde_json::to_string_pretty(&span).map_err(|e| format!("a span is no JSON: {e}"))?;
    out.extend_from_slice(go_escaped(&text).as_bytes());
    out.push(b'\n');
    Ok(())
}

/// Any JSON, with the members of objects in the order in which they came.
enum Json {
    Other(serde_json::Value),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Hides secrets in the values of attributes: `{"Type": "STRING", "Value": …}`.
    fn clean(&mut self) {
        match self {
            Self::List(all) => all.iter_mut().for_each(Self::clean),
            Self::Object(members) => {
                let is_text = members
                    .iter()
                    .any(|(key, value)| key == "Type" && matches!(value, Self::Text(t) if t == "STRING"));
                for (key, value) in members {
                    match value {
                        Self::Text(text) if is_text && key == "Value" => *text = hidden(text),
                        value => value.clean(),
                    }
                }
            }
            Self::Other(_) | Self::Text(_) => {}
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Json;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Other(serde_json::Value::Null))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
                Ok(Json::Other(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
                Ok(Json::Other(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
                Ok(Json::Other(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
                Ok(Json::Other(value.into()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Json, E> {
                Ok(Json::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = seq.next_element()? {
                    all.push(one);
                }
                Ok(Json::List(all))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = map.next_entry()? {
                    all.push(one);
                }
                Ok(Json::Object(all))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Other(value) => value.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(all) => {
                let mut seq = serializer.serialize_seq(Some(all.len()))?;
                for one in all {
                    seq.serialize_element(one)?;
                }
                seq.end()
            }
            Self::Object(all) => {
                let mut map = serializer.serialize_map(Some(all.len()))?;
                for (key, value) in all {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

/// The text with what gives access replaced.
fn hidden(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('=') {
        let (name, behind) = rest.split_at(at + 1);
        out.push_str(name);
        let names_secret = KEYS.iter().any(|key| {
            let bytes = name.as_bytes();
            let from = bytes.len().checked_sub(key.len() + 1);
            from.is_some_and(|from| bytes[from..at].eq_ignore_ascii_case(key.as_bytes()))
        });
        let end = behind.find([' ', ',']).unwrap_or(behind.len());
        rest = match names_secret && end > 0 {
            true => {
                out.push_str(HIDDEN);
                &behind[end..]
            }
            false => behind,
        };
    }
    out.push_str(rest);
    FORMS.iter().fold(out, |text, form| without(&text, form))
}

/// The text without tokens of that form.
fn without(text: &str, (prefix, length, underscore): &(&str, usize, bool)) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(prefix) {
        let (before, token) = rest.split_at(at);
        out.push_str(before);
        let body = token.bytes().skip(prefix.len()).take(*length);
        let fits = body
            .filter(|b| b.is_ascii_alphanumeric() || *underscore && *b == b'_')
            .count()
            == *length;
        rest = match fits {
            true => {
                out.push_str(HIDDEN);
                // All of it is ASCII.
                &token[prefix.len() + length..]
            }
            false => {
                out.push_str(prefix);
                &token[prefix.len()..]
            }
        };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(trace: &str, piece: usize) -> Result<String, String> {
        let (mut cleaner, mut out) = (Cleaner::default(), Vec::new());
        for piece in trace.as_bytes().chunks(piece) {
            cleaner.feed(piece, &mut out)?;
        }
        cleaner.end()?;
        Ok(String::from_utf8(out).expect("text"))
    }

    #[test]
    fn what_gives_access_is_hidden() {
        let user = format!("x ghs_{} y", "a1".repeat(18));
        let personal = format!("github_pat_{}!", "_a".repeat(41));
        let short = format!("ghu_{}", "a".repeat(35));
        for (text, expected) in [
            ("nothing", "nothing"),
            ("GHTOKEN=a b", "GHTOKEN=xxxxx b"),
            ("token=,x", "token=,x"),
            (
                "type=gha,token=abc=d,scope=s&session_token=\nq",
                "type=gha,token=xxxxx,scope=s&session_token=xxxxx",
            ),
            (
                "aws Secret_Access_Key=s access_key_id=i k=v",
                "aws Secret_Access_Key=xxxxx access_key_id=xxxxx k=v",
            ),
            ("ö=token=ö", "ö=token=xxxxx"),
            (&user, "x xxxxx y"),
            (&personal, "xxxxx!"),
            (&short, &short),
        ] {
            assert_eq!(hidden(text), expected, "{text}");
        }
    }

    #[test]
    fn spans_keep_their_order_and_are_indented() {
        let trace = concat!(
            r#"{"Z":1,"A":[],"Attributes":[{"Key":"vertex","Value":{"Type":"STRING","Value":"token=a \"}<"}},"#,
            r#"{"Key":"n","Value":{"Type":"INT64","Value":9007199254740993}}],"Events":null,"S":{"Value":"token=a"},"O":{}}"#,
            "\n \n",
            r#"{"InstrumentationScope":{"Name":"a"}}{"InstrumentationScope":{"Name":"a"},"InstrumentationLibrary":{"Name":"a"}}"#,
        );
        let expected = r#"{
  "Z": 1,
  "A": [],
  "Attributes": [
    {
      "Key": "vertex",
      "Value": {
        "Type": "STRING",
        "Value": "token=xxxxx \"}\u003c"
      }
    },
    {
      "Key": "n",
      "Value": {
        "Type": "INT64",
        "Value": 9007199254740993
      }
    }
  ],
  "Events": null,
  "S": {
    "Value": "token=a"
  },
  "O": {}
}
{
  "InstrumentationScope": {
    "Name": "a"
  }
}
{
  "InstrumentationLibrary": {
    "Name": "a"
  }
}
"#;
        for piece in [1, 2, 7, 4096] {
            assert_eq!(cleaned(trace, piece).as_deref(), Ok(expected), "{piece}");
        }
        assert_eq!(cleaned("", 1).as_deref(), Ok(""));
    }

    #[test]
    fn what_is_no_trace_is_refused() {
        let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_SPAN));
        for (trace, why) in [
            ("[]", "it is not made of JSON objects"),
            ("nonsense", "it is not made of JSON objects"),
            ("{} x", "it is not made of JSON objects"),
            (r#"{"a":"}"#, "its last span is cut off"),
            ("{]", "a span is no JSON: "),
            (&large, "one of its spans is larger than 4 MiB"),
        ] {
            let e = cleaned(trace, 1024).expect_err(why);
            assert!(e.starts_with(why), "{e}");
        }
        let deep = format!("{}{}", r#"{"a":"#.repeat(1000), "}".repeat(1000));
        assert!(cleaned(&deep, 1024).is_err());
    }
}
