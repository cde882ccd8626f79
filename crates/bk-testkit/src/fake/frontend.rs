//! The build itself: asks for the Dockerfile, the ignore file and the context as the real frontend does, then runs the
//! steps of the stages that are needed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bk_proto::{
    auth::{CredentialsRequest, GetTokenAuthorityRequest, auth_client::AuthClient},
    control::{SolveRequest, StatusResponse, VertexWarning},
    ops,
};
use tonic::{Code, Status};

use super::{
    Fault, Moment, State, TransferSeen,
    details::{failure, place},
    dockerfile::{self, Stage},
    image::base_image,
    job::{Job, Step},
    locked,
    receive::{self, Ask, Received},
    session::{Session, Tunnel, origin},
    steps::{StageRun, needed},
};
use crate::{limits, snapshot::Snapshot};

const FILE_SYNC: &str = "/moby.filesync.v1.FileSync/DiffCopy";
const FILESYNC_LOCALS: [&str; 2] = ["context", "dockerfile"];

/// One build. Dropping its future cancels everything it does.
pub(crate) struct Build<'a> {
    pub(crate) state: &'a Arc<State>,
    pub(crate) job: &'a Job,
    pub(crate) request: &'a SolveRequest,
}

pub(super) struct Source {
    pub(super) name: String,
    pub(super) text: String,
    /// The text of the ignore file beside it.
    ignore: Option<String>,
}

impl Build<'_> {
    /// Builds, and keeps the image under its tags. Comes back with what the exporter answers.
    pub(crate) async fn run(&self) -> Result<BTreeMap<String, String>, Status> {
        let session = self.session().await?;
        self.cut_here(&session, Moment::SessionAttached).await;
        self.probe(&session).await?;
        let source = self.dockerfile(&session).await?;
        let excludes = self.excludes(&session, &source).await?;
        let args = self.attrs_with("build-arg:");
        let stages = dockerfile::parse(&source.text, &args).map_err(|mistake| {
            failure(
                Code::Unknown,
                &mistake.message,
                vec![place(&source, mistake.line)],
            )
        })?;
        let wanted = self.wanted(&stages)?;
        let needed = needed(&stages, wanted);
        let context = self.context(&session, &stages, &needed, excludes).await?;
        let mut built: BTreeMap<usize, Snapshot> = BTreeMap::new();
        for index in needed {
            let stage = stages
                .get(index)
                .ok_or_else(|| Status::internal("no such stage"))?;
            let run = StageRun {
                build: self,
                source: &source,
                context: &context,
                args: &args,
                stages: &stages,
            };
            let tree = run.all(stage, &built, &session).await?;
            built.insert(index, tree);
        }
        let tree = built.remove(&wanted).unwrap_or_default();
        self.odd_progress(&source);
        self.cut_here(&session, Moment::BeforeExport).await;
        Ok(self.export(&tree))
    }

    async fn session(&self) -> Result<Arc<Session>, Status> {
        let id = &self.request.session;
        let found = async {
            loop {
                let changed = self.state.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(session) = locked(&self.state.sessions).get(id).cloned() {
                    return session;
                }
                changed.await;
            }
        };
        let late = |_| Status::unknown(format!("no active session for {id}: context deadline exceeded"));
        tokio::time::timeout(limits::SESSION_WAIT, found)
            .await
            .map_err(late)
    }

    /// What a script asks before the build proper.
    async fn probe(&self, session: &Session) -> Result<(), Status> {
        for fault in self.state.script.faults() {
            match fault {
                Fault::UnknownMethods => self.unknown_methods(session).await?,
                Fault::UnknownSource => {
                    let ask = Ask {
                        dir: "nobody-offers-this".to_owned(),
                        ..Ask::default()
                    };
                    let script = super::Script::healthy();
                    match receive::receive(session, &ask, None, &script, &|_| {}).await {
                        Err(e) if e.code() == Code::NotFound => {}
                        Err(e) => return Err(Status::internal(format!("unknown source: {e}"))),
                        Ok(_) => return Err(Status::internal("unknown source: was served")),
                    }
                }
                Fault::SessionHeaderBomb(bytes) => {
                    let ask = Ask {
                        dir: "context".to_owned(),
                        excludes: vec!["x".repeat(8 * 1024); bytes / (8 * 1024)],
                        ..Ask::default()
                    };
                    let script = super::Script::healthy();
                    receive::receive(session, &ask, None, &script, &|_| {}).await?;
                }
                Fault::WaitForHealthChecks(checks) => loop {
                    let changed = self.state.changed.notified();
                    tokio::pin!(changed);
                    changed.as_mut().enable();
                    if locked(&self.state.seen).health_checks >= *checks {
                        break;
                    }
                    changed.await;
                },
                _ => {}
            }
        }
        Ok(())
    }

    async fn unknown_methods(&self, session: &Session) -> Result<(), Status> {
        for path in [
            "/moby.upload.v9.Upload/Pull",
            "/moby.filesync.v1.Auth/NoSuchMethod",
            "/moby.exporter.v1.Exporter/FindExporters",
            "/x/y",
        ] {
            let code = call_unknown(session.tunnel.clone(), path).await?;
            if code != Code::Unimplemented {
                return Err(Status::internal(format!(
                    "{path}: answered {code:?}, not Unimplemented"
                )));
            }
        }
        Ok(())
    }

    async fn dockerfile(&self, session: &Session) -> Result<Source, Status> {
        let name = self.request.frontend_attrs.get("filename").cloned();
        let name = name.unwrap_or_else(|| "Dockerfile".to_owned());
        let mut follow = vec![name.clone(), format!("{name}.dockerignore")];
        if name == "Dockerfile" {
            follow.push("dockerfile".to_owned());
        }
        let ask = Ask {
            dir: "dockerfile".to_owned(),
            follow,
            excludes: Vec::new(),
        };
        let step = Step::start(
            self.job,
            "[internal] load build definition from Dockerfile",
            Vec::new(),
        );
        let received = self.transfer(session, &ask).await;
        let step_end = received.as_ref().err().map_or("", |e| e.message()).to_owned();
        step.end(&step_end);
        let received = received?;
        let lower = (name == "Dockerfile")
            .then(|| received.files.get(&b"dockerfile"[..]))
            .flatten();
        let Some(file) = received.files.get(name.as_bytes()).or(lower) else {
            let text = format!("failed to read dockerfile: open {name}: no such file or directory");
            return Err(Status::unknown(text));
        };
        let ignore = received.files.get(format!("{name}.dockerignore").as_bytes());
        let text = |file: &receive::File| String::from_utf8_lossy(&file.head).into_owned();
        Ok(Source {
            text: text(file),
            ignore: ignore.map(text),
            name,
        })
    }

    /// The exclude patterns: of the ignore file beside the Dockerfile, else of the context's own.
    async fn excludes(&self, session: &Session, source: &Source) -> Result<Vec<String>, Status> {
        let text = match &source.ignore {
            Some(text) => text.clone(),
            None => {
                let follow = vec![".dockerignore".to_owned()];
                let ask = Ask {
                    dir: "context".to_owned(),
                    follow,
                    excludes: Vec::new(),
                };
                let step = Step::start(self.job, "[internal] load .dockerignore", Vec::new());
                let received = self.transfer(session, &ask).await;
                step.end(received.as_ref().err().map_or("", |e| e.message()));
                let file = received?.files.remove(&b".dockerignore"[..]);
                file.map(|file| String::from_utf8_lossy(&file.head).into_owned())
                    .unwrap_or_default()
            }
        };
        let lines = text
            .lines()
            .filter(|l| !l.starts_with('#'))
            .map(str::trim)
            .filter(|l| !l.is_empty());
        Ok(lines
            .map(|l| {
                l.strip_prefix('/')
                    .filter(|r| !r.is_empty())
                    .unwrap_or(l)
                    .to_owned()
            })
            .collect())
    }

    async fn context(
        &self,
        session: &Session,
        stages: &[Stage],
        needed: &[usize],
        excludes: Vec<String>,
    ) -> Result<Received, Status> {
        let mut sources = BTreeSet::new();
        for stage in needed.iter().filter_map(|i| stages.get(*i)) {
            for step in stage
                .steps
                .iter()
                .filter(|s| s.name == "COPY" && !s.rest.contains("--from="))
            {
                let words: Vec<&str> = step
                    .rest
                    .split_whitespace()
                    .filter(|w| !w.starts_with("--"))
                    .collect();
                let from = words.split_last().map(|(_, sources)| sources).unwrap_or_default();
                sources.extend(
                    from.iter()
                        .map(|s| s.trim_matches('/').trim_start_matches("./").to_owned()),
                );
            }
        }
        if sources.is_empty() {
            return Ok(Received::default());
        }
        let whole = sources.iter().any(|s| s.is_empty() || s == ".");
        let follow = if whole {
            Vec::new()
        } else {
            sources.into_iter().collect()
        };
        let ask = Ask {
            dir: "context".to_owned(),
            follow,
            excludes,
        };
        let step = Step::start(self.job, "[internal] load build context", Vec::new());
        let received = self.transfer(session, &ask).await;
        if let Ok(received) = &received {
            step.status("transferring context:", received.data_bytes, 0, true);
        }
        step.end(received.as_ref().err().map_or("", |e| e.message()));
        received
    }

    async fn transfer(&self, session: &Session, ask: &Ask) -> Result<Received, Status> {
        if !session.lists(FILE_SYNC) {
            return Err(Status::unknown("no local sources enabled"));
        }
        if !FILESYNC_LOCALS.contains(&ask.dir.as_str()) {
            return Err(Status::internal(format!("no such local {}", ask.dir)));
        }
        let key = (ask.dir.clone(), session.shared_key.clone());
        let known = locked(&self.state.kept).get(&key).cloned();
        let main = ask.dir == "context" && ask.follow.first().is_none_or(|f| f != ".dockerignore");
        let cut = |moment| {
            if main {
                self.cut(session, moment);
            }
        };
        let healthy = super::Script::healthy();
        let script = if main { &self.state.script } else { &healthy };
        let received = receive::receive(session, ask, known.as_ref(), script, &cut).await?;
        let seen = TransferSeen {
            dir: ask.dir.clone(),
            excludes: ask.excludes.clone(),
            follow: ask.follow.clone(),
            entries: received.files.len(),
            requested: received.requested,
            data_bytes: received.data_bytes,
        };
        self.state.see(|s| s.transfers.push(seen));
        let mut kept = locked(&self.state.kept);
        kept.entry(key).or_default().files.extend(received.files.clone());
        Ok(received)
    }

    fn wanted(&self, stages: &[Stage]) -> Result<usize, Status> {
        let Some(target) = self
            .request
            .frontend_attrs
            .get("target")
            .filter(|t| !t.is_empty())
        else {
            return Ok(stages.len() - 1);
        };
        let named = |s: &Stage| s.alias.as_deref() == Some(&target.to_lowercase());
        let index = stages
            .iter()
            .position(named)
            .or_else(|| target.parse().ok().filter(|i| *i < stages.len()));
        index.ok_or_else(|| Status::unknown(format!("target stage \"{target}\" could not be found")))
    }

    fn attrs_with(&self, prefix: &str) -> BTreeMap<String, String> {
        let attrs = self.request.frontend_attrs.iter();
        attrs
            .filter_map(|(k, v)| Some((k.strip_prefix(prefix)?.to_owned(), v.clone())))
            .collect()
    }

    /// Cuts what the script says; a build whose own connection is cut goes no further.
    async fn cut_here(&self, session: &Session, moment: Moment) {
        self.cut(session, moment);
        if self
            .state
            .script
            .has(|f| *f == Fault::CutConnection(moment) || *f == Fault::Freeze(moment))
        {
            std::future::pending::<()>().await;
        }
    }

    fn cut(&self, session: &Session, moment: Moment) {
        if self.state.script.has(|f| *f == Fault::CutSession(moment)) {
            session.life.cancel();
        }
        if self.state.script.has(|f| *f == Fault::CutConnection(moment)) {
            self.state.cut_connections();
        }
        if self.state.script.has(|f| *f == Fault::Freeze(moment)) {
            self.state.frozen.cancel();
        }
    }

    fn export(&self, tree: &Snapshot) -> BTreeMap<String, String> {
        let exporter = self.request.exporters.first();
        let attrs = exporter.map_or(&self.request.exporter_attrs_deprecated, |e| &e.attrs);
        let kind = exporter.map_or(self.request.exporter_deprecated.as_str(), |e| e.r#type.as_str());
        if kind.is_empty() {
            return BTreeMap::new();
        }
        let step = Step::start(self.job, "exporting to image", Vec::new());
        let names = attrs.get("name").cloned().unwrap_or_default();
        let mut images = locked(&self.state.images);
        for name in names.split(',').filter(|n| !n.is_empty()) {
            images.insert(name.to_owned(), tree.clone());
            step.status(&format!("naming to {name}"), 1, 1, true);
        }
        let digest = format!("sha256:{}", step.digest().trim_start_matches("sha256:"));
        step.end("");
        let mut answer = BTreeMap::from([
            ("containerimage.digest".to_owned(), digest.clone()),
            ("containerimage.config.digest".to_owned(), digest),
        ]);
        if !names.is_empty() {
            answer.insert("image.name".to_owned(), names);
        }
        answer
    }

    fn odd_progress(&self, source: &Source) {
        for fault in self.state.script.faults() {
            match fault {
                Fault::OddProgress => self.job.tell(super::control::odd_progress()),
                Fault::Warn(text) => {
                    let position = |line| Some(ops::Position { line, character: 0 });
                    let warning = VertexWarning {
                        level: 1,
                        short: text.clone().into_bytes(),
                        info: Some(ops::SourceInfo {
                            filename: source.name.clone(),
                            data: source.text.clone().into_bytes(),
                            ..ops::SourceInfo::default()
                        }),
                        ranges: vec![ops::Range {
                            start: position(1),
                            end: position(1),
                        }],
                        ..VertexWarning::default()
                    };
                    self.job.tell(StatusResponse {
                        warnings: vec![warning],
                        ..StatusResponse::default()
                    });
                }
                _ => {}
            }
        }
    }

    /// The tree of a base image that is not a stage.
    pub(super) async fn pull(&self, base: &str, session: &Session) -> Result<Snapshot, Status> {
        if base == "scratch" {
            return Ok(Snapshot::default());
        }
        let step = Step::start(
            self.job,
            &format!("[internal] load metadata for {base}"),
            Vec::new(),
        );
        let answer = self.authenticate(base, session).await;
        step.end(answer.as_ref().err().map_or("", |e| e.message()));
        answer.map(|()| base_image())
    }

    async fn authenticate(&self, base: &str, session: &Session) -> Result<(), Status> {
        let host = base.split('/').next().unwrap_or_default();
        let refused = || {
            let text = format!(
                "failed to resolve source metadata for {base}: pull access denied, repository does not exist or may \
                 require authorization: authorization failed: no basic auth credentials"
            );
            Err(Status::unknown(text))
        };
        let Some((known, user, password)) = &self.state.script.registry else {
            return refused();
        };
        if known != host {
            return refused();
        }
        let mut auth = AuthClient::with_origin(session.tunnel.clone(), origin());
        let authority = GetTokenAuthorityRequest {
            host: host.to_owned(),
            salt: vec![7; 32],
        };
        match auth.get_token_authority(authority).await {
            Ok(key) if key.get_ref().public_key.len() != 32 => {
                return Err(Status::internal("the token authority's key is not 32 bytes long"));
            }
            Ok(_) => {}
            Err(e) if matches!(e.code(), Code::Unimplemented | Code::Unavailable) => {}
            Err(e) => return Err(e),
        }
        self.state.see(|s| s.credential_hosts.push(host.to_owned()));
        let given = auth
            .credentials(CredentialsRequest {
                host: host.to_owned(),
            })
            .await?
            .into_inner();
        if (&given.username, &given.secret) == (user, password) {
            Ok(())
        } else {
            refused()
        }
    }
}

/// Calls a method that no session has, with an empty message; comes back with the code of the answer.
async fn call_unknown(mut tunnel: Tunnel, path: &str) -> Result<Code, Status> {
    use tower_service::Service;

    let body = tonic::body::Body::new(http_body_util::Full::new(bytes::Bytes::from_static(&[
        0, 0, 0, 0, 0,
    ])));
    let request = http::Request::post(format!("http://localhost{path}"))
        .version(http::Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .map_err(|e| Status::internal(e.to_string()))?;
    let answer = tunnel
        .call(request)
        .await
        .map_err(|e| Status::internal(format!("{path}: {e}")))?;
    if answer.status() == http::StatusCode::NOT_FOUND {
        return Ok(Code::Unimplemented);
    }
    let (parts, body) = answer.into_parts();
    if let Some(status) = Status::from_header_map(&parts.headers) {
        return Ok(status.code());
    }
    let collected = http_body_util::BodyExt::collect(body).await;
    let trailers = collected
        .map_err(|e| Status::internal(e.to_string()))?
        .trailers()
        .cloned();
    Ok(trailers
        .and_then(|t| Status::from_header_map(&t))
        .map_or(Code::Unknown, |s| s.code()))
}
