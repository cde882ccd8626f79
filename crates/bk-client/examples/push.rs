//! Builds the current directory and pushes the image to its registry, with the credentials of `docker login`. The name of
//! the image, with its registry, is the argument.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example talks to a terminal"
)]

use std::error::Error;

use bk_client::{BuildEvent, BuildRequest, EventSink, ImageBuilder, Output};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1).ok_or("usage: push REGISTRY/NAME:TAG")?;
    let request = BuildRequest::new(".")
        .tag(name)
        .output(Output::image().push(true));
    // Who answered for which registry is told; passwords never are.
    let events = EventSink::from_fn(|event| {
        if let BuildEvent::Credentials(used) = event {
            eprintln!("{used:?}");
        }
    });
    let client = bk_client::connect().await?;
    let outcome = client.build(request, events).await?;
    println!("pushed {}", outcome.digest.unwrap_or_default());
    Ok(())
}
