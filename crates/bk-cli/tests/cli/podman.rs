//! Containers of a real Podman: what is built through it, what is said when it does not work, and that nothing of it stays.
//!
//! The rule: what Podman keeps is in the test's own directory. The system's containers, and its configuration, are not
//! touched.

use std::{
    fs,
    io::Read as _,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
    process::Command,
    time::Duration,
};

use bk_testkit::live::{podman_program, until};

use super::{
    begun, bk,
    endpoints::{Place, ok, on},
    live::step_is_running,
    text,
    unreachable::shows,
};

const LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

/// Where a Podman that nobody told otherwise keeps what it has.
const OF_THE_SYSTEM: [&str; 6] = [
    "/var/lib/containers",
    "/var/lib/cni",
    "/run/containers",
    "/run/libpod",
    "/etc/cni",
    "/dev/shm/libpod_lock",
];

/// A Podman of the test's own, and its one container, which sees the whole machine and has a `buildctl`. Both end with the
/// value.
struct Podman<'a> {
    place: &'a Place,
    /// The namespace of the container's processes. Held open, so that no other gets its number.
    inside: Option<fs::File>,
}

impl<'a> Podman<'a> {
    const NAME: &'static str = "b0";

    /// Puts `podman` where `bk` finds it, and starts the container [`NAME`](Self::NAME).
    fn start(place: &'a Place, program: &Path) -> Self {
        place.podman(program);
        let mut this = Self { place, inside: None };
        let root = place.container_root();
        let options = [
            // No other network and no other memory than the machine's needs cleaning up.
            ["--network", "none"],
            ["--ipc", "none"],
            ["--volume", "/:/host"],
            // Podman leaves the groups above the container's behind, so there are none.
            ["--cgroups", "no-conmon"],
            ["--cgroup-parent", "/"],
            // It wants more than a machine may permit.
            ["--ulimit", "nofile=1024:1024"],
            ["--ulimit", "nproc=1024:1024"],
            ["--name", Self::NAME],
        ];
        ok(this
            .podman()
            .args(["run", "-d"])
            .args(options.as_flattened())
            .args(["--rootfs", text(&root), "/bin/busybox", "sleep", "600"]));
        let pid = ok(this
            .podman()
            .args(["inspect", "--format", "{{.State.Pid}}", Self::NAME]));
        this.inside = Some(fs::File::open(format!("/proc/{pid}/ns/pid")).expect("it runs"));
        this
    }

    fn podman(&self) -> Command {
        let mut command = Command::new(self.place.path("bin/podman"));
        command.env_clear().env("PATH", self.place.search_path());
        command
    }

    /// The command lines of what runs for this Podman: with its directory among the arguments, or in its container.
    fn processes(&self) -> Vec<String> {
        let dir = self.place.path("podman");
        let dir = dir.as_os_str().as_bytes();
        let inside = self
            .inside
            .as_ref()
            .map(|ns| ns.metadata().expect("a namespace").ino());
        let mut found = Vec::new();
        for process in fs::read_dir("/proc").expect("a proc file system").flatten() {
            // Processes that end meanwhile cannot be read, and those that have ended have no command line.
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let ns = fs::metadata(process.path().join("ns/pid"));
            let is_inside = ns.is_ok_and(|ns| Some(ns.ino()) == inside);
            if !line.is_empty() && (is_inside || line.windows(dir.len()).any(|part| part == dir)) {
                found.push(String::from_utf8_lossy(&line).replace('\0', " "));
            }
        }
        found
    }

    /// Waits until nothing runs but the container and what watches it.
    async fn until_idle(&self) {
        let idle = async || {
            let all = self.processes();
            let is_there = |part: &str| all.iter().any(|line| line.contains(part));
            all.len() == 2 && is_there("/bin/busybox sleep 600") && is_there("/conmon ")
        };
        assert!(until(LIMIT, PAUSE, idle).await, "{:#?}", self.processes());
    }

    /// Waits until nothing runs, and sees that nothing is mounted.
    async fn until_gone(&self) {
        let gone = until(LIMIT, PAUSE, async || self.processes().is_empty()).await;
        assert!(gone, "{:#?}", self.processes());
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("readable");
        let dir = self.place.dir.path();
        assert!(!mounts.contains(text(dir)), "{mounts}");
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        // It may be gone, or may never have started.
        let _ = self.podman().args(["rm", "-f", "-t", "0", Self::NAME]).output();
    }
}

impl Place {
    /// A `podman` for `bk` that has its configuration and everything else in a directory here.
    fn podman(&self, program: &Path) {
        let dir = self.path("podman");
        fs::create_dir(&dir).expect("a directory");
        let dir = text(&dir);
        self.write(
            "podman/storage.conf",
            &format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{dir}/root\"\nrunroot = \"{dir}/run\"\n"),
        );
        let beside = |name: &str| program.with_file_name(name).display().to_string();
        self.program(
            "podman/runc",
            &format!("exec '{}' --root '{dir}/runc-state' \"$@\"", beside("runc")),
        );
        self.write(
            "podman/containers.conf",
            &format!(
                "[engine]\n\
                 runtime = \"runc\"\n\
                 conmon_path = [\"{conmon}\"]\n\
                 conmon_env_vars = [\"CONTAINERS_STORAGE_CONF={dir}/storage.conf\"]\n\
                 cgroup_manager = \"cgroupfs\"\n\
                 events_logger = \"none\"\n\
                 lock_type = \"file\"\n\
                 static_dir = \"{dir}/static\"\n\
                 tmp_dir = \"{dir}/tmp\"\n\
                 volume_path = \"{dir}/volumes\"\n\
                 [engine.runtimes]\n\
                 runc = [\"{dir}/runc\"]\n\
                 [network]\n\
                 network_config_dir = \"{dir}/net\"\n",
                conmon = beside("conmon")
            ),
        );
        self.program(
            "bin/podman",
            &format!(
                "export HOME='{dir}' CONTAINERS_CONF='{dir}/containers.conf' \
                 CONTAINERS_STORAGE_CONF='{dir}/storage.conf'\nexec '{}' \"$@\"",
                program.display()
            ),
        );
    }
}

fn of_the_system() -> Vec<&'static str> {
    let there = |path: &&str| Path::new(path).exists();
    OF_THE_SYSTEM.into_iter().filter(there).collect()
}

#[test]
fn a_daemon_in_a_container_is_reached_through_podman() {
    let name = "cli::a_daemon_in_a_container_is_reached_through_podman";
    let Some(program) = podman_program(name) else {
        return;
    };
    on(name, async |place| {
        let before = of_the_system();
        let podman = Podman::start(place, &program);
        podman.until_idle().await;
        place.builds("podman-container://b0", &[]).await;
        // Both times that it was called it has ended, and what it ran in the container too.
        podman.until_idle().await;

        // The container goes away in the middle of a build.
        let (seconds, busybox) = (format!("60{}", std::process::id()), &place.target.busybox);
        fs::copy(busybox, place.path("context/busybox")).expect("a busybox");
        place.write(
            "context/Dockerfile",
            &format!(
                "FROM scratch\nCOPY busybox /bin/\n\
                 RUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo begun; exec /bin/busybox sleep {seconds}\"]\n"
            ),
        );
        let mut command = bk(&["--addr", "podman-container://b0", "build", "--retries", "0"]);
        command.args(["--progress", "plain"]).arg(place.path("context"));
        let (mut child, mut progress) = begun(command.env("PATH", place.search_path()));
        ok(podman.podman().args(["kill", Podman::NAME]));
        let mut rest = String::new();
        progress.read_to_string(&mut rest).expect("readable");
        assert_eq!(child.wait().expect("an end").code(), Some(1), "{rest}");
        let lost = "ERROR: lost the daemon at podman-container://b0: connection error: `podman` ended with exit status: 137\n";
        assert!(rest.contains(lost), "{rest}");
        let ends = until(LIMIT, PAUSE, async || !step_is_running(&seconds)).await;
        assert!(ends, "the step still runs");
        podman.until_gone().await;

        drop(podman);
        assert_eq!(of_the_system(), before);
        place.target.supports("`podman-container://`");
    });
}

#[test]
fn containers_of_podman_that_hold_no_daemon() {
    let name = "cli::containers_of_podman_that_hold_no_daemon";
    let Some(program) = podman_program(name) else {
        return;
    };
    on(name, async |place| {
        let podman = Podman::start(place, &program);
        let fails = |name: &str, container: &str| {
            let ran = place.bk_with(&[], &["--addr", &format!("podman-container://{container}")]);
            shows(name, &ran, &[]);
        };
        fails("podman-unknown", "bk-nobody");
        fs::remove_file(place.path("root/bin/buildctl")).expect("removable");
        fails("podman-no-buildctl", Podman::NAME);
        podman.until_idle().await;
        ok(podman.podman().args(["kill", Podman::NAME]));
        podman.until_gone().await;
        fails("podman-stopped", Podman::NAME);
        podman.until_gone().await;
    });
}
