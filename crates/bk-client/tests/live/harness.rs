//! How the conformance suite looks into the images of a Docker Engine, and what each daemon cannot do.

use std::path::PathBuf;

use async_trait::async_trait;
use bk_testkit::{
    compare::Rules,
    conformance::{Base, Case, Exception, Harness},
    live::{Daemon, Engine, Route, Target},
    snapshot::Snapshot,
};

pub(crate) struct LiveHarness {
    target: Target,
    engine: Engine,
}

impl LiveHarness {
    pub(crate) async fn new(target: &Target) -> Self {
        let engine = Engine::connect(&target.docker)
            .await
            .unwrap_or_else(|e| panic!("{}: {e}", target.name()));
        Self {
            target: target.clone(),
            engine,
        }
    }

    /// Whether the daemon's gRPC codec checks that strings are UTF-8.
    fn strict_names(&self) -> bool {
        use Daemon::{BuildkitTcp, BuildkitUnix, Docker28_5, Docker28_5Containerd};
        matches!(
            self.target.daemon,
            Docker28_5 | Docker28_5Containerd | BuildkitTcp | BuildkitUnix
        )
    }
}

#[async_trait]
impl Harness for LiveHarness {
    fn name(&self) -> String {
        self.target.name()
    }

    async fn tree(
        &self,
        image: &str,
        dir: &str,
    ) -> Result<Snapshot, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.engine.tree(image, dir).await?)
    }

    async fn forget(&self, image: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.engine.remove_image(image).await?)
    }

    fn shell(&self) -> PathBuf {
        self.target.busybox.clone()
    }

    fn base(&self) -> Base {
        self.target.base.clone()
    }

    fn exception(&self, case: Case) -> Option<Exception> {
        let old = self.target.daemon == Daemon::Docker20_10;
        match (case, self.target.route) {
            (Case::RegistryBase, Route::Tar) => Some(Exception::Skip(
                "without a session the daemon can ask nobody for credentials",
            )),
            (Case::DockerfilePlaces, Route::Tar) => Some(Exception::Loose(
                Rules {
                    surplus: Some(".dockerfile.bk"),
                    ..Rules::image()
                },
                "an upload holds a Dockerfile from elsewhere as a file that COPY sees",
            )),
            (Case::RawNames, Route::Grpc | Route::Build | Route::H2c | Route::Direct)
                if self.strict_names() =>
            {
                Some(Exception::Refuses(
                    "Docker Engine 28 takes no names over gRPC that are not UTF-8",
                ))
            }
            (Case::SpecialFiles, _) if old => {
                let why = "BuildKit 0.8 copies no named pipes and gives directories a new time";
                Some(Exception::Loose(
                    Rules {
                        dir_times: false,
                        pipes: false,
                        ..Rules::image()
                    },
                    why,
                ))
            }
            (Case::MultiStage | Case::RichTree | Case::RawNames | Case::ManyFiles, _) if old => {
                let why = "BuildKit 0.8 gives copied directories a new time";
                Some(Exception::Loose(
                    Rules {
                        dir_times: false,
                        ..Rules::image()
                    },
                    why,
                ))
            }
            _ => None,
        }
    }

    fn places(&self) -> bool {
        // `/build` answers with the text of an error only, and so does the `/grpc` of Docker Engine 20.10.
        !matches!(self.target.route, Route::Build | Route::Tar) && self.target.daemon != Daemon::Docker20_10
    }
}
