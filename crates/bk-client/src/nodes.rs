//! One image for several platforms, each built on a node of its own, and put together in the registry; or the files of each
//! platform in one directory.
//!
//! The rule: no name leads to anything before everything is there. Each node pushes what it built by digest only; when all
//! have done so, one index that names all of it is written under each name of the image. And nothing is built before every
//! node was seen to be able to do its part.

mod index;

use std::{collections::BTreeMap, collections::BTreeSet, fmt, sync::Arc, time::SystemTime};

use bk_build::{
    AnnotationScope, BuildError, BuildEvent, BuildOutcome, BuildRequest, BuilderInfo, Context,
    CredentialProvider, EventSink, ImageBuilder, InputError, NoCredentials, OutputKind, Sink, Vertex,
};
use bk_fsync::receive::ReceiveMode;
use bk_session::{DockerConfig, Extras, Repository, TokenClient};
use futures_util::{StreamExt as _, future::join_all, stream::FuturesUnordered};

use crate::{BuildProxies, Environment, platforms::normal, tokens};

/// Builders that make one image together, each for its platforms.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use bk_client::{BuildRequest, ConnectOptions, Environment, EventSink, NodeGroup, Output, connect_with};
///
/// let amd = connect_with(ConnectOptions::new().addr("tcp://amd.example:1234")).await?;
/// let arm = connect_with(ConnectOptions::new().addr("tcp://arm.example:1234")).await?;
/// let group = NodeGroup::new(&Environment::from_process())
///     .node(["linux/amd64"], amd)
///     .node(["linux/arm64"], arm);
/// let request = BuildRequest::new(".").tag("registry.example/app:1").output(Output::registry());
/// let built = group.build(request, |_node| EventSink::discard()).await?;
/// println!("{}", built.outcome.digest.unwrap_or_default());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct NodeGroup {
    nodes: Vec<Node>,
    client: TokenClient,
    credentials: Arc<dyn CredentialProvider>,
    proxies: BuildProxies,
}

#[derive(Clone)]
struct Node {
    platforms: Vec<String>,
    builder: Arc<dyn ImageBuilder>,
}

impl Node {
    /// What events and errors call it.
    fn name(&self) -> String {
        self.platforms.join(",")
    }

    fn told(&self) -> (String, BuilderInfo) {
        (self.name(), self.builder.info())
    }
}

/// What all nodes made together.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupOutcome {
    /// The image: the digest and descriptor of the index, and its names.
    pub outcome: BuildOutcome,
    /// What each node yielded, by its platforms, in the order in which the nodes were added.
    pub nodes: Vec<(String, BuildOutcome)>,
}

/// Why there is no image.
#[derive(Debug)]
#[non_exhaustive]
pub struct GroupError {
    /// The platforms of the node that failed, with commas; nothing when it was not one of them. The others were cancelled.
    pub node: Option<String>,
    /// Whether any node had begun to build.
    pub begun: bool,
    /// What went wrong.
    pub error: BuildError,
}

impl fmt::Display for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Some(node) => write!(f, "node {node}: {}", self.error),
            None => self.error.fmt(f),
        }
    }
}

impl std::error::Error for GroupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl<E: Into<BuildError>> From<E> for GroupError {
    fn from(error: E) -> Self {
        Self {
            node: None,
            begun: false,
            error: error.into(),
        }
    }
}

/// The name under which the events of the index come.
pub const INDEX: &str = "index";

impl NodeGroup {
    /// No nodes yet. Registries are reached with the proxies, certificates and credentials of that environment; a request's
    /// own credentials win.
    pub fn new(environment: &Environment) -> Self {
        Self {
            nodes: Vec::new(),
            client: tokens::client(environment),
            credentials: match &environment.docker_config {
                Some(path) => Arc::new(DockerConfig::new(path)),
                None => Arc::new(NoCredentials),
            },
            proxies: BuildProxies::default(),
        }
    }

    /// Sets proxies for steps, by the address of each node; the default is none.
    #[must_use]
    pub fn proxies(mut self, proxies: BuildProxies) -> Self {
        self.proxies = proxies;
        self
    }

    /// Adds a node for these platforms, each `os/arch[/variant]`.
    #[must_use]
    pub fn node(
        mut self,
        platforms: impl IntoIterator<Item = impl AsRef<str>>,
        builder: impl ImageBuilder + 'static,
    ) -> Self {
        self.nodes.push(Node {
            platforms: platforms.into_iter().map(|p| normal(p.as_ref())).collect(),
            builder: Arc::new(builder),
        });
        self
    }

    /// The nodes of a build, in the order in which they were added: what each builds, as events and errors call it, and who
    /// it is.
    ///
    /// # Errors
    /// Those that [`build`](Self::build) has before any node is asked.
    pub fn nodes_of(&self, request: &BuildRequest) -> Result<Vec<(String, BuilderInfo)>, InputError> {
        let plan = self.plan(request)?;
        Ok(plan.nodes.iter().map(Node::told).collect())
    }

    /// Builds each platform on its node, all at the same time, and puts the results together. `events` gives the sink of
    /// each node by its platforms, and that of [`INDEX`].
    ///
    /// The platforms are those of the request, else those of all nodes. Images are pushed: annotations of the index are put on
    /// the one that is made here; statements about an image (provenance, SBOM) go into it as the nodes made them. Files
    /// ([`Output::local`](crate::Output::local)) come as a directory for each platform, and [`Output::cache_only`](crate::Output::cache_only) leaves everything where it is.
    ///
    /// Dropping the future cancels every build. What was pushed by then stays in the registry, without a name.
    ///
    /// # Errors
    /// [`BuildError::Input`], before anything is sent, when the request's one output is none of these, when an image has no
    /// name, when no node or more than one builds a platform, or when a node is known not to do its part. The first node that
    /// fails cancels the others.
    pub async fn build(
        &self,
        request: BuildRequest,
        mut events: impl FnMut(&str) -> EventSink,
    ) -> Result<GroupOutcome, GroupError> {
        let plan = self.plan(&request)?;
        let request = match plan.nodes.len() {
            1 => request,
            // Each would get a part of what comes through a pipe.
            _ => Extras::keep_piped(request).await?,
        };
        plan.check(&request).await?;
        let mut running = FuturesUnordered::new();
        for (at, node) in plan.nodes.iter().enumerate() {
            let (sink, request) = (events(&node.name()), plan.request(&request, node));
            running.push(async move { (at, node.builder.build(request, sink).await) });
        }
        let mut outcomes: BTreeMap<usize, BuildOutcome> = BTreeMap::new();
        while let Some((at, result)) = running.next().await {
            match result {
                Ok(outcome) => drop(outcomes.insert(at, outcome)),
                // Dropping the others cancels them.
                Err(error) => {
                    return Err(GroupError {
                        node: plan.nodes.get(at).map(Node::name),
                        begun: true,
                        error,
                    });
                }
            }
        }
        drop(running);
        let nodes: Vec<(Node, BuildOutcome)> =
            plan.nodes.iter().cloned().zip(outcomes.into_values()).collect();
        let credentials = request.credentials.as_deref().unwrap_or(&*self.credentials);
        let mut outcome = match plan.names.is_empty() {
            true => BuildOutcome::default(),
            false => plan
                .put_together(&nodes, &self.client, credentials, &events(INDEX))
                .await
                .map_err(|error| GroupError {
                    begun: true,
                    ..error.into()
                })?,
        };
        add_up(&mut outcome, &nodes);
        let nodes = nodes
            .into_iter()
            .map(|(node, outcome)| (node.name(), outcome))
            .collect();
        Ok(GroupOutcome { outcome, nodes })
    }

    /// Which node builds what.
    fn plan(&self, request: &BuildRequest) -> Result<Plan, InputError> {
        let mut seen = BTreeSet::new();
        for platform in self.nodes.iter().flat_map(|node| &node.platforms) {
            if !seen.insert(platform) {
                let why = format!("more than one node is for {platform}");
                return Err(InputError::new("--node", why, "one node for each platform"));
            }
        }
        let wanted: BTreeSet<String> = request.platforms.iter().map(|p| normal(p)).collect();
        if let Some(missing) = wanted.iter().find(|platform| !seen.contains(platform)) {
            let why = format!("no node is for {missing}");
            return Err(InputError::new(
                "--node",
                why,
                "PLATFORM=ADDR for each platform of the build",
            ));
        }
        let mut nodes = self.nodes.clone();
        if !wanted.is_empty() {
            nodes
                .iter_mut()
                .for_each(|node| node.platforms.retain(|p| wanted.contains(p)));
        }
        nodes.retain(|node| !node.platforms.is_empty());
        if nodes.is_empty() {
            return Err(InputError::new("--node", "there is no node", "PLATFORM=ADDR"));
        }
        if let (Context::Archive(_), 2..) = (&request.context, nodes.len()) {
            let why = "an archive that is read as a stream can be sent to one node only";
            return Err(InputError::new("PATH", why, "a directory, or an address"));
        }
        if let ([_, _, ..], Some(cache)) = (&nodes[..], request.cache_to.iter().find(|c| c.kind == "local")) {
            let dir = cache.attrs.get("dest").or_else(|| cache.attrs.get("dir"));
            let why = format!(
                "several nodes would write their caches under one name in {}, where only the last is kept",
                dir.map_or("a directory", String::as_str)
            );
            let allowed = "type=inline with several nodes, or else a build of each platform with a directory of its own";
            return Err(InputError::new("--cache-to", why, allowed));
        }
        let names = names(request)?;
        let scopes = |scope: AnnotationScope| request.annotations.iter().filter(move |a| a.scope == scope);
        let annotations = scopes(AnnotationScope::Index).map(|a| (a.key.clone(), a.value.clone()));
        Ok(Plan {
            annotations: annotations.collect(),
            nodes,
            names,
            proxies: self.proxies.clone(),
        })
    }
}

/// The names of the image that is pushed; none when what comes out are files or nothing.
fn names(request: &BuildRequest) -> Result<Vec<String>, InputError> {
    let allowed = "builds with one output: --push or --output type=registry, a directory, or type=cacheonly";
    let output = match &request.outputs[..] {
        [output] if output.kind == OutputKind::CacheOnly => return Ok(Vec::new()),
        [output] => match &output.sink {
            Sink::Dir { options, .. } if output.kind == OutputKind::Local => {
                return match options.mode {
                    // Each would remove what the others wrote.
                    ReceiveMode::Delete => {
                        let why =
                            "several nodes write into one directory, so that `mode=delete` is not possible";
                        Err(InputError::new("--output", why, "mode=copy"))
                    }
                    _ => Ok(Vec::new()),
                };
            }
            _ if output.kind == OutputKind::Image && output.is_push() && !output.is_push_by_digest() => {
                output
            }
            _ => {
                let why = "what several nodes build is put together in a registry or in a directory";
                return Err(InputError::new("--output", why, allowed));
            }
        },
        _ => {
            let why = "what several nodes build is put together in a registry or in a directory";
            return Err(InputError::new("--output", why, allowed));
        }
    };
    let names: Vec<String> = match &request.tags[..] {
        [] => output
            .attrs
            .get("name")
            .map_or("", String::as_str)
            .split(',')
            .map(str::to_owned)
            .collect(),
        tags => tags.to_vec(),
    };
    let names: Vec<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        let why = "an image that is pushed needs a name";
        return Err(InputError::new("--tag", why, "repository[:tag]"));
    }
    if let Some(name) = names.iter().find(|name| name.contains('@')) {
        let why = format!("`{name}`: the digest is not known before the build");
        return Err(InputError::new("--tag", why, "repository[:tag]"));
    }
    Ok(names)
}

/// Adds what the nodes did to what came of all.
fn add_up(outcome: &mut BuildOutcome, nodes: &[(Node, BuildOutcome)]) {
    if let Some((_, first)) = nodes.first() {
        outcome.build_ref.clone_from(&first.build_ref);
    }
    for (_, node) in nodes {
        let (all, one) = (&mut outcome.inspected, node.inspected.clone());
        all.provenance.extend(one.provenance);
        all.images.extend(one.images);
        all.missing.extend(one.missing);
        outcome.exports.extend(node.exports.iter().cloned());
        outcome.transfer.add(&node.transfer);
        outcome.transfers.extend(node.transfers.iter().cloned());
    }
}

impl fmt::Debug for NodeGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.nodes.iter().map(Node::told)).finish()
    }
}

/// What was decided before anything is sent.
struct Plan {
    nodes: Vec<Node>,
    /// Of the image; none when no image comes out.
    names: Vec<String>,
    proxies: BuildProxies,
    /// Of the index.
    annotations: BTreeMap<String, String>,
}

impl Plan {
    /// Asks each node whether it can do its part; the first in order that cannot is told.
    async fn check(&self, request: &BuildRequest) -> Result<(), GroupError> {
        let checks = self.nodes.iter().map(|node| async {
            let checked = node.builder.check(&self.request(request, node)).await;
            checked.map_err(|error| GroupError {
                node: Some(node.name()),
                begun: false,
                error,
            })
        });
        join_all(checks).await.into_iter().collect()
    }

    /// What one node is asked for.
    fn request(&self, request: &BuildRequest, node: &Node) -> BuildRequest {
        let mut request = request.clone();
        self.proxies.apply(&node.builder.info().address, &mut request);
        request.platforms.clone_from(&node.platforms);
        // An index or a directory for each platform, also where there is one only.
        request
            .frontend_attrs
            .entry("multi-platform".to_owned())
            .or_insert_with(|| "true".to_owned());
        if self.names.is_empty() {
            return request;
        }
        request
            .annotations
            .retain(|annotation| annotation.scope != AnnotationScope::Index);
        // A name with a tag is not pushed by digest.
        request.tags.clear();
        let repositories: BTreeSet<&str> = self.names.iter().map(|name| repository(name)).collect();
        for output in &mut request.outputs {
            *output = output
                .clone()
                .names(&repositories)
                .push(true)
                .push_by_digest(true);
            // It is of no use in the node's own store.
            output
                .attrs
                .entry("store".to_owned())
                .or_insert_with(|| "false".to_owned());
        }
        request
    }

    /// Writes the index under each name.
    async fn put_together(
        &self,
        nodes: &[(Node, BuildOutcome)],
        client: &TokenClient,
        credentials: &dyn CredentialProvider,
        events: &EventSink,
    ) -> Result<BuildOutcome, BuildError> {
        let title = format!("putting {} together", self.names.join(", "));
        let mut vertex = Vertex::new(format!("index:{}", self.names.join(",")), title);
        vertex.started = Some(SystemTime::now());
        events.emit(BuildEvent::VertexStarted(vertex.clone())).await;
        let result = self.write(nodes, client, credentials).await;
        vertex.completed = Some(SystemTime::now());
        match &result {
            Ok(_) => events.emit(BuildEvent::VertexCompleted(vertex)).await,
            Err(e) => {
                vertex.error = Some(e.to_string());
                events.emit(BuildEvent::VertexFailed(vertex)).await;
            }
        }
        result
    }

    async fn write(
        &self,
        nodes: &[(Node, BuildOutcome)],
        client: &TokenClient,
        credentials: &dyn CredentialProvider,
    ) -> Result<BuildOutcome, BuildError> {
        let repositories: Vec<(Repository<'_>, &str)> = self
            .names
            .iter()
            .map(|name| (Repository::of(name, client, credentials), tag(name)))
            .collect();
        let mut index = index::Index::new(self.annotations.clone());
        if let Some((repository, _)) = repositories.first() {
            for (node, outcome) in nodes {
                let digest = outcome.digest.as_deref().ok_or_else(|| {
                    let text = format!("node {} did not say what it pushed", node.name());
                    BuildError::from(bk_build::ProtocolFailure::new(text))
                })?;
                let manifest = repository.get(digest).await?;
                index.add(&manifest, node.platforms.first().map_or("", String::as_str))?;
            }
        }
        let manifest = index.manifest()?;
        let mut written = Vec::new();
        for ((repository, tag), name) in repositories.iter().zip(&self.names) {
            if let Err(e) = repository.put(tag, &manifest).await {
                return Err(partly(e, &written));
            }
            written.push(name.as_str());
        }
        Ok(index::outcome(&manifest, &self.names))
    }
}

/// Says which names lead to the image already.
fn partly(mut error: BuildError, written: &[&str]) -> BuildError {
    if !written.is_empty() {
        let told = format!(" (written already: {})", written.join(", "));
        match &mut error {
            BuildError::Refused(refusal) => refusal.message.push_str(&told),
            BuildError::Auth { message, .. } => message.push_str(&told),
            BuildError::Timeout { what, .. } => what.push_str(&told),
            _ => {}
        }
    }
    error
}

/// The tag of a name.
fn tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => tag,
        _ => "latest",
    }
}

/// A name without its tag.
fn repository(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

#[cfg(test)]
mod tests;
