//! How a token server is asked and what it answers: OAuth's form first, the older query second.

use std::{
    fmt::Write,
    time::{Duration, SystemTime},
};

use bk_build::{Credential, CredentialKind, SecretText, Token, TokenRequest};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Uri, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::http::{Asked, basic};

/// What a token server takes for an answer without a length; the number of the distribution specification.
const USUAL_LIFE: Duration = Duration::from_secs(60);
/// The name for a daemon that gives none.
const CLIENT: &str = "bk";

/// What is written as it is: what RFC 3986 calls unreserved.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The form: for everybody who has a credential.
pub(super) fn form(realm: &Uri, request: &TokenRequest, credential: &Credential) -> Asked {
    let mut body = Zeroizing::new(String::new());
    let mut add = |key: &str, value: &str| pair(&mut body, key, value);
    add("scope", &request.scopes.join(" "));
    add("service", &request.service);
    add(
        "client_id",
        if request.client_id.is_empty() {
            CLIENT
        } else {
            &request.client_id
        },
    );
    if credential.username.is_empty() {
        add("grant_type", "refresh_token");
        add("refresh_token", credential.secret.expose());
    } else {
        add("grant_type", "password");
        add("username", &credential.username);
        add("password", credential.secret.expose());
    }
    let mut asked = Asked::get(realm.clone());
    asked.method = Method::POST;
    asked.body = Bytes::from_owner(Wiped(body));
    asked.headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8"),
    );
    asked
}

struct Wiped(Zeroizing<String>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Whether the answer to the form means that the server knows only the query.
pub(super) fn wants_query(status: StatusCode, credential: &Credential) -> bool {
    match status {
        StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED => true,
        StatusCode::METHOD_NOT_ALLOWED => credential.kind == CredentialKind::Password,
        _ => false,
    }
}

/// The query, with the credential as its proof if there is one.
pub(super) fn query(
    realm: &Uri,
    request: &TokenRequest,
    credential: Option<&Credential>,
) -> Result<Asked, String> {
    let mut query = realm.query().unwrap_or_default().to_owned();
    if !request.service.is_empty() {
        pair(&mut query, "service", &request.service);
    }
    for scope in &request.scopes {
        pair(&mut query, "scope", scope);
    }
    let mut parts = realm.clone().into_parts();
    let path = format!("{}?{query}", realm.path());
    parts.path_and_query = Some(path.parse().map_err(|_| "not an address")?);
    let mut asked = Asked::get(Uri::from_parts(parts).map_err(|e| e.to_string())?);
    if let Some(credential) = credential {
        let login = Zeroizing::new(format!("{}:{}", credential.username, credential.secret.expose()));
        asked
            .headers
            .insert(header::AUTHORIZATION, basic(login.as_bytes())?);
    }
    Ok(asked)
}

fn pair(out: &mut String, key: &str, value: &str) {
    let separator = if out.is_empty() { "" } else { "&" };
    // Writing to a string cannot fail.
    let _ = write!(out, "{separator}{key}={}", utf8_percent_encode(value, ENCODED));
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    expires_in: Option<i64>,
    #[serde(default)]
    issued_at: Option<String>,
}

/// The token in an answer. An error quotes nothing of it.
pub(super) fn token(body: &[u8]) -> Result<Token, String> {
    let answer: Answer =
        serde_json::from_slice(body).map_err(|_| "the answer is not the JSON that it should be")?;
    let of = |text: Option<String>| text.map(SecretText::new).filter(|t| !t.is_empty());
    let (first, second) = (of(answer.access_token), of(answer.token));
    let token = first.or(second).ok_or("the answer holds no token")?;
    let life = answer
        .expires_in
        .and_then(|s| u64::try_from(s).ok())
        .filter(|s| *s > 0);
    let issued = answer.issued_at.and_then(|text| {
        let time = time::OffsetDateTime::parse(&text, &time::format_description::well_known::Rfc3339).ok()?;
        Some(SystemTime::from(time))
    });
    Ok(Token::new(token, life.map_or(USUAL_LIFE, Duration::from_secs)).issued_at(issued))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> TokenRequest {
        TokenRequest::new("h", "https://a/t")
            .service("h&h")
            .scopes(["repository:a/b:pull,push", "repository:c:pull"])
    }

    #[test]
    fn forms_and_queries_are_encoded() {
        let realm: Uri = "https://a/t?x=1".parse().expect("uri");
        let asked = form(&realm, &request(), &Credential::basic("u", "p&w=x"));
        assert_eq!(
            asked.body,
            "scope=repository%3Aa%2Fb%3Apull%2Cpush%20repository%3Ac%3Apull&service=h%26h&client_id=bk\
             &grant_type=password&username=u&password=p%26w%3Dx"
        );
        let asked = form(
            &realm,
            &request().client_id("c"),
            &Credential::identity_token("t+t"),
        );
        let text = std::str::from_utf8(&asked.body).expect("text");
        assert!(
            text.ends_with("client_id=c&grant_type=refresh_token&refresh_token=t%2Bt"),
            "{text}"
        );
        let asked = query(&realm, &request(), Some(&Credential::basic("u", "p"))).expect("encodes");
        assert_eq!(
            asked.uri,
            "https://a/t?x=1&service=h%26h&scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=repository%3Ac%3Apull"
        );
        assert_eq!(asked.headers[header::AUTHORIZATION], "Basic dTpw");
        assert!(
            query(&realm, &request(), None)
                .expect("encodes")
                .headers
                .is_empty()
        );
    }

    #[test]
    fn answers() {
        let of = |text: &str| token(text.as_bytes());
        let found =
            of(r#"{"token":"b","access_token":"a","expires_in":300,"issued_at":"2026-01-02T03:04:05Z"}"#);
        let found = found.expect("a token");
        assert_eq!(
            (found.token.expose(), found.expires_in),
            ("a", Duration::from_secs(300))
        );
        let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045);
        assert_eq!(found.issued_at, Some(epoch));
        let found =
            of(r#"{"token":"b","access_token":"","expires_in":-1,"issued_at":"x"}"#).expect("a token");
        assert_eq!(
            (found.token.expose(), found.expires_in, found.issued_at),
            ("b", USUAL_LIFE, None)
        );
        for bad in ["", "{}", "[]", r#"{"token":7,"x":"hunter2"}"#, "hunter2"] {
            let error = of(bad).expect_err(bad);
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
