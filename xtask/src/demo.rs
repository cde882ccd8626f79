//! `cargo xtask demo`: builds an image with `bk`, runs it and shows what it prints.
//!
//! With a Docker daemon at hand it uses that one and leaves nothing there; else it starts a private one from Debian's
//! packages and removes it again. The example's directory is copied first: a demo changes no file of the tree.

use crate::daemons::{self, api};
use crate::guard::Guard;
use crate::run::{Result, cargo, check, workspace};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

const IMAGE: &str = "bk-hello";
const DEFAULT_SOCKET: &str = "unix:///var/run/docker.sock";

/// The job itself.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    if !arguments.is_empty() {
        return Err("usage: cargo xtask demo".into());
    }
    println!("compiling bk");
    check(cargo().args(["build", "--package", "bk-cli"]))?;
    if let Some(address) = reachable() {
        println!("using the Docker daemon at {address}");
        return build_and_run(&address);
    }
    println!(
        "no Docker daemon is reachable: starting a private one from Debian's docker.io, unpacked, not installed"
    );
    let guard = Guard::new(&[DOWN.to_owned()])?;
    let outcome = daemons::demo_up().and_then(|address| build_and_run(&address));
    let cleaned = guard.close();
    outcome?;
    cleaned?;
    println!("the private daemon is stopped and removed");
    Ok(())
}

/// The hidden job that removes the private daemon.
pub(crate) const DOWN: &str = "__demo-down";

/// The address of a daemon that answers: the one of `DOCKER_HOST`, or the system's.
fn reachable() -> Option<String> {
    let named = std::env::var("DOCKER_HOST")
        .ok()
        .filter(|address| !address.is_empty());
    let address = named.unwrap_or_else(|| DEFAULT_SOCKET.to_owned());
    api::get(&address, "/_ping").is_ok().then_some(address)
}

fn build_and_run(address: &str) -> Result<()> {
    let context = stage()?;
    println!("bk build -t {IMAGE} examples/hello");
    let mut bk = cargo();
    bk.args(["run", "--quiet", "--package", "bk-cli", "--", "--addr", address]);
    check(bk.args(["build", "-t", IMAGE]).arg(&context))?;
    println!("running {IMAGE}:");
    let output = run(address)?;
    println!();
    for line in output.lines() {
        println!("    {}", line.trim_end());
    }
    println!();
    Ok(())
}

/// Copies the example and a static busybox to a directory of its own.
fn stage() -> Result<PathBuf> {
    let context = workspace().join("target/demo/context");
    if context.exists() {
        fs::remove_dir_all(&context)?;
    }
    fs::create_dir_all(&context)?;
    for entry in fs::read_dir(workspace().join("examples/hello"))? {
        let entry = entry?;
        fs::copy(entry.path(), context.join(entry.file_name()))?;
    }
    fs::copy(daemons::demo_busybox()?, context.join("busybox"))?;
    Ok(context)
}

/// Runs the image and returns what it printed; removes the container and the image.
fn run(address: &str) -> Result<String> {
    let output = output_of_image(address, IMAGE);
    let untagged = api::delete(address, &format!("/images/{IMAGE}"));
    let output = output?;
    untagged?;
    Ok(output)
}

/// Runs `image` on the engine at `address` and returns what it printed; removes the container.
pub(crate) fn output_of_image(address: &str, image: &str) -> Result<String> {
    // With a terminal the log is plain text, not frames of two streams.
    let body = json!({"Image": image, "Tty": true});
    let created: Value = serde_json::from_str(&api::post(address, "/containers/create", &body)?)?;
    let id = created["Id"].as_str().ok_or("the daemon named no container")?;
    let output = output_of(address, id);
    let removed = api::delete(address, &format!("/containers/{id}?force=1"));
    let output = output?;
    removed?;
    Ok(output)
}

fn output_of(address: &str, id: &str) -> Result<String> {
    api::post(address, &format!("/containers/{id}/start"), &Value::Null)?;
    let ended: Value = serde_json::from_str(&api::post(
        address,
        &format!("/containers/{id}/wait"),
        &Value::Null,
    )?)?;
    let output = api::get(address, &format!("/containers/{id}/logs?stdout=1&stderr=1"))?;
    match ended["StatusCode"].as_i64() {
        Some(0) => Ok(output),
        other => Err(format!("the container exited with {other:?} and printed:\n{output}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_names_only_files_that_are_staged() {
        let dir = workspace().join("examples/hello");
        let text = fs::read_to_string(dir.join("Dockerfile")).unwrap();
        let sources: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("COPY "))
            .filter_map(|rest| rest.split_whitespace().next())
            .collect();
        assert!(!sources.is_empty());
        for source in sources {
            assert!(source == "busybox" || dir.join(source).is_file(), "{source}");
        }
    }
}
