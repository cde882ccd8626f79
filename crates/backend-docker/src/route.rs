//! The ways to reach BuildKit inside an engine, and which of them works on a given one.
//!
//! The rule: a route is chosen because it was seen to work, not because a version promises it. The version only decides
//! what is worth asking.

use std::{fmt, str::FromStr, sync::Arc};

use bk_build::{BuildError, BuilderInfo, NoCredentials, Refusal};
use bk_session::{Session, SessionConfig, Sources};
use bk_solve::chain;

use crate::{
    daemon::{ApiVersion, Daemon},
    dialer::{self, Grpc, H2c},
    site::Site,
};

/// Which way to reach BuildKit inside Docker Engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DockerRoute {
    /// The first of the others that works, in their order here.
    #[default]
    Auto,
    /// HTTP/2 directly on the API socket, which engines accept from API 1.53 on.
    H2c,
    /// The upgrades `/grpc` and `/session`.
    Grpc,
    /// The upgrade `/session` and `POST /build`.
    Build,
    /// `POST /build` with the context as a tar archive, and no session.
    Tar,
}

/// Engines serve gRPC directly on their socket from this API version on (Docker 29.2).
const H2C_API: ApiVersion = ApiVersion::new(1, 53);
/// Engines know BuildKit in `POST /build` from this API version on (Docker 18.09).
const BUILDKIT_API: ApiVersion = ApiVersion::new(1, 39);

impl DockerRoute {
    /// Every route, in the order in which `auto` tries them, `auto` first.
    pub const ALL: [Self; 5] = [Self::Auto, Self::H2c, Self::Grpc, Self::Build, Self::Tar];

    /// Its name, as a user writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::H2c => "h2c",
            Self::Grpc => "grpc",
            Self::Build => "build",
            Self::Tar => "tar",
        }
    }
}

impl fmt::Display for DockerRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Text that names no route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a route; there are auto, h2c, grpc, build and tar")]
pub struct UnknownRoute(
    /// The text.
    pub String,
);

impl FromStr for DockerRoute {
    type Err = UnknownRoute;

    fn from_str(text: &str) -> Result<Self, UnknownRoute> {
        Self::ALL
            .into_iter()
            .find(|r| r.name() == text)
            .ok_or_else(|| UnknownRoute(text.to_owned()))
    }
}

/// Settles on a route that works; never [`DockerRoute::Auto`].
///
/// # Errors
/// [`BuildError::Refused`] when the wanted route, or every one, does not work, with the reasons.
pub(crate) async fn choose(
    wanted: DockerRoute,
    site: &Site,
    info: &BuilderInfo,
    daemon: &Daemon,
) -> Result<DockerRoute, BuildError> {
    let mut reasons = Vec::new();
    for route in DockerRoute::ALL {
        let forced = wanted == route;
        if route == DockerRoute::Auto || !(forced || wanted == DockerRoute::Auto) {
            continue;
        }
        match check(route, forced, site, info, daemon).await {
            Ok(()) => return Ok(route),
            Err(why) => reasons.push((route, why)),
        }
    }
    let message = match &reasons[..] {
        [(route, why)] => format!("route {route} does not work with {daemon}: {why}"),
        several => {
            let list: Vec<_> = several
                .iter()
                .map(|(route, why)| format!("\n  {route}: {why}"))
                .collect();
            format!("no route to BuildKit works with {daemon}{}", list.concat())
        }
    };
    let mut refusal = Refusal::new(UNIMPLEMENTED, message);
    if wanted != DockerRoute::Auto {
        refusal = refusal.hint("route `auto` picks one that works");
    }
    Err(refusal.into())
}

/// gRPC `UNIMPLEMENTED`.
const UNIMPLEMENTED: i32 = 12;

/// Whether one route works, else why not.
async fn check(
    route: DockerRoute,
    forced: bool,
    site: &Site,
    info: &BuilderInfo,
    daemon: &Daemon,
) -> Result<(), String> {
    let said = |e: BuildError| chain(&e);
    let (site, info) = (site.clone(), info.clone().route(route.name()));
    match route {
        DockerRoute::Auto => Ok(()),
        DockerRoute::H2c => {
            let promised = daemon.api >= H2C_API;
            if !promised && !forced {
                return Err(format!("it needs API {H2C_API}"));
            }
            match bk_solve::probe(&H2c { site, info }).await {
                Ok(_) => Ok(()),
                Err(e) if promised => Err(said(e)),
                Err(e) => Err(format!("it needs API {H2C_API}; {}", said(e))),
            }
        }
        DockerRoute::Grpc => bk_solve::probe(&Grpc { site, info })
            .await
            .map(drop)
            .map_err(said),
        DockerRoute::Build => {
            has_buildkit(daemon)?;
            // Attached and dropped again: whether upgrades reach the daemon cannot be seen in another way.
            let config = SessionConfig::new(Sources::none(), Arc::new(NoCredentials));
            dialer::session(&site, &Session::new(config).headers())
                .await
                .map(drop)
                .map_err(said)
        }
        DockerRoute::Tar => has_buildkit(daemon),
    }
}

/// Whether `POST /build` knows BuildKit there.
fn has_buildkit(daemon: &Daemon) -> Result<(), String> {
    if daemon.api < BUILDKIT_API {
        return Err(format!("BuildKit needs API {BUILDKIT_API}"));
    }
    match daemon.os.as_str() {
        "" | "linux" => Ok(()),
        os => Err(format!("an engine for {os} has no BuildKit")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backend::DockerBackend,
        testing::{Engine, Reply},
    };

    async fn connect(engine: &Engine, route: DockerRoute) -> Result<DockerBackend, BuildError> {
        DockerBackend::connect(&engine.address(), route, Arc::new(NoCredentials)).await
    }

    fn nothing(_: &str) -> Reply {
        Reply::http("404 Not Found", "", r#"{"message":"page not found"}"#)
    }

    #[test]
    fn names_are_read_back() {
        for route in DockerRoute::ALL {
            assert_eq!(route.to_string().parse(), Ok(route));
        }
        let e = "grp".parse::<DockerRoute>().expect_err("no route");
        assert_eq!(
            e.to_string(),
            "`grp` is not a route; there are auto, h2c, grpc, build and tar"
        );
    }

    #[tokio::test]
    async fn auto_takes_the_first_that_works() {
        let engine = Engine::of_version("20.10.24", "1.41", "linux", nothing);
        assert_eq!(
            connect(&engine, DockerRoute::Auto)
                .await
                .expect("connects")
                .route(),
            DockerRoute::Tar
        );
        let engine = Engine::of_version("20.10.24", "1.41", "linux", |line| {
            if line.contains("/session ") {
                Reply::Hold(Reply::switch(b""))
            } else {
                nothing(line)
            }
        });
        let backend = connect(&engine, DockerRoute::Auto).await.expect("connects");
        assert_eq!(backend.route(), DockerRoute::Build);
        let info = bk_build::ImageBuilder::info(&backend);
        assert_eq!(
            info.to_string(),
            format!("docker 20.10.24 (build) at {}", engine.address())
        );
    }

    #[tokio::test]
    async fn a_forced_route_that_cannot_work_says_why() {
        let engine = Engine::of_version("20.10.24", "1.41", "linux", nothing);
        for (route, part) in [
            (DockerRoute::H2c, "it needs API 1.53; "),
            (DockerRoute::Grpc, "POST /grpc was not upgraded: page not found"),
            (
                DockerRoute::Build,
                "POST /session was not upgraded: page not found",
            ),
        ] {
            let e = connect(&engine, route).await.expect_err("cannot work");
            assert!(matches!(&e, BuildError::Refused(_)), "{e:?}");
            let start = format!("route {route} does not work with Docker 20.10.24 (API 1.41): ");
            assert!(
                e.to_string().starts_with(&start) && e.to_string().contains(part),
                "{e}"
            );
            assert!(e.hint().is_some_and(|h| h.contains("auto")), "{e:?}");
        }
    }

    #[tokio::test]
    async fn an_engine_without_buildkit_is_refused_with_every_reason() {
        let engine = Engine::of_version("17.06", "1.30", "linux", nothing);
        let text = connect(&engine, DockerRoute::Auto)
            .await
            .expect_err("too old")
            .to_string();
        for part in [
            "Docker 17.06 (API 1.30)",
            "\n  h2c: ",
            "\n  grpc: ",
            "\n  build: BuildKit needs API 1.39",
            "\n  tar: ",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        let engine = Engine::of_version("24.0", "1.43", "windows", nothing);
        let e = connect(&engine, DockerRoute::Tar).await.expect_err("windows");
        assert!(
            e.to_string().ends_with("an engine for windows has no BuildKit"),
            "{e}"
        );
    }
}
