//! A Docker Engine as the judge of a build: exports what an image holds, runs images, cleans up.

use std::{collections::HashMap, io, path::Path, time::Duration};

use bollard::{
    Docker,
    container::LogOutput,
    models::ContainerCreateBody,
    query_parameters::{
        InspectContainerOptions, LogsOptionsBuilder, PruneBuildOptionsBuilder, RemoveContainerOptionsBuilder,
        RemoveImageOptionsBuilder, WaitContainerOptions,
    },
};
use futures_util::{StreamExt, TryStreamExt};
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::snapshot::Snapshot;

/// How long the engine may take for one answer, in seconds. Exports of big images are slow on a busy machine.
const TIMEOUT: u64 = 600;

/// What went wrong while a Docker Engine was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The engine's own answer.
    #[error("docker: {0}")]
    Docker(#[from] bollard::errors::Error),
    /// The image could not be read.
    #[error("the image's file system: {0}")]
    Export(#[from] io::Error),
    /// The task that reads the image ended.
    #[error("the reader of the image stopped: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// A Docker Engine.
#[derive(Clone, Debug)]
pub struct Engine {
    docker: Docker,
}

/// What a container wrote, and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code.
    pub code: i64,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Engine {
    /// Connects to the engine at a socket.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn connect(socket: &Path) -> Result<Self, EngineError> {
        let docker = Docker::connect_with_unix(
            &socket.display().to_string(),
            TIMEOUT,
            bollard::API_DEFAULT_VERSION,
        )?;
        Ok(Self {
            docker: docker.negotiate_version().await?,
        })
    }

    /// The file system of an image below `dir`.
    ///
    /// # Errors
    /// When there is no such image or it cannot be read.
    pub async fn tree(&self, image: &str, dir: &str) -> Result<Snapshot, EngineError> {
        let container = self.create(image, &["/none"]).await?;
        let read = self.export(&container).await;
        self.remove_container(&container).await?;
        Ok(read?.below(dir))
    }

    async fn export(&self, container: &str) -> Result<Snapshot, EngineError> {
        let stream = self
            .docker
            .export_container(container)
            .map_err(io::Error::other)
            .boxed();
        let reader = StreamReader::new(stream);
        let task = tokio::task::spawn_blocking(move || {
            // Reads are small in places: headers of 512 bytes.
            let buffered = io::BufReader::with_capacity(1 << 20, SyncIoBridge::new(reader));
            Snapshot::of_tar(buffered)
        });
        Ok(task.await??)
    }

    /// Runs a command in a container of an image and waits for its end.
    ///
    /// # Errors
    /// When the container cannot be made or started.
    pub async fn run(&self, image: &str, command: &[&str]) -> Result<Ran, EngineError> {
        let container = self.create(image, command).await?;
        let ran = self.start_and_read(&container).await;
        self.remove_container(&container).await?;
        ran
    }

    async fn create(&self, image: &str, command: &[&str]) -> Result<String, EngineError> {
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            cmd: Some(command.iter().map(|&word| word.to_owned()).collect()),
            ..ContainerCreateBody::default()
        };
        Ok(self.docker.create_container(None, body).await?.id)
    }

    async fn start_and_read(&self, container: &str) -> Result<Ran, EngineError> {
        self.docker.start_container(container, None).await?;
        let mut ran = Ran::default();
        let mut waits = self
            .docker
            .wait_container(container, None::<WaitContainerOptions>);
        while let Some(end) = waits.next().await {
            match end {
                Ok(end) => ran.code = end.status_code,
                Err(bollard::errors::Error::DockerContainerWaitError { code, .. }) => ran.code = code,
                Err(e) => return Err(e.into()),
            }
        }
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).build();
        let mut logs = self.docker.logs(container, Some(options));
        while let Some(chunk) = logs.next().await {
            match chunk? {
                LogOutput::StdErr { message } => ran.stderr.push_str(&String::from_utf8_lossy(&message)),
                other => ran.stdout.push_str(&String::from_utf8_lossy(&other.into_bytes())),
            }
        }
        Ok(ran)
    }

    async fn remove_container(&self, container: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        Ok(self.docker.remove_container(container, Some(options)).await?)
    }

    /// The id under which the engine knows an image.
    ///
    /// # Errors
    /// When there is no such image.
    pub async fn image_id(&self, image: &str) -> Result<String, EngineError> {
        Ok(self.docker.inspect_image(image).await?.id.unwrap_or_default())
    }

    /// Removes an image; one that is not there is no error.
    ///
    /// # Errors
    /// When the engine refuses for another reason.
    pub async fn remove_image(&self, image: &str) -> Result<(), EngineError> {
        let options = RemoveImageOptionsBuilder::new().force(true).build();
        match self.docker.remove_image(image, Some(options), None).await {
            Ok(_) => Ok(()),
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Frees the build cache, so that a run of many builds does not fill the disk.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn prune_builds(&self) -> Result<(), EngineError> {
        let options = PruneBuildOptionsBuilder::new().all(true).build();
        Ok(self.docker.prune_build(Some(options)).await.map(drop)?)
    }

    /// The versions that the engine tells, by component.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn versions(&self) -> Result<HashMap<String, String>, EngineError> {
        let version = self.docker.version().await?;
        let components = version.components.unwrap_or_default();
        Ok(components.into_iter().map(|c| (c.name, c.version)).collect())
    }

    /// Whether a container with that id or name runs; one that is not there does not.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn is_running(&self, container: &str) -> Result<bool, EngineError> {
        match self
            .docker
            .inspect_container(container, None::<InspectContainerOptions>)
            .await
        {
            Ok(found) => Ok(found.state.and_then(|s| s.running).unwrap_or(false)),
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

/// Waits until `test` holds, asking every `pause`; says whether it did within `limit`. For states that a daemon tells
/// only when asked.
pub async fn until(limit: Duration, pause: Duration, mut test: impl AsyncFnMut() -> bool) -> bool {
    let begun = tokio::time::Instant::now();
    let mut ticks = tokio::time::interval(pause);
    while begun.elapsed() < limit {
        ticks.tick().await;
        if test().await {
            return true;
        }
    }
    false
}
