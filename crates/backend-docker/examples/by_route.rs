//! Builds a directory on an engine and prints what happened: `by_route ENDPOINT ROUTE CONTEXT [TAG]`.

use std::sync::Arc;

use backend_docker::DockerBackend;
use bk_build::{BuildRequest, EventSink, ImageBuilder, NoCredentials};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: by_route ENDPOINT ROUTE CONTEXT [TAG]";
    let endpoint = args.next().ok_or(usage)?;
    let route = args.next().ok_or(usage)?.parse()?;
    let mut request = BuildRequest::new(args.next().ok_or(usage)?);
    request.tags.extend(args.next());

    let backend = DockerBackend::connect(&endpoint, route, Arc::new(NoCredentials)).await?;
    let (sink, mut events) = EventSink::default_channel();
    let build = backend.build(request, sink);
    let print = async {
        while let Some(event) = events.recv().await {
            let mut text = format!("{event:?}");
            text.truncate(text.char_indices().nth(300).map_or(text.len(), |(at, _)| at));
            writeln(&text);
        }
    };
    let (outcome, ()) = tokio::join!(build, print);
    writeln(&format!("{}\n{outcome:#?}", backend.info()));
    outcome.map(drop).map_err(Into::into)
}

#[expect(clippy::print_stdout, reason = "an example that shows what it got")]
fn writeln(text: &str) {
    println!("{text}");
}
