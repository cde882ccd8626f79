//! Entries that are objects in a bake file and lists of fields on the command line: caches, outputs, statements, secrets
//! and keys.
//!
//! The rule: both forms mean the same and are kept as plain fields; [`Display`](std::fmt::Display) writes the form of the
//! command line.

use std::{collections::BTreeMap, fmt};

use bk_build::InputError;
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::{csv, decode::Fields};

/// Where steps are looked up or kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheEntry {
    /// For instance `registry`, `inline` or `gha`.
    pub kind: String,
    /// The fields besides the type.
    pub attrs: BTreeMap<String, String>,
}

/// What comes out of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutputEntry {
    /// For instance `image`, `docker` or `local`.
    pub kind: String,
    /// The file or directory on this machine; empty when there is none.
    pub dest: String,
    /// The fields besides these.
    pub attrs: BTreeMap<String, String>,
}

/// A statement about an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attest {
    /// `sbom` or `provenance`.
    pub kind: String,
    /// Whether it is turned off.
    pub disabled: bool,
    /// The fields besides these.
    pub attrs: BTreeMap<String, String>,
}

/// Where a secret comes from. It never holds the secret itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SecretEntry {
    /// Its id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The file it comes from; empty when there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub src: String,
    /// The variable it comes from; empty when there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub env: String,
}

/// An SSH agent, or keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SshEntry {
    /// Its id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// A socket or keys; empty for the agent of the environment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
}

/// An entry that has both forms.
pub(crate) trait Entry: Sized {
    /// From the form of the command line; `what` is named in errors.
    fn from_text(what: &str, text: &str) -> Result<Self, InputError>;
    /// The entries that one text holds.
    fn split(what: &str, text: &str) -> Result<Vec<String>, InputError> {
        let _ = what;
        Ok(vec![text.to_owned()])
    }
    /// From the form of an object.
    fn from_fields(fields: Fields) -> Result<Self, InputError>;
}

/// Entries from the form of the command line; empty texts are left out.
pub(crate) fn from_texts<E: Entry>(what: &str, texts: &[String]) -> Result<Vec<E>, InputError> {
    let mut all = Vec::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        for text in E::split(what, text)? {
            all.push(E::from_text(what, &text)?);
        }
    }
    Ok(all)
}

fn bad(what: &str, text: &str, why: &str, allowed: &str) -> InputError {
    InputError::new(what, format!("`{text}`: {why}"), allowed)
}

fn is_true(what: &str, text: &str) -> Result<bool, InputError> {
    crate::decode::boolean(text)
        .ok_or_else(|| bad(what, text, "it is neither true nor false", "true or false"))
}

impl Entry for CacheEntry {
    fn split(what: &str, text: &str) -> Result<Vec<String>, InputError> {
        match text.contains('=') {
            true => Ok(vec![text.to_owned()]),
            // References alone may stand one behind the other.
            false => csv::fields(what, text),
        }
    }

    fn from_text(what: &str, text: &str) -> Result<Self, InputError> {
        const ALLOWED: &str = "an image reference, or type=… with fields behind a comma";
        if !text.contains(['=', ',']) {
            let attrs = BTreeMap::from([("ref".to_owned(), text.to_owned())]);
            let kind = "registry".to_owned();
            return Ok(Self { kind, attrs });
        }
        let mut entry = Self::default();
        for (key, value) in csv::pairs(what, text)? {
            match &*key {
                "type" => entry.kind = value,
                _ => drop(entry.attrs.insert(key, value)),
            }
        }
        if entry.kind.is_empty() {
            return Err(bad(what, text, "the cache has no type", ALLOWED));
        }
        Ok(entry)
    }

    fn from_fields(mut fields: Fields) -> Result<Self, InputError> {
        let kind = fields.required("type")?;
        let attrs = fields.rest()?;
        Ok(Self { kind, attrs })
    }
}

impl Entry for OutputEntry {
    fn from_text(what: &str, text: &str) -> Result<Self, InputError> {
        let fields = csv::keyed(what, text)?;
        let mut entry = Self::default();
        if let [only] = &fields[..]
            && only.text == text
            && !text.starts_with("type=")
        {
            entry.kind = if text == "-" { "tar" } else { "local" }.to_owned();
            entry.dest = text.to_owned();
            return Ok(entry);
        }
        for field in fields {
            let Some(value) = field.value else {
                let why = format!("`{}` is not KEY=VALUE", field.text);
                return Err(bad(what, text, &why, "type=… with fields behind a comma"));
            };
            match &*field.key {
                "type" => entry.kind = value,
                "dest" => entry.dest = value,
                _ => {
                    // Keys of annotations are the user's own.
                    let own = field.text.split_once('=').map_or("", |(key, _)| key.trim());
                    let key = if field.key.starts_with("annotation") {
                        own.to_owned()
                    } else {
                        field.key
                    };
                    entry.attrs.insert(key, value);
                }
            }
        }
        if entry.kind.is_empty() {
            return Err(bad(
                what,
                text,
                "the output has no type",
                "type=… with fields behind a comma",
            ));
        }
        Ok(entry)
    }

    fn from_fields(mut fields: Fields) -> Result<Self, InputError> {
        let kind = fields.required("type")?;
        let dest = fields.text("dest")?.unwrap_or_default();
        let attrs = fields.rest()?;
        Ok(Self { kind, dest, attrs })
    }
}

impl Entry for Attest {
    fn from_text(what: &str, text: &str) -> Result<Self, InputError> {
        let mut entry = Self::default();
        for field in csv::keyed(what, text)? {
            let (own, value) = field.text.split_once('=').ok_or_else(|| {
                let why = format!("`{}` is not KEY=VALUE", field.text);
                bad(
                    what,
                    text,
                    &why,
                    "type=sbom or type=provenance, with fields behind a comma",
                )
            })?;
            match &*field.key {
                "type" => entry.kind = value.to_owned(),
                "disabled" => entry.disabled = is_true(what, value)?,
                _ => drop(entry.attrs.insert(own.to_owned(), value.to_owned())),
            }
        }
        if entry.kind.is_empty() {
            return Err(bad(
                what,
                text,
                "the statement has no type",
                "type=sbom or type=provenance",
            ));
        }
        Ok(entry)
    }

    fn from_fields(mut fields: Fields) -> Result<Self, InputError> {
        let kind = fields.required("type")?;
        let disabled = fields.flag("disabled")?.unwrap_or_default();
        let attrs = fields.rest()?;
        Ok(Self {
            kind,
            disabled,
            attrs,
        })
    }
}

impl Entry for SecretEntry {
    fn from_text(what: &str, text: &str) -> Result<Self, InputError> {
        const ALLOWED: &str = "id=ID[,src=FILE|,env=VARIABLE]";
        let mut entry = Self::default();
        let mut from_env = false;
        for (key, value) in csv::pairs(what, text)? {
            match &*key {
                "id" => entry.id = value,
                "src" | "source" => entry.src = value,
                "env" => entry.env = value,
                "type" if value == "env" => from_env = true,
                "type" if value == "file" => {}
                "type" => {
                    return Err(bad(
                        what,
                        text,
                        &format!("`{value}` is not a type"),
                        "file or env",
                    ));
                }
                _ => return Err(bad(what, text, &format!("`{key}` is not a field"), ALLOWED)),
            }
        }
        if from_env && entry.env.is_empty() {
            entry.env = std::mem::take(&mut entry.src);
        }
        Ok(entry)
    }

    fn from_fields(mut fields: Fields) -> Result<Self, InputError> {
        let entry = Self {
            id: fields.text("id")?.unwrap_or_default(),
            src: fields.text("src")?.unwrap_or_default(),
            env: fields.text("env")?.unwrap_or_default(),
        };
        fields.finish(&["id", "src", "env"])?;
        Ok(entry)
    }
}

impl Entry for SshEntry {
    fn from_text(_: &str, text: &str) -> Result<Self, InputError> {
        let (id, paths) = match text.split_once('=') {
            Some((id, paths)) => (id, paths.split(',').map(str::to_owned).collect()),
            None => (text, Vec::new()),
        };
        Ok(Self {
            id: id.to_owned(),
            paths,
        })
    }

    fn from_fields(mut fields: Fields) -> Result<Self, InputError> {
        let entry = Self {
            id: fields.text("id")?.unwrap_or_default(),
            paths: fields.list("paths")?.unwrap_or_default(),
        };
        fields.finish(&["id", "paths"])?;
        Ok(entry)
    }
}

/// Fields one after the other, each quoted where it must be.
fn write_fields<'a>(
    f: &mut fmt::Formatter<'_>,
    fields: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> fmt::Result {
    for (i, (key, value)) in fields.into_iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let pair = format!("{key}={value}");
        match pair.contains([',', '"']) {
            true => write!(f, "{comma}\"{}\"", pair.replace('"', "\"\""))?,
            false => write!(f, "{comma}{pair}")?,
        }
    }
    Ok(())
}

fn pairs(attrs: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    attrs.iter().map(|(key, value)| (key.as_str(), value.as_str()))
}

/// The fields that are not empty.
fn said<'a, const N: usize>(fields: [(&'a str, &'a str); N]) -> impl Iterator<Item = (&'a str, &'a str)> {
    fields.into_iter().filter(|(_, value)| !value.is_empty())
}

impl fmt::Display for CacheEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_fields(f, said([("type", &self.kind)]).chain(pairs(&self.attrs)))
    }
}

impl fmt::Display for OutputEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = said([("type", &self.kind), ("dest", &self.dest)]);
        write_fields(f, own.chain(pairs(&self.attrs)))
    }
}

impl fmt::Display for Attest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disabled = if self.disabled { "true" } else { "" };
        let own = said([("type", &*self.kind), ("disabled", disabled)]);
        write_fields(f, own.chain(pairs(&self.attrs)))
    }
}

impl fmt::Display for SecretEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = [("id", &*self.id), ("src", &self.src), ("env", &self.env)];
        write_fields(f, said(own))
    }
}

impl fmt::Display for SshEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.paths.is_empty() {
            true => f.write_str(&self.id),
            false => write!(f, "{}={}", self.id, self.paths.join(",")),
        }
    }
}

impl Serialize for CacheEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &self.kind)?;
        for (key, value) in &self.attrs {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl Serialize for OutputEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &self.kind)?;
        if !self.dest.is_empty() {
            map.serialize_entry("dest", &self.dest)?;
        }
        for (key, value) in &self.attrs {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl Serialize for Attest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &self.kind)?;
        if self.disabled {
            map.serialize_entry("disabled", &true)?;
        }
        for (key, value) in &self.attrs {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both<E: Entry + fmt::Display + Serialize>(text: &str) -> (String, String) {
        let entry = E::from_text("x", text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let json = serde_json::to_string(&entry).expect("JSON");
        (entry.to_string(), json)
    }

    #[test]
    fn both_forms_say_the_same() {
        for ((text, json), (expected_text, expected_json)) in [
            (
                both::<CacheEntry>("u/v"),
                ("type=registry,ref=u/v", r#"{"type":"registry","ref":"u/v"}"#),
            ),
            (
                both::<CacheEntry>("Type=s3,bucket=b,\"name=a,b\""),
                (
                    "type=s3,bucket=b,\"name=a,b\"",
                    r#"{"type":"s3","bucket":"b","name":"a,b"}"#,
                ),
            ),
            (
                both::<OutputEntry>("out"),
                ("type=local,dest=out", r#"{"type":"local","dest":"out"}"#),
            ),
            (
                both::<OutputEntry>("-"),
                ("type=tar,dest=-", r#"{"type":"tar","dest":"-"}"#),
            ),
            (
                both::<OutputEntry>("type=image,Push=true,annotation.A=b"),
                (
                    "type=image,annotation.A=b,push=true",
                    r#"{"type":"image","annotation.A":"b","push":"true"}"#,
                ),
            ),
            (
                both::<Attest>("type=sbom,disabled=1"),
                ("type=sbom,disabled=true", r#"{"type":"sbom","disabled":true}"#),
            ),
            (
                both::<SecretEntry>("id=a,type=env,src=B"),
                ("id=a,env=B", r#"{"id":"a","env":"B"}"#),
            ),
            (both::<SshEntry>("default"), ("default", r#"{"id":"default"}"#)),
            (
                both::<SshEntry>("k=a,b"),
                ("k=a,b", r#"{"id":"k","paths":["a","b"]}"#),
            ),
        ] {
            assert_eq!((&*text, &*json), (expected_text, expected_json));
        }
        for (error, why) in [
            (CacheEntry::from_text("x", "ref=a").err(), "no type"),
            (OutputEntry::from_text("x", "dest=a,b=c").err(), "no type"),
            (
                OutputEntry::from_text("x", "type=a,b").err(),
                "`b` is not KEY=VALUE",
            ),
            (Attest::from_text("x", "mode=max").err(), "no type"),
            (
                Attest::from_text("x", "type=sbom,disabled=maybe").err(),
                "neither true nor false",
            ),
            (
                SecretEntry::from_text("x", "id=a,path=b").err(),
                "`path` is not a field",
            ),
        ] {
            let error = error.expect(why);
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
