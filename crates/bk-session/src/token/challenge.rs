//! What a registry asks for: `WWW-Authenticate`.

use http::{HeaderMap, header::WWW_AUTHENTICATE};

/// A bearer challenge: where tokens are, and for whom.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Bearer {
    pub(super) realm: String,
    pub(super) service: String,
}

/// The realm of the first bearer challenge.
pub(super) fn bearer_realm(headers: &HeaderMap) -> Option<String> {
    bearer(headers).map(|bearer| bearer.realm)
}

/// The first bearer challenge that names a realm.
pub(super) fn bearer(headers: &HeaderMap) -> Option<Bearer> {
    headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .find_map(challenge)
}

fn challenge(text: &str) -> Option<Bearer> {
    let mut rest = text;
    let mut bearer = false;
    let (mut realm, mut service) = (None, None);
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            break;
        }
        let end = rest.find([' ', '\t', '=', ',']).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        let Some(value) = behind.trim_start().strip_prefix('=') else {
            // A scheme. Another one ends what belongs to the first.
            if realm.is_some() {
                break;
            }
            bearer = word.eq_ignore_ascii_case("bearer");
            rest = behind;
            continue;
        };
        let (value, behind) = value_of(value.trim_start());
        if bearer && word.eq_ignore_ascii_case("realm") {
            realm.get_or_insert(value);
        } else if bearer && word.eq_ignore_ascii_case("service") {
            service.get_or_insert(value);
        }
        rest = behind;
    }
    Some(Bearer {
        realm: realm?,
        service: service.unwrap_or_default(),
    })
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

    fn realm(text: &str) -> Option<String> {
        challenge(text).map(|bearer| bearer.realm)
    }

    #[test]
    fn the_service_of_the_same_challenge_is_found() {
        for text in [
            r#"Bearer realm="https://a/t",service="s",scope="x:y:z""#,
            r#"Bearer service=s,realm="https://a/t", Basic realm="no""#,
        ] {
            let bearer = challenge(text).expect(text);
            assert_eq!((&*bearer.realm, &*bearer.service), ("https://a/t", "s"), "{text}");
        }
        assert_eq!(challenge("Bearer realm=r").expect("a realm").service, "");
    }

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
