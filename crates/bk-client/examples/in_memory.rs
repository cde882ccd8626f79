//! An image from files that were never on a disk: a Dockerfile and a program's own data, built without a temporary
//! directory. The name of the image is the first argument.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example talks to a terminal"
)]

use std::{error::Error, sync::Arc};

use bk_client::{BuildRequest, Context, Dockerfile, EventSink, ImageBuilder, MemoryTree};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "in-memory:1".to_owned());
    let mut files = MemoryTree::new();
    files
        .add_file("config/settings.json", 0o640, r#"{"debug": false}"#)?
        .add_symlink("config/current", "settings.json")?;
    let request = BuildRequest::new(Context::Tree(Arc::new(files)))
        .dockerfile(Dockerfile::Inline("FROM scratch\nCOPY config /etc/app/\n".into()))
        .tag(name);
    let client = bk_client::connect().await?;
    let outcome = client
        .build(request, EventSink::from_fn(|event| eprintln!("{event:?}")))
        .await?;
    println!("built {}", outcome.image_id.unwrap_or_default());
    Ok(())
}
