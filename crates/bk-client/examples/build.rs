//! The build of the README: connects to the daemon that is there and builds the current directory.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example talks to a terminal"
)]

use bk_client::{BuildError, BuildRequest, EventSink, ImageBuilder};

#[tokio::main]
async fn main() -> Result<(), BuildError> {
    let client = bk_client::connect().await?;
    let request = BuildRequest::new(".").tag("app:1.0").build_arg("VERSION", "1.0");
    let events = EventSink::from_fn(|event| eprintln!("{event:?}"));
    let outcome = client.build(request, events).await?;
    println!("built {}", outcome.image_id.unwrap_or_default());
    Ok(())
}
