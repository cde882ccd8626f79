//! What a registry asks for: `WWW-Authenticate`.

use http::{HeaderMap, header::WWW_AUTHENTICATE};

/// The realm of the first bearer challenge.
pub(super) fn bearer_realm(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .find_map(realm)
}

fn realm(text: &str) -> Option<String> {
    let mut rest = text;
    let mut bearer = false;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return None;
        }
        let end = rest.find([' ', '\t', '=', ',']).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        let Some(value) = behind.trim_start().strip_prefix('=') else {
            // A scheme.
            bearer = word.eq_ignore_ascii_case("bearer");
            rest = behind;
            continue;
        };
        let (value, behind) = value_of(value.trim_start());
        if bearer && word.eq_ignore_ascii_case("realm") {
            return Some(value);
        }
        rest = behind;
    }
}

/// A token or a quoted string, and what follows.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_realm_of_the_bearer_challenge_is_found() {
        for text in [
            r#"Bearer realm="https://a/t",service="s",scope="x:y:z""#,
            r#"bearer service="a, realm=b" , REALM = "https://a/t""#,
            r#"Basic realm="no", Bearer realm="https:\//a/t""#,
            "Bearer realm=https://a/t, service=s",
        ] {
            assert_eq!(realm(text).as_deref(), Some("https://a/t"), "{text}");
        }
        for text in [
            "",
            "Basic realm=\"x\"",
            "Bearer",
            "Bearer service=\"x",
            "Bearer =,=",
            "=",
            "Digest realm=x",
        ] {
            assert_eq!(realm(text), None, "{text}");
        }
    }
}
