//! Keys, a real agent that holds one, and a real server that accepts one.
//!
//! The programs are OpenSSH's. Agent and server end with their values.

use std::{
    fs, io,
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Each of the programs is ready within a fraction of a second.
const READY: Duration = Duration::from_secs(30);

fn ok(command: &mut Command) -> io::Result<String> {
    let out = command.output()?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        return Err(io::Error::other(format!("{command:?}: {said}")));
    }
    String::from_utf8(out.stdout).map_err(io::Error::other)
}

/// Waits until `test` holds; fails when the program ends before or takes too long.
fn ready(child: &mut Child, what: &str, test: impl Fn() -> bool) -> io::Result<()> {
    let begun = Instant::now();
    while !test() {
        if child.try_wait()?.is_some() || begun.elapsed() > READY {
            return Err(io::Error::other(format!("{what} is not ready")));
        }
        thread::sleep(Duration::from_millis(10)); // sleep: a program that tells nobody when it is ready
    }
    Ok(())
}

fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// Makes a key without a passphrase in `path`, its public half beside it with the ending `pub`. Returns the public half in
/// base64.
///
/// # Errors
/// When `ssh-keygen` (Debian: openssh-client) is missing or fails.
pub fn make_key(path: &Path) -> io::Result<String> {
    ok(Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "bk", "-f"])
        .arg(path))?;
    let public = fs::read_to_string(path.with_extension("pub"))?;
    let bytes = public.split(' ').nth(1);
    bytes
        .map(str::to_owned)
        .ok_or_else(|| io::Error::other("ssh-keygen wrote no key"))
}

/// A running agent.
#[derive(Debug)]
pub struct SshAgent {
    socket: PathBuf,
    child: Child,
}

impl SshAgent {
    /// Starts one with its socket in `dir`, and gives it `key`.
    ///
    /// # Errors
    /// When `ssh-agent` or `ssh-add` is missing or fails.
    pub fn start(dir: &Path, key: &Path) -> io::Result<Self> {
        let socket = dir.join("agent.sock");
        let child = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn()?;
        let mut this = Self { socket, child };
        let socket = this.socket.clone();
        ready(&mut this.child, "ssh-agent", || socket.exists())?;
        let mut add = Command::new("ssh-add");
        ok(add.arg("-q").arg(key).env("SSH_AUTH_SOCK", &this.socket))?;
        Ok(this)
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The public halves that it holds, one a line.
    ///
    /// # Errors
    /// When `ssh-add` fails, for instance because it holds none.
    pub fn keys(&self) -> io::Result<String> {
        ok(Command::new("ssh-add")
            .arg("-L")
            .env("SSH_AUTH_SOCK", &self.socket))
    }
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A running server with the one user `git`, who may do what this process may.
///
/// It sees accounts of its own and a `/run` with a directory for it, and listens on the usual port of a loopback address of its own, since the short
/// form of SSH addresses has no place for a port. It needs to be started by root.
#[derive(Debug)]
pub struct Sshd {
    address: Ipv4Addr,
    log: PathBuf,
    child: Child,
}

impl Sshd {
    /// Starts `program`, which is `sshd`, with its files in `dir`. Whoever has the other half of `public` may log in.
    ///
    /// # Errors
    /// When it cannot be started or does not listen.
    pub fn start(program: &Path, dir: &Path, public: &Path) -> io::Result<Self> {
        let path = std::env::var("PATH").map_err(io::Error::other)?;
        Self::start_with(program, dir, public, &path)
    }

    /// The same, with the directories in which programs are looked for on the other side.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(program: &Path, dir: &Path, public: &Path, path: &str) -> io::Result<Self> {
        let address = own_address();
        let dir = dir.join("sshd");
        fs::create_dir(&dir)?;
        let host_key = dir.join("host");
        make_key(&host_key)?;
        let (passwd, group) = (dir.join("passwd"), dir.join("group"));
        fs::write(
            &passwd,
            format!(
                "root:x:0:0::{0}:/bin/sh\ngit:x:0:0::{0}:/bin/sh\nsshd:x:65533:65533::/run/sshd:/usr/sbin/nologin\n",
                dir.display()
            ),
        )?;
        fs::write(&group, "root:x:0:\nsshd:x:65533:\n")?;
        let config = dir.join("config");
        fs::write(
            &config,
            format!(
                "ListenAddress {address}:22\nHostKey {}\nAuthorizedKeysFile {}\nPasswordAuthentication no\n\
                 PermitRootLogin yes\nStrictModes no\nUsePAM no\nUseDNS no\nPidFile none\nLogLevel INFO\n\
                 SetEnv PATH={path}\n",
                host_key.display(),
                public.display()
            ),
        )?;
        let log = dir.join("log");
        let child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "/bin/sh", "-ec"])
            .arg(
                "mount --bind \"$1\" /etc/passwd; mount --bind \"$2\" /etc/group; mkdir \"$5\"; \
                 mount --rbind /run \"$5\"; mount -t tmpfs none /run; mkdir /run/sshd; cd \"$5\"; \
                 for d in */; do [ -e \"/run/$d\" ] || { mkdir \"/run/$d\"; mount --rbind \"$d\" \"/run/$d\"; }; done; exec \"$3\" -D -e -f \"$4\"",
            )
            .arg("sshd")
            .args([&passwd, &group])
            .arg(program)
            .arg(&config)
            .arg(dir.join("run"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .spawn()?;
        let mut this = Self { address, log, child };
        let listening = || TcpStream::connect((address, 22)).is_ok();
        if let Err(e) = ready(&mut this.child, "sshd", listening) {
            return Err(io::Error::other(format!("{e}: {}", this.log())));
        }
        Ok(this)
    }

    /// User and host, as they stand before the colon of an address.
    pub fn address(&self) -> String {
        format!("git@{}", self.address)
    }

    /// What it told so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_else(|e| format!("no log: {e}"))
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A loopback address that no other process picks at the same time.
fn own_address() -> Ipv4Addr {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let [_, a, b, c] = (now.subsec_nanos() ^ std::process::id().rotate_left(16)).to_be_bytes();
    Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254))
}
