//! Values that are lists of fields: `type=local,dest=out`, `"k=a,b",x`.
//!
//! The rule: the grammar is that of the tools that users know, a single record of comma-separated values as Go reads
//! it. A field that starts with `"` runs to the next lone `"` and may hold commas; `""` inside it is one quote. A quote
//! anywhere else is an error, so that nothing is read differently from how it was meant.

use bk_build::InputError;

/// One field of a value, split at its first `=`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Field {
    /// What stands before the `=`, or the whole field. Lower case and without blanks at its ends.
    pub key: String,
    /// What stands behind the `=`, as it is; none without one.
    pub value: Option<String>,
    /// The whole field as it was given.
    pub text: String,
}

/// Splits a value into fields. An empty text is one empty field.
///
/// # Errors
/// A quote at a place where none can be, naming `flag`.
pub fn fields(flag: &str, text: &str) -> Result<Vec<String>, InputError> {
    let bad = |why: &str| {
        InputError::new(
            flag,
            format!("`{text}`: {why}"),
            "FIELD,FIELD,…; a field with a comma stands in double quotes, and a quote in it is doubled",
        )
    };
    if text.contains(['\n', '\r']) {
        return Err(bad("it holds a line break"));
    }
    let mut all = Vec::new();
    let mut rest = text;
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            let mut inner = quoted;
            let behind = loop {
                let Some((part, after)) = inner.split_once('"') else {
                    return Err(bad("a quote is not closed"));
                };
                field.push_str(part);
                match after.strip_prefix('"') {
                    Some(after) => {
                        field.push('"');
                        inner = after;
                    }
                    None => break after,
                }
            };
            all.push(field);
            match behind.strip_prefix(',') {
                Some(next) => rest = next,
                None if behind.is_empty() => return Ok(all),
                None => return Err(bad("text follows a closing quote")),
            }
        } else {
            let (field, next) = match rest.split_once(',') {
                Some((field, next)) => (field, Some(next)),
                None => (rest, None),
            };
            if field.contains('"') {
                return Err(bad("a quote stands in a field that does not start with one"));
            }
            all.push(field.to_owned());
            match next {
                Some(next) => rest = next,
                None => return Ok(all),
            }
        }
    }
}

/// Splits a value into fields with keys.
///
/// # Errors
/// As [`fields`].
pub fn keyed(flag: &str, text: &str) -> Result<Vec<Field>, InputError> {
    Ok(fields(flag, text)?
        .into_iter()
        .map(|text| {
            let (key, value) = match text.split_once('=') {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (text.as_str(), None),
            };
            Field {
                key: key.trim().to_lowercase(),
                value,
                text,
            }
        })
        .collect())
}

/// Splits a value into fields that must all be `key=value`. The keys are lower case; the values stay as they are.
///
/// # Errors
/// As [`fields`], and for a field without `=` or without a key.
pub fn pairs(flag: &str, text: &str) -> Result<Vec<(String, String)>, InputError> {
    keyed(flag, text)?
        .into_iter()
        .map(|field| match field {
            Field {
                key,
                value: Some(value),
                ..
            } if !key.is_empty() => Ok((key, value)),
            field => Err(InputError::new(
                flag,
                format!("`{}` is not KEY=VALUE", field.text),
                "KEY=VALUE[,KEY=VALUE…]",
            )),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<String> {
        fields("--x", text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn fields_are_split_as_go_does() {
        for (text, expected) in [
            ("", &[""][..]),
            ("a", &["a"]),
            ("a,b=c", &["a", "b=c"]),
            ("a,,b,", &["a", "", "b", ""]),
            (" a , b", &[" a ", " b"]),
            (r#""a,b",c"#, &["a,b", "c"]),
            (r#"a,"k=x ""y"", z""#, &["a", r#"k=x "y", z"#]),
            (r#""","""#, &["", ""]),
            (r#""""""#, &["\""]),
            (r"a\,b", &["a\\", "b"]),
        ] {
            assert_eq!(split(text), expected, "{text}");
        }
        for (text, why) in [
            (r#"a"b"#, "a quote stands in a field"),
            (r#"k="v""#, "a quote stands in a field"),
            (r#""a"b"#, "text follows a closing quote"),
            (r#""a"#, "a quote is not closed"),
            (r#""a"""#, "a quote is not closed"),
            ("a\nb", "line break"),
        ] {
            let e = fields("--x", text).expect_err(text);
            assert_eq!(e.what, "--x");
            assert!(e.message.contains(why), "{text}: {e}");
        }
    }

    #[test]
    fn keys_are_folded_and_values_kept() {
        assert_eq!(
            pairs("--x", r#"TYPE=Local, Dest = A=b ,"name=a,b""#).expect("pairs"),
            [
                ("type".to_owned(), "Local".to_owned()),
                ("dest".to_owned(), " A=b ".to_owned()),
                ("name".to_owned(), "a,b".to_owned()),
            ]
        );
        for text in ["", "a", "=b", "a=b,c"] {
            assert!(pairs("--x", text).is_err(), "{text}");
        }
        let all = keyed("--x", "Ref,type=x").expect("fields");
        assert_eq!(
            (all[0].key.as_str(), all[0].value.as_deref(), all[0].text.as_str()),
            ("ref", None, "Ref")
        );
    }
}
