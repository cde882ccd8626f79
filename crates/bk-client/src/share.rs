//! Which node of a builder builds which platform.
//!
//! The rule: what the builder's file says of a node holds; only what no file says is asked of the daemons.

use bk_build::{BuildError, ConnectError};
use futures_util::future::join_all;

use crate::{
    Client, ConnectOptions, NodeGroup,
    connect::{Ready, connect_ready, connect_with},
    platforms::{nearest, normal},
};

/// What a build for some platforms goes to. There is nothing else.
#[derive(Clone, Debug)]
pub enum Connected {
    /// One daemon for all of them.
    One(Client),
    /// Nodes of a builder, each for its platforms.
    Several(NodeGroup),
}

/// Connects as [`connect_with`] does, for a build of these platforms. They choose among the nodes of a builder that has
/// several: a node that the builder's file names for a platform builds it, else the one whose daemon says that it can,
/// else the first. Without platforms the first node that answers builds everything.
///
/// # Errors
/// As [`connect_with`]. A node that the file names for a platform must answer; another one is passed over.
pub async fn connect_for(options: ConnectOptions, platforms: &[String]) -> Result<Connected, BuildError> {
    let mut wanted: Vec<String> = Vec::new();
    for platform in platforms.iter().map(|platform| normal(platform)) {
        if !wanted.contains(&platform) {
            wanted.push(platform);
        }
    }
    if !wanted.is_empty() && !options.is_private() {
        let options = options.complete()?;
        let ready = Ready::of(&options).await?;
        if ready.places.len() > 1 && ready.places.iter().all(|place| place.node.is_some()) {
            return Box::pin(share(&ready, &options, &wanted)).await;
        }
        return connect_ready(options, ready).await.map(Connected::One);
    }
    connect_with(options).await.map(Connected::One)
}

/// Connects to the nodes that build these platforms, each at least for one.
async fn share(ready: &Ready, options: &ConnectOptions, wanted: &[String]) -> Result<Connected, BuildError> {
    let said: Vec<Vec<String>> = ready
        .places
        .iter()
        .map(|place| place.node.clone().unwrap_or_default())
        .collect();
    let named: Vec<Option<usize>> = wanted
        .iter()
        .map(|platform| said.iter().position(|own| own.contains(platform)))
        .collect();
    // What no file says is known by the daemons only.
    let all = named.contains(&None);
    let asking = ready.places.iter().enumerate().map(|(at, place)| {
        let meant = all || named.contains(&Some(at));
        async move {
            match meant {
                true => Some(ready.try_one(place, options).await),
                false => None,
            }
        }
    });
    let mut clients: Vec<Option<Client>> = Vec::new();
    let mut attempts = Vec::new();
    for (at, tried) in join_all(asking).await.into_iter().enumerate() {
        clients.push(match tried.transpose()? {
            None => None,
            Some(Ok(client)) => Some(client),
            Some(Err(failed)) if named.contains(&Some(at)) => {
                return Err(ConnectError::several(failed).into());
            }
            Some(Err(failed)) => {
                ready.passed_over(&failed, options);
                attempts.extend(failed);
                None
            }
        });
    }
    let able: Vec<Vec<String>> = match all {
        true => join_all(clients.iter().map(reported)).await,
        false => Vec::new(),
    };
    let mut shares: Vec<(usize, Vec<String>)> = Vec::new();
    for (platform, named) in wanted.iter().zip(named) {
        let at = named
            .or_else(|| nearest(platform, able.iter().map(Vec::as_slice)))
            .or_else(|| clients.iter().position(Option::is_some));
        let Some(at) = at else {
            return Err(ConnectError::several(attempts).into());
        };
        match shares.iter_mut().find(|(node, _)| *node == at) {
            Some((_, platforms)) => platforms.push(platform.clone()),
            None => shares.push((at, vec![platform.clone()])),
        }
    }
    let mut share = |at: usize| clients.get_mut(at).and_then(Option::take);
    if let [(at, _)] = &shares[..]
        && let Some(client) = share(*at)
    {
        return Ok(Connected::One(client));
    }
    let group = NodeGroup::new(options.the_environment());
    let group = shares
        .into_iter()
        .fold(group, |group, (at, platforms)| match share(at) {
            Some(client) => group.node(platforms, client),
            None => group,
        });
    Ok(Connected::Several(group))
}

/// The platforms that a daemon says it builds for; none when it does not say.
async fn reported(client: &Option<Client>) -> Vec<String> {
    let Some(admin) = client.as_ref().and_then(|client| client.admin().ok()) else {
        return Vec::new();
    };
    match admin.workers(&[]).await {
        Ok(workers) => workers
            .iter()
            .flat_map(|worker| &worker.platforms)
            .map(|platform| normal(platform))
            .collect(),
        Err(error) => {
            tracing::debug!(%error, "a node does not say its platforms");
            Vec::new()
        }
    }
}
