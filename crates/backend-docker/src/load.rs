//! Images of another builder into a Docker Engine.
//!
//! The rule: the archive goes through as it arrives, nothing is kept of it, and what the engine has is not sent again.

use async_trait::async_trait;
use bk_build::{BuildError, ImageLoader, Loaded, ResultInfo, ResultStream};
use futures_util::StreamExt;
use http::Method;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use url::form_urlencoded::Serializer;

use crate::{
    endpoint::Endpoint,
    engine,
    http1::{Body, BodyError},
    limits::CLOSE_GRACE,
    site::Site,
};

/// Loads images into the engine at an endpoint. Nothing is opened before there is one to load.
#[derive(Clone, Debug)]
pub struct EngineLoader {
    site: Site,
}

impl EngineLoader {
    /// Loads into the engine at `endpoint`.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            site: endpoint.into(),
        }
    }

    /// Whether the engine has the image under one of its digests; it then gets its names.
    async fn has(&self, info: &ResultInfo) -> Result<bool, BuildError> {
        for id in [info.digest(), info.config_digest()].into_iter().flatten() {
            if !is_digest(id) {
                continue;
            }
            let path = format!("/images/{id}/json");
            if engine::plain(&self.site, Method::GET, &path).await?.is_none() {
                continue;
            }
            for name in info.names() {
                let path = format!("/images/{id}/tag?{}", tag_query(name));
                if engine::plain(&self.site, Method::POST, &path).await?.is_none() {
                    // Removed meanwhile.
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        Ok(false)
    }
}

#[async_trait]
impl ImageLoader for EngineLoader {
    async fn load(&self, info: &ResultInfo, archive: ResultStream) -> Result<Loaded, BuildError> {
        if self.has(info).await? {
            return Ok(Loaded::AlreadyThere);
        }
        const PATH: &str = "/images/load?quiet=1";
        let frames = archive.map(|piece| piece.map(Frame::data).map_err(BodyError::from));
        let body: Body = BodyExt::boxed_unsync(StreamBody::new(frames));
        let headers = [("content-type", "application/x-tar")];
        let (connection, response) = engine::call(&self.site, Method::POST, PATH, &headers, body).await?;
        let loaded = engine::lines(&self.site, PATH, response, |_| ()).await;
        connection.close(CLOSE_GRACE).await;
        loaded.map(|()| Loaded::Sent)
    }
}

/// `sha256:` and hexadecimal digits: it becomes part of a path.
fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn tag_query(name: &str) -> String {
    let (repo, tag) = split(name);
    let mut query = Serializer::new(String::new());
    query.append_pair("repo", repo);
    if let Some(tag) = tag {
        query.append_pair("tag", tag);
    }
    query.finish()
}

/// A name as repository and tag.
pub(crate) fn split(name: &str) -> (&str, Option<&str>) {
    let last = name.rfind('/').map_or(0, |i| i + 1);
    match name.get(last..).and_then(|n| n.find(':')) {
        Some(i) => (name.get(..last + i).unwrap_or(name), name.get(last + i + 1..)),
        None => (name, None),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bk_build::Refusal;
    use futures_util::stream;

    use super::*;
    use crate::testing::{Engine, Reply};

    const ID: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn piece(bytes: &'static [u8]) -> std::io::Result<bytes::Bytes> {
        Ok(bytes::Bytes::from_static(bytes))
    }

    fn info() -> ResultInfo {
        let mut info = ResultInfo::new(0);
        info.metadata
            .insert("containerimage.digest".to_owned(), ID.to_owned());
        info.metadata
            .insert("containerimage.config.digest".to_owned(), "../../x".to_owned());
        info.metadata
            .insert("image.name".to_owned(), "h:5000/a/b:1,c".to_owned());
        info
    }

    fn archive() -> ResultStream {
        ResultStream::new(stream::iter([piece(b"one "), piece(b"two")]))
    }

    async fn load(engine: &Engine) -> Result<Loaded, BuildError> {
        let loader = EngineLoader::new(engine.address().parse().expect("endpoint"));
        loader.load(&info(), archive()).await
    }

    #[tokio::test]
    async fn an_archive_goes_through_whole() {
        let engine = Engine::start(|line| match line {
            l if l.starts_with("GET") => Reply::http("404 Not Found", "", "{}"),
            _ => Reply::AfterBody(Box::new(Reply::chunked(&[
                b"{\"stream\":\"Loaded",
                b" image\"}\r\n",
            ]))),
        });
        assert_eq!(load(&engine).await.expect("loads"), Loaded::Sent);
        let seen = loop {
            tokio::task::yield_now().await;
            if let Some(seen) = engine.seen("POST /images/load?quiet=1 HTTP/1.1").pop() {
                break seen;
            }
        };
        assert_eq!((seen.body.as_slice(), seen.whole), (&b"one two"[..], true));
        // What is no digest is no path either.
        assert!(engine.seen("GET /images/../../x/json HTTP/1.1").is_empty());
    }

    #[tokio::test]
    async fn what_is_there_only_gets_its_names() {
        let engine = Engine::start(|_| Reply::http("200 OK", "", "{}"));
        assert_eq!(load(&engine).await.expect("there"), Loaded::AlreadyThere);
        for line in [
            format!("POST /images/{ID}/tag?repo=h%3A5000%2Fa%2Fb&tag=1 HTTP/1.1"),
            format!("POST /images/{ID}/tag?repo=c HTTP/1.1"),
        ] {
            while engine.seen(&line).is_empty() {
                tokio::task::yield_now().await;
            }
        }
        assert!(engine.seen("POST /images/load?quiet=1 HTTP/1.1").is_empty());
    }

    #[tokio::test]
    async fn what_the_engine_says_is_the_error() {
        for (status, body) in [
            (
                "200 OK",
                "{\"stream\":\"x\"}\r\n{\"errorDetail\":{\"message\":\"no space\"},\"error\":\"no space\"}",
            ),
            ("200 OK", "{\"error\":\"no space\"}\n"),
            ("500 Internal Server Error", "{\"message\":\"no space\"}"),
        ] {
            let engine = Engine::start(move |line| match line {
                l if l.starts_with("GET") => Reply::http("404 Not Found", "", "{}"),
                _ => Reply::AfterBody(Box::new(Reply::http(status, "", body))),
            });
            let error = load(&engine).await.expect_err("no space");
            let BuildError::Refused(Refusal { message, .. }) = &error else {
                panic!("{error:?}")
            };
            assert!(message.ends_with("no space"), "{message}");
        }
    }

    #[tokio::test]
    async fn half_an_archive_is_never_a_whole_one() {
        let engine = Arc::new(Engine::start(|line| match line {
            l if l.starts_with("GET") => Reply::http("404 Not Found", "", "{}"),
            _ => Reply::AfterBody(Box::new(Reply::http("200 OK", "", ""))),
        }));
        let loader = EngineLoader::new(engine.address().parse().expect("endpoint"));
        let asked = Arc::clone(&engine);
        // Cut only when the request is under way: before that nothing of it would be sent at all.
        let cut = stream::once(async move {
            while asked.arrived("POST /images/load") == 0 {
                tokio::task::yield_now().await;
            }
            Err(std::io::Error::other("cut"))
        });
        let broken = stream::iter([piece(b"one ")]).chain(cut);
        assert!(loader.load(&info(), ResultStream::new(broken)).await.is_err());
        let seen = loop {
            tokio::task::yield_now().await;
            if let Some(seen) = engine.seen("POST /images/load?quiet=1 HTTP/1.1").pop() {
                break seen;
            }
        };
        assert!(!seen.whole);
    }
}
