//! Every flag of `bk build` has an entry here: what it adds to the request that is sent, or where else it shows.
//!
//! The table is held against clap's own list, so a flag without an entry fails the test.

use std::collections::{BTreeMap, BTreeSet};

use bk_solve::{ImageExporter, lower};
use clap::CommandFactory as _;

use super::tests::{Fake, meant};
use crate::args::Cli;

/// What a flag does.
enum Does {
    /// Lines that the lowered request has more than one without the flag.
    Sends(&'static [&'static str]),
    /// It is no part of the request, or not known before files are looked at; that test shows what it does.
    ShownBy(&'static str),
}

use Does::{Sends, ShownBy};

/// Flag, arguments (`{FILE}` is a source policy), and what it does.
const FLAGS: &[(&str, &[&str], Does)] = &[
    (
        "addr",
        &[],
        ShownBy("global_options_stand_before_or_behind_the_command"),
    ),
    ("affinity", &[], ShownBy("cli::several")),
    ("affinity-header", &[], ShownBy("cli::several")),
    ("node", &[], ShownBy("cli::nodes")),
    (
        "backend",
        &[],
        ShownBy("global_options_stand_before_or_behind_the_command"),
    ),
    (
        "docker-route",
        &[],
        ShownBy("global_options_stand_before_or_behind_the_command"),
    ),
    (
        "builder",
        &[],
        ShownBy("global_options_stand_before_or_behind_the_command"),
    ),
    ("tls", &[], ShownBy("tls_options_are_read")),
    ("tlscacert", &[], ShownBy("tls_options_are_read")),
    ("tlscert", &[], ShownBy("tls_options_are_read")),
    ("tlskey", &[], ShownBy("tls_options_are_read")),
    ("tlsservername", &[], ShownBy("tls_options_are_read")),
    ("tlsdir", &[], ShownBy("tls_options_are_read")),
    (
        "color",
        &[],
        ShownBy("color::the_option_wins_over_variables_and_these_over_the_terminal"),
    ),
    ("verbose", &[], ShownBy("cli::look::verbose_says_which_daemon")),
    (
        "no-config",
        &[],
        ShownBy("cli::settings::files_can_be_left_alone"),
    ),
    ("daemonless", &[], ShownBy("cli::private")),
    ("daemonless-program", &[], ShownBy("cli::private")),
    ("daemonless-idle", &[], ShownBy("cli::private")),
    ("file", &[], ShownBy("every_flag_reaches_the_request")),
    (
        "build-arg",
        &["--build-arg", "K=V"],
        Sends(&["attr build-arg:K=V"]),
    ),
    ("target", &["--target", "t"], Sends(&["attr target=t"])),
    (
        "platform",
        &["--platform", "linux/amd64,linux/arm64"],
        Sends(&["attr platform=linux/amd64,linux/arm64"]),
    ),
    (
        "build-context",
        &[
            "--build-context",
            "alpine:latest=docker-image://busybox",
            "--build-context",
            "src=https://h/r.git#b:d",
        ],
        Sends(&[
            "attr context:alpine=docker-image://busybox",
            "attr context:src=https://h/r.git#b:d",
            "attr frontend.caps=moby.buildkit.frontend.contexts+forward",
        ]),
    ),
    ("opt", &["--opt", "hostname=h=i"], Sends(&["attr hostname=h=i"])),
    (
        "frontend",
        &["--frontend", "gateway.v0"],
        Sends(&["frontend gateway.v0"]),
    ),
    (
        "secret",
        &[],
        ShownBy("secrets_come_from_where_other_tools_take_them"),
    ),
    ("ssh", &[], ShownBy("agents_and_keys")),
    ("stall-timeout", &[], ShownBy("patience_reaches_the_request")),
    ("retries", &[], ShownBy("patience_reaches_the_request")),
    (
        "source-policy-file",
        &["--source-policy-file", "{FILE}"],
        Sends(&["policy 1"]),
    ),
    (
        "tag",
        &["-t", "a:1", "--tag", "b"],
        Sends(&["exporter moby name=a:1,b"]),
    ),
    ("label", &["--label", "k=v"], Sends(&["attr label:k=v"])),
    (
        "annotation",
        &[
            "--annotation",
            "k=v",
            "--annotation",
            "manifest[linux/arm64],index:x=y",
        ],
        Sends(&[
            "exporter moby annotation-index.x=y",
            "exporter moby annotation-manifest[linux/arm64].x=y",
            "exporter moby annotation.k=v",
        ]),
    ),
    (
        "attest",
        &["--attest", "type=provenance,mode=max,builder-id=x"],
        Sends(&["attr attest:provenance=mode=max,builder-id=x"]),
    ),
    (
        "sbom",
        &["--sbom", "generator=h/i"],
        Sends(&["attr attest:sbom=generator=h/i"]),
    ),
    (
        "provenance",
        &["--provenance=true"],
        Sends(&["attr attest:provenance="]),
    ),
    (
        "output",
        &[
            "-o",
            "type=image,compression=zstd,annotation-index.K=v",
            "--output",
            "type=cacheonly",
        ],
        Sends(&[
            "exporter moby annotation-index.K=v",
            "exporter moby compression=zstd",
        ]),
    ),
    ("load", &[], ShownBy("load_and_push_add_to_what_is_there")),
    (
        "push",
        &["--push", "-t", "h/i:1"],
        Sends(&["exporter moby name=h/i:1", "exporter moby push=true"]),
    ),
    (
        "call",
        &[],
        ShownBy("call::questions_and_their_fields and cli::call"),
    ),
    (
        "check",
        &[],
        ShownBy("call::questions_and_their_fields and cli::call"),
    ),
    ("iidfile", &[], ShownBy("cli::fake and cli::live")),
    ("metadata-file", &[], ShownBy("cli::fake and cli::live")),
    ("transfer-report", &[], ShownBy("a_transfer_is_told_in_full")),
    ("no-cache", &["--no-cache"], Sends(&["attr no-cache="])),
    (
        "no-cache-filter",
        &["--no-cache-filter", "a", "--no-cache-filter", "b"],
        Sends(&["attr no-cache=a,b"]),
    ),
    (
        "cache-from",
        &[
            "--cache-from",
            "h/a:c",
            "--cache-from",
            "type=azblob,account_url=u",
        ],
        Sends(&[
            r#"attr cache-imports=[{"Attrs":{"ref":"h/a:c"},"Type":"registry"},{"Attrs":{"account_url":"u"},"Type":"azblob"}]"#,
            r#"cache-from azblob {"account_url": "u"}"#,
            r#"cache-from registry {"ref": "h/a:c"}"#,
        ]),
    ),
    (
        "cache-to",
        &[
            "--cache-to",
            "type=inline",
            "--cache-to",
            "type=s3,bucket=b,region=r,mode=max",
        ],
        Sends(&[
            "cache-to inline {}",
            r#"cache-to s3 {"bucket": "b", "ignore-error": "true", "mode": "max", "region": "r"}"#,
        ]),
    ),
    ("pull", &["--pull"], Sends(&["attr image-resolve-mode=pull"])),
    (
        "add-host",
        &["--add-host", "a:1.2.3.4,b=::1"],
        Sends(&["attr add-hosts=a=1.2.3.4,b=::1"]),
    ),
    (
        "network",
        &["--network", "host"],
        Sends(&["attr force-network-mode=host", "entitlement network.host"]),
    ),
    (
        "shm-size",
        &["--shm-size", "64m"],
        Sends(&["attr shm-size=67108864"]),
    ),
    (
        "ulimit",
        &["--ulimit", "nofile=5", "--ulimit", "core=1:2"],
        Sends(&["attr ulimit=nofile=5:5,core=1:2"]),
    ),
    (
        "cgroup-parent",
        &["--cgroup-parent", "g"],
        Sends(&["attr cgroup-parent=g"]),
    ),
    (
        "allow",
        &["--allow", "security.insecure", "--allow", "device=x"],
        Sends(&["entitlement device=x", "entitlement security.insecure"]),
    ),
    ("memory", &["-m", "1g"], Sends(&["attr memory=1073741824"])),
    (
        "memory-swap",
        &["--memory-swap", "-1"],
        Sends(&["attr memswap=-1"]),
    ),
    ("cpu-shares", &["-c", "512"], Sends(&["attr cpushares=512"])),
    (
        "cpu-period",
        &["--cpu-period", "100000"],
        Sends(&["attr cpuperiod=100000"]),
    ),
    (
        "cpu-quota",
        &["--cpu-quota", "50000"],
        Sends(&["attr cpuquota=50000"]),
    ),
    (
        "cpuset-cpus",
        &["--cpuset-cpus", "0-1"],
        Sends(&["attr cpusetcpus=0-1"]),
    ),
    (
        "cpuset-mems",
        &["--cpuset-mems", "0"],
        Sends(&["attr cpusetmems=0"]),
    ),
    ("sync", &[], ShownBy("flags_have_their_policies")),
    ("context-mode", &[], ShownBy("flags_have_their_policies")),
    ("context-owner", &[], ShownBy("flags_have_their_policies")),
    ("on-change", &[], ShownBy("flags_have_their_policies")),
    ("progress", &[], ShownBy("progress_modes_and_their_variable")),
    ("quiet", &[], ShownBy("progress_modes_and_their_variable")),
    ("timings", &[], ShownBy("timings_follow_the_build")),
    ("explain", &[], ShownBy("files_that_changed_are_explained")),
    (
        "log-dir",
        &[],
        ShownBy("the_output_of_steps_goes_to_files_of_their_own"),
    ),
];

/// What would be sent for a command line, a line for each fact.
fn sent(flags: &[&str], around: &Fake) -> BTreeSet<String> {
    let line = [flags, &["."]].concat();
    let solve = lower(&meant(&line, around), "r", "s", None, ImageExporter::Moby);
    let mut lines = BTreeSet::new();
    lines.insert(format!("frontend {}", solve.frontend));
    for (key, value) in &solve.frontend_attrs {
        lines.insert(format!("attr {key}={value}"));
    }
    for exporter in &solve.exporters {
        lines.insert(format!("exporter {}", exporter.r#type));
        for (key, value) in &exporter.attrs {
            lines.insert(format!("exporter {} {key}={value}", exporter.r#type));
        }
    }
    lines.extend(solve.entitlements.iter().map(|e| format!("entitlement {e}")));
    lines.extend(solve.source_policy.map(|p| format!("policy {}", p.rules.len())));
    let cache = solve.cache.unwrap_or_default();
    for (direction, entries) in [("from", cache.imports), ("to", cache.exports)] {
        for entry in entries {
            lines.insert(format!("cache-{direction} {} {:?}", entry.r#type, entry.attrs));
        }
    }
    lines
}

#[test]
fn every_flag_of_the_help_does_what_its_entry_says() {
    let policy = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(policy.path(), r#"{"rules": [{"action": "DENY"}]}"#).expect("writable");
    let file = policy.path().to_str().expect("UTF-8");
    let around = Fake::default();
    let plain = sent(&[], &around);
    assert_eq!(
        plain.iter().map(String::as_str).collect::<Vec<_>>(),
        ["exporter moby", "frontend dockerfile.v0"],
        "nothing more than needed is sent"
    );

    let mut cli = Cli::command();
    cli.build();
    let build = cli.find_subcommand("build").expect("bk build");
    let known: BTreeMap<_, _> = FLAGS
        .iter()
        .map(|(name, args, does)| (*name, (args, does)))
        .collect();
    assert_eq!(known.len(), FLAGS.len(), "an entry stands there twice");
    let mut names: BTreeSet<_> = build.get_arguments().filter_map(|a| a.get_long()).collect();
    names.remove("help");
    let listed: BTreeSet<_> = known.keys().copied().collect();
    assert_eq!(names, listed, "each flag needs an entry in FLAGS, and no other");

    for (name, (args, does)) in known {
        let args: Vec<_> = args
            .iter()
            .map(|a| if *a == "{FILE}" { file } else { a })
            .collect();
        match does {
            Sends(lines) => {
                let with = sent(&args, &around);
                let added: Vec<_> = with.difference(&plain).map(String::as_str).collect();
                assert_eq!(added, *lines, "--{name}");
            }
            ShownBy(test) => assert!(args.is_empty() && !test.is_empty(), "--{name}"),
        }
    }
}

#[test]
fn the_environment_fills_what_other_clients_fill() {
    let around = |vars: &[(&'static str, &str)]| Fake {
        vars: vars.iter().map(|(k, v)| (*k, (*v).into())).collect(),
        stdin: b"",
    };
    let plain = sent(&[], &Fake::default());
    let added = |flags: &[&str], vars: &[(&'static str, &str)]| -> Vec<String> {
        sent(flags, &around(vars)).difference(&plain).cloned().collect()
    };
    assert_eq!(
        added(&[], &[("SOURCE_DATE_EPOCH", "7")]),
        ["attr build-arg:SOURCE_DATE_EPOCH=7"]
    );
    assert_eq!(
        added(
            &["--build-arg", "SOURCE_DATE_EPOCH=8"],
            &[("SOURCE_DATE_EPOCH", "7")]
        ),
        ["attr build-arg:SOURCE_DATE_EPOCH=8"]
    );
    assert_eq!(
        added(
            &["--build-arg", "BUILDKIT_SYNTAX=h/f:1"],
            &[("SOURCE_DATE_EPOCH", "")]
        ),
        [
            "attr build-arg:BUILDKIT_SYNTAX=h/f:1",
            "attr cmdline=h/f:1",
            "attr source=h/f:1",
            "frontend gateway.v0"
        ]
    );
    let aws = [
        ("AWS_ACCESS_KEY_ID", "i"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("AWS_SESSION_TOKEN", "t"),
    ];
    assert_eq!(
        added(&["--cache-to", "type=s3,bucket=b,region=r"], &aws),
        [
            r#"cache-to s3 {"access_key_id": "i", "bucket": "b", "ignore-error": "true", "region": "r", "secret_access_key": "s", "session_token": "t"}"#
        ]
    );
    assert_eq!(
        added(
            &["--cache-to", "type=s3,bucket=b,region=r,access_key_id=own"],
            &aws
        ),
        [r#"cache-to s3 {"access_key_id": "own", "bucket": "b", "ignore-error": "true", "region": "r"}"#]
    );
    let actions = [
        ("ACTIONS_RUNTIME_TOKEN", "t"),
        ("ACTIONS_RESULTS_URL", "https://r/"),
        ("ACTIONS_CACHE_URL", "https://c/"),
    ];
    assert_eq!(
        added(&["--cache-to", "type=gha"], &actions),
        [r#"cache-to gha {"ignore-error": "true", "token": "t", "url": "https://c/"}"#]
    );
    let second = [&actions[..], &[("ACTIONS_CACHE_SERVICE_V2", "true")]].concat();
    assert_eq!(
        added(&["--cache-to", "type=gha,scope=x"], &second),
        [
            r#"cache-to gha {"ignore-error": "true", "scope": "x", "token": "t", "url": "https://c/", "url_v2": "https://r/"}"#
        ]
    );
    assert!(added(&["--cache-to", "type=gha"], &[]).is_empty());
}
