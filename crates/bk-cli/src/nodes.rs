//! `--node`: one image, each platform on a daemon of its own, under one display.

use bk_client::{
    BuildError, BuildOutcome, BuildProxies, BuildRequest, Environment, ImageBuilder as _, InputError,
    NodeGroup,
};

use crate::{
    args::Global, bake::display::display, build, connect::connect_to, display::Display, files::Metadata,
    interrupt::Interrupt, limits, report,
};

/// A daemon and what it builds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Node {
    address: String,
    platforms: Vec<String>,
}

/// Reads the values of `--node`; those with the same address are one.
///
/// # Errors
/// One that is not `PLATFORM=ADDR`.
pub(crate) fn parse(values: &[String]) -> Result<Vec<Node>, InputError> {
    let mut nodes: Vec<Node> = Vec::new();
    for value in values {
        let bad = || InputError::new("--node", format!("`{value}`"), "OS/ARCH[/VARIANT]=ADDR");
        let (platform, address) = value.split_once('=').ok_or_else(bad)?;
        if address.is_empty() || !(1..=2).contains(&platform.matches('/').count()) || platform.contains("//")
        {
            return Err(bad());
        }
        let platform = platform.to_owned();
        match nodes.iter_mut().find(|node| node.address == address) {
            Some(node) => node.platforms.push(platform),
            None => nodes.push(Node {
                address: address.to_owned(),
                platforms: vec![platform],
            }),
        }
    }
    Ok(nodes)
}

/// Connects to each node, builds on all of them, and puts the results together.
pub(crate) async fn build(
    global: &Global,
    nodes: &[Node],
    mut request: BuildRequest,
    proxies: BuildProxies,
    view: &Display,
    metadata: &mut Metadata,
    mut interrupt: Interrupt,
) -> Result<BuildOutcome, BuildError> {
    let mut group = NodeGroup::new(&Environment::from_process());
    for node in nodes {
        let client = tokio::select! {
            biased;
            client = connect_to(global, Some(&node.address)) => client?,
            () = interrupt.asked() => return Err(BuildError::Cancelled),
        };
        proxies.apply(&client.info().address, &mut request);
        metadata.built_by(&client.info());
        group = group.node(&node.platforms, client);
    }
    let (stage, shown) = display(nodes.len() + 1, view.mode());
    let renderer = metadata.watch(view.renderer());
    let drawing = tokio::task::spawn_blocking(move || shown.draw(renderer));
    let work = Box::pin(async move {
        let built = group.build(request, |name| stage.sink(name)).await;
        drop(stage);
        built
    });
    let work = async {
        match work.await {
            Ok(built) => Ok(built.outcome),
            Err(failed) => Err((failed.node, failed.error)),
        }
    };
    let mut who = None;
    let work = async {
        work.await.map_err(|(node, error)| {
            who = node;
            error
        })
    };
    let result = build::shown(work, drawing, interrupt, limits::CANCEL_GRACE).await;
    if let Some(node) = who {
        report::to_stderr(&format!(
            "the node for {node} failed; the others were stopped, and no name was written\n"
        ));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_of_one_daemon_are_one_node() {
        let values = [
            "linux/amd64=tcp://a:1",
            "linux/arm64=tcp://b:1",
            "linux/386=tcp://a:1",
        ]
        .map(str::to_owned);
        let nodes = parse(&values).expect("sound");
        let shown: Vec<_> = nodes
            .iter()
            .map(|n| format!("{} {}", n.address, n.platforms.join(",")))
            .collect();
        assert_eq!(
            shown,
            ["tcp://a:1 linux/amd64,linux/386", "tcp://b:1 linux/arm64"]
        );
        for bad in [
            "",
            "linux/amd64",
            "tcp://a:1",
            "linux=tcp://a:1",
            "linux/amd64=",
            "a/b/c/d=x",
        ] {
            let error = parse(&[bad.to_owned()]).expect_err(bad);
            assert_eq!(
                (&*error.what, &*error.allowed),
                ("--node", "OS/ARCH[/VARIANT]=ADDR"),
                "{bad}"
            );
        }
    }
}
