//! The current directory for two platforms, as one OCI archive with an index of both: `app.tar`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example talks to a terminal"
)]

use bk_client::{BuildError, BuildRequest, EventSink, ImageBuilder, Output};

#[tokio::main]
async fn main() -> Result<(), BuildError> {
    let request = BuildRequest::new(".")
        .platform("linux/amd64")
        .platform("linux/arm64")
        .tag("app:1.0")
        .output(Output::oci("app.tar"));
    let client = bk_client::connect().await?;
    let outcome = client
        .build(request, EventSink::from_fn(|event| eprintln!("{event:?}")))
        .await?;
    for export in &outcome.exports {
        println!("{} bytes in {:?}", export.bytes, export.path);
    }
    println!("index {}", outcome.digest.unwrap_or_default());
    Ok(())
}
