//! The password-protected registry on loopback, and the base image in it.

use super::docker::{ENGINES, Engine, busybox, busybox_path, tool};
use super::layout::Layout;
use super::packages::{BOOKWORM, FORKY};
use super::process;
use crate::run::{Result, output};
use serde_json::json;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The registry's name on the command line.
pub(crate) const NAME: &str = "registry";
/// The only account.
const USER: &str = "bk";
/// Its password. It guards nothing: the registry listens on loopback and holds one busybox.
const PASSWORD: &str = "bk-live-pass";
/// The account in htpasswd form (the registry accepts bcrypt only), and as HTTP basic credentials.
const HTPASSWD: &str = "bk:$2b$05$bkTestRegistryUserSal.zenvnuT.s9bD1xMkqrZT9NTEqpLgG7.\n";
const BASIC: &str = "Yms6YmstbGl2ZS1wYXNz";
/// It listens within a fraction of a second.
const READY_DEADLINE: Duration = Duration::from_secs(30);

/// The engine that imports and pushes the base image: the newest with graph drivers; any other would do.
pub(crate) const PUSHER: &Engine = &ENGINES[2];

/// `host:port` of the running registry.
pub(crate) fn address(layout: &Layout) -> Option<String> {
    Some(format!("127.0.0.1:{}", layout.recorded_port(NAME)?))
}

/// The registry's program.
pub(crate) fn program(layout: &Layout) -> PathBuf {
    layout.packages(BOOKWORM).join("usr/bin/docker-registry")
}

/// The variables that tell live tests of the registry at `address`.
pub(crate) fn variables(address: String) -> Vec<(String, String)> {
    let base = base_image(&address);
    let list = [
        ("", address),
        ("_USER", USER.into()),
        ("_PASSWORD", PASSWORD.into()),
        ("_BASE", base),
    ];
    list.map(|(suffix, value)| (format!("BK_LIVE_REGISTRY{suffix}"), value))
        .into()
}

/// The reference of the base image at `address`.
fn base_image(address: &str) -> String {
    format!("{address}/base/busybox:1")
}

/// Starts the registry with empty storage and waits until it listens.
pub(crate) fn start(layout: &Layout) -> Result<()> {
    remove(layout)?;
    let data = layout.data(NAME);
    fs::create_dir_all(data.join("storage"))?;
    let port = layout.port(NAME)?;
    fs::write(data.join("htpasswd"), HTPASSWD)?;
    let configuration = json!({
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": data.join("storage")}, "delete": {"enabled": true}},
        "http": {"addr": format!("127.0.0.1:{port}")},
        "auth": {"htpasswd": {"realm": "bk", "path": data.join("htpasswd")}},
    });
    // JSON is YAML.
    let file = data.join("config.yml");
    fs::write(&file, configuration.to_string())?;
    let mut command = tool(layout, BOOKWORM, "usr/bin/docker-registry");
    command.arg("serve").arg(&file);
    process::start(layout, NAME, &command)?;
    process::wait_ready(layout, NAME, READY_DEADLINE, || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    })
}

/// Stops the registry and removes its images.
pub(crate) fn remove(layout: &Layout) -> Result<()> {
    process::stop(layout, NAME)?;
    super::remove_dir(&layout.data(NAME))
}

/// Pushes the base image with the help of [`PUSHER`], unless it is there, and leaves nothing in that engine.
pub(crate) fn push_base(layout: &Layout) -> Result<()> {
    let data = layout.data(NAME);
    let stamp = data.join("pushed");
    if stamp.exists() {
        return Ok(());
    }
    let address = address(layout).ok_or("the registry has no port")?;
    let image = base_image(&address);
    let login = data.join("login");
    fs::create_dir_all(&login)?;
    fs::write(
        login.join("config.json"),
        json!({"auths": {address: {"auth": BASIC}}}).to_string(),
    )?;
    let rootfs = data.join("rootfs");
    make_rootfs(layout, &rootfs)?;
    let docker = || {
        let mut command = tool(layout, FORKY, "usr/bin/docker");
        command.env("DOCKER_CONFIG", &login);
        command.env("DOCKER_HOST", PUSHER.address(layout));
        command
    };
    let mut tar = Command::new("tar")
        .args([
            "--create",
            "--numeric-owner",
            "--owner=0",
            "--group=0",
            "--sort=name",
            "--mtime=@0",
        ])
        .arg("--directory")
        .arg(&rootfs)
        .arg(".")
        .stdout(Stdio::piped())
        .spawn()?;
    let archive = tar.stdout.take().ok_or("tar has no output")?;
    let imported = docker()
        .args(["import", "--change", "CMD [\"/bin/sh\"]"])
        .args([
            "--change",
            "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ])
        .args(["-", &image])
        .stdin(archive)
        .output()?;
    if !tar.wait()?.success() || !imported.status.success() {
        let said = String::from_utf8_lossy(&imported.stderr);
        return Err(format!("the base image cannot be imported: {}", said.trim()).into());
    }
    output(docker().args(["push", "--quiet", &image]))?;
    output(docker().args(["image", "rm", "--force", &image]))?;
    fs::remove_dir_all(&rootfs)?;
    fs::write(stamp, "")?;
    Ok(())
}

/// A root file system with one program under all its names.
fn make_rootfs(layout: &Layout, root: &Path) -> Result<()> {
    super::remove_dir(root)?;
    for dir in ["bin", "dev", "etc", "proc", "root", "sys", "usr/bin", "var"] {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::create_dir(root.join("tmp"))?;
    output(Command::new("chmod").arg("1777").arg(root.join("tmp")))?;
    fs::copy(busybox_path(layout), root.join("bin/busybox"))?;
    for applet in output(busybox(layout).arg("--list"))?
        .lines()
        .filter(|name| *name != "busybox")
    {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    Ok(())
}
