//! `--node`, and builders with several nodes: each platform on a daemon of its own, under one display.

use bk_client::{BuildError, BuildOutcome, BuildRequest, Environment, InputError, NodeGroup};
use bk_progress::{Mode, neutralise_line};

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

/// Connects to each node.
pub(crate) async fn connect(global: &Global, nodes: &[Node]) -> Result<NodeGroup, BuildError> {
    let group = NodeGroup::new(&Environment::from_process());
    let asking = nodes.iter().map(|node| connect_to(global, Some(&node.address)));
    // All at once, so that their deadlines run side by side.
    let clients = futures_util::future::try_join_all(asking).await?;
    let each = nodes.iter().zip(clients);
    Ok(each.fold(group, |group, (node, client)| group.node(&node.platforms, client)))
}

/// Builds on all nodes, and puts the results together.
pub(crate) async fn build(
    group: NodeGroup,
    request: BuildRequest,
    view: &Display,
    metadata: &mut Metadata,
    interrupt: Interrupt,
) -> Result<BuildOutcome, BuildError> {
    let mut count = 0;
    for (platforms, node) in group.nodes_of(&request)? {
        if count == 0 {
            // The reference of the build is that of the first as well.
            metadata.built_by(&node);
        }
        count += 1;
        if view.shows_output() && view.mode() != Mode::Quiet {
            let text = format!("building {platforms} with {node}");
            report::to_stderr(&format!("{}\n", neutralise_line(&text)));
        }
    }
    let (stage, shown) = display(count + 1, view.mode());
    let renderer = metadata.watch(view.renderer());
    let drawing = tokio::task::spawn_blocking(move || shown.draw(renderer));
    let mut who = None;
    let work = Box::pin(async {
        let built = group.build(request, |name| stage.sink(name)).await;
        drop(stage);
        built.map(|built| built.outcome).map_err(|failed| {
            who = failed.node.map(|node| (node, failed.begun));
            failed.error
        })
    });
    let result = build::shown(work, drawing, interrupt, limits::CANCEL_GRACE).await;
    match who {
        Some((node, true)) => report::to_stderr(&format!(
            "the node for {node} failed; the others were stopped, and no name was written\n"
        )),
        Some((node, false)) => report::to_stderr(&format!(
            "the node for {node} cannot do its part; nothing was built\n"
        )),
        None => {}
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
