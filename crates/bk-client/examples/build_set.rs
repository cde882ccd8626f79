//! Two stages of the Dockerfile in the current directory, built at the same time over one walk of it.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example talks to a terminal"
)]

use bk_client::{BuildError, BuildRequest, BuildSet, EventSink, SetEnd};

#[tokio::main]
async fn main() -> Result<(), BuildError> {
    let client = bk_client::connect().await?;
    let mut set = BuildSet::new().limit(2).keep_going(true);
    for stage in ["web", "worker"] {
        set = set.target(
            stage,
            BuildRequest::new(".").target(stage).tag(format!("app-{stage}")),
        );
    }
    let sink = |name: &str| {
        let name = name.to_owned();
        EventSink::from_fn(move |event| eprintln!("{name}: {event:?}"))
    };
    for result in set.run(&client, sink).await? {
        match result.end {
            SetEnd::Built(outcome) => {
                println!("{}: built {}", result.name, outcome.image_id.unwrap_or_default());
            }
            SetEnd::Failed(error) => println!("{}: {error}", result.name),
            _ => println!("{}: not built", result.name),
        }
    }
    Ok(())
}
