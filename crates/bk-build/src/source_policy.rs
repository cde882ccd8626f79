//! Rules that allow, deny or replace what a build fetches, as the file format that other clients read.
//!
//! The rule: a policy protects, so nothing of it is ignored. An unknown field or word is an error that names it.

use std::collections::BTreeMap;

use bk_proto::source_policy::{
    AttrConstraint, AttrMatch, MatchType, Policy, PolicyAction, Rule, Selector, Update,
};
use serde::Deserialize;

use crate::InputError;

/// Rules that allow, deny or replace the sources of a build. The daemon applies them; from BuildKit 0.11 on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourcePolicy {
    wire: Policy,
}

impl SourcePolicy {
    /// Reads a policy from its JSON form: `{"rules": [{"action": "DENY", "selector": {"identifier": "…"}}]}`.
    ///
    /// # Errors
    /// An [`InputError`] that names the place when the text is no JSON, or has a field or a word that is not known.
    pub fn from_json(text: &[u8]) -> Result<Self, InputError> {
        let bad = |why: String| {
            InputError::new(
                "source policy",
                why,
                r#"JSON, for instance {"rules": [{"action": "DENY", "selector": {"identifier": "docker-image://*"}}]}"#,
            )
        };
        // A list would be taken for the values of the fields in their order.
        if text.trim_ascii_start().first() == Some(&b'[') {
            return Err(bad("a list, expected an object".to_owned()));
        }
        let file: File = serde_json::from_slice(text).map_err(|e| bad(e.to_string()))?;
        Ok(Self { wire: file.into() })
    }

    /// The policy as it is sent.
    pub fn to_wire(&self) -> Policy {
        self.wire.clone()
    }

    /// How many rules there are.
    pub fn rules(&self) -> usize {
        self.wire.rules.len()
    }
}

impl From<Policy> for SourcePolicy {
    fn from(wire: Policy) -> Self {
        Self { wire }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    version: i64,
    #[serde(default)]
    rules: Vec<FileRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRule {
    #[serde(default)]
    action: Word<PolicyAction>,
    selector: Option<FileSelector>,
    updates: Option<FileUpdate>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSelector {
    #[serde(default)]
    identifier: String,
    #[serde(default, alias = "matchType")]
    match_type: Word<MatchType>,
    #[serde(default)]
    constraints: Vec<FileConstraint>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileConstraint {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value: String,
    #[serde(default)]
    condition: Word<AttrMatch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileUpdate {
    #[serde(default)]
    identifier: String,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

/// A word of an enumeration, by its name or its number.
#[derive(Default, Deserialize)]
#[serde(try_from = "NameOrNumber")]
struct Word<T: Enumeration>(i32, std::marker::PhantomData<T>);

#[derive(Deserialize)]
#[serde(untagged)]
enum NameOrNumber {
    Name(String),
    Number(i32),
}

trait Enumeration: Default {
    fn number(name: &str) -> Option<i32>;
    fn is(number: i32) -> bool;
}

macro_rules! enumeration {
    ($($type:ty),*) => {$(
        impl Enumeration for $type {
            fn number(name: &str) -> Option<i32> {
                <$type>::from_str_name(name).map(|v| v as i32)
            }
            fn is(number: i32) -> bool {
                <$type>::try_from(number).is_ok()
            }
        }
    )*};
}
enumeration!(PolicyAction, MatchType, AttrMatch);

impl<T: Enumeration> TryFrom<NameOrNumber> for Word<T> {
    type Error = String;

    fn try_from(given: NameOrNumber) -> Result<Self, String> {
        let number = match given {
            NameOrNumber::Name(name) => T::number(&name).ok_or_else(|| format!("unknown word `{name}`"))?,
            NameOrNumber::Number(number) if T::is(number) => number,
            NameOrNumber::Number(number) => return Err(format!("unknown number {number}")),
        };
        Ok(Self(number, std::marker::PhantomData))
    }
}

impl From<File> for Policy {
    fn from(file: File) -> Self {
        let constraint = |c: FileConstraint| AttrConstraint {
            key: c.key,
            value: c.value,
            condition: c.condition.0,
        };
        let rule = |r: FileRule| Rule {
            action: r.action.0,
            selector: r.selector.map(|s| Selector {
                identifier: s.identifier,
                match_type: s.match_type.0,
                constraints: s.constraints.into_iter().map(constraint).collect(),
            }),
            updates: r.updates.map(|u| Update {
                identifier: u.identifier,
                attrs: u.attrs,
            }),
        };
        Self {
            version: file.version,
            rules: file.rules.into_iter().map(rule).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_format_is_read_whole() {
        let text = br#"{"version": 1, "rules": [
            {"action": "DENY", "selector": {"identifier": "docker-image://*"}},
            {"action": 2, "selector": {"identifier": "x", "match_type": "REGEX",
                "constraints": [{"key": "k", "value": "v", "condition": "NOTEQUAL"}]},
             "updates": {"identifier": "y", "attrs": {"a": "b"}}}]}"#;
        let policy = SourcePolicy::from_json(text).expect("a policy").to_wire();
        assert_eq!(policy.version, 1);
        assert_eq!(policy.rules[0].action, PolicyAction::Deny as i32);
        let rule = &policy.rules[1];
        assert_eq!(rule.action, PolicyAction::Convert as i32);
        let selector = rule.selector.as_ref().expect("a selector");
        assert_eq!(selector.match_type, MatchType::Regex as i32);
        assert_eq!(selector.constraints[0].condition, AttrMatch::Notequal as i32);
        assert_eq!(rule.updates.as_ref().expect("updates").attrs["a"], "b");
    }

    #[test]
    fn nothing_of_a_policy_is_ignored() {
        for (bad, part) in [
            ("", "EOF"),
            ("[]", "expected"),
            (r#"{"rule": []}"#, "rule"),
            (r#"{"rules": [{"action": "FORBID"}]}"#, "FORBID"),
            (r#"{"rules": [{"action": 9}]}"#, "9"),
            (r#"{"rules": [{"selector": {"id": "x"}}]}"#, "id"),
        ] {
            let e = SourcePolicy::from_json(bad.as_bytes()).expect_err(bad);
            assert!(e.message.contains(part), "{e}");
        }
    }
}
