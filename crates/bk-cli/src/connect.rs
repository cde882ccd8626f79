//! From the global options to a connected builder.

use std::path::Path;

use bk_client::{
    Backend, BuildError, BuilderInfo, Client, ConnectOptions, Connected, Daemonless, DockerRoute,
    ImageBuilder as _, TlsOptions, affinity_of, connect_with, daemon::Program,
};

use bk_progress::neutralise_line;

use crate::{
    args::{self, Global},
    private, report, verbose,
};

/// Connects as the options say, for what is about the current directory; what they leave open, the library decides.
pub(crate) async fn connect(global: &Global) -> Result<Client, BuildError> {
    reach(options(global, Path::new("."))?).await
}

/// The same, for a build of that context for these platforms, which choose among the nodes of a builder.
pub(crate) async fn connect_for(
    global: &Global,
    context: &Path,
    platforms: &[String],
) -> Result<Connected, BuildError> {
    let connected = bk_client::connect_for(options(global, context)?, platforms).await?;
    verbose::say(verbose::DECISIONS, || match &connected {
        Connected::One(client) => told(&client.info()),
        // Who they are is said where they build.
        Connected::Several(_) => "daemons: nodes of a builder, by platform".to_owned(),
    });
    Ok(connected)
}

/// The same, with an address in place of `--addr`.
pub(crate) async fn connect_to(global: &Global, address: Option<&str>) -> Result<Client, BuildError> {
    let mut options = options(global, Path::new("."))?;
    if let Some(address) = address {
        options = options.addr(address);
    }
    reach(options).await
}

async fn reach(options: ConnectOptions) -> Result<Client, BuildError> {
    let client = connect_with(options).await?;
    verbose::say(verbose::DECISIONS, || told(&client.info()));
    Ok(client)
}

/// The daemon in one line, with the route to it where there is a choice.
fn told(info: &BuilderInfo) -> String {
    let version = info
        .version
        .as_deref()
        .map(|v| format!(" {v}"))
        .unwrap_or_default();
    let route = info
        .route
        .as_deref()
        .map(|r| format!(", route {r}"))
        .unwrap_or_default();
    format!("daemon: {}{version} at {}{route}", info.backend, info.address)
}

fn options(global: &Global, context: &Path) -> Result<ConnectOptions, BuildError> {
    let mut options = ConnectOptions::new();
    #[cfg(feature = "otel")]
    if let Some(trace) = crate::traces::current() {
        options = options.trace(trace);
    }
    options = options.addrs(&global.addr);
    options = options.skipped(|attempt| {
        let text = format!("passing over {}: {}", attempt.address, attempt.reason);
        report::to_stderr(&format!("{}\n", neutralise_line(&text)));
    });
    if global.addr.len() > 1 || global.affinity_header.is_some() {
        let key = global.affinity.clone().unwrap_or_else(|| affinity_of(context));
        if let Some(name) = &global.affinity_header {
            options = options.header(name.to_ascii_lowercase(), &key);
        }
        options = options.affinity(key);
    }
    if let Some(name) = &global.builder {
        options = options.builder(name.clone());
    }
    if let Some(backend) = global.backend {
        options = options.backend(match backend {
            args::Backend::Auto => Backend::Auto,
            args::Backend::Docker => Backend::Docker,
            args::Backend::Buildkitd => Backend::Buildkitd,
        });
    }
    if let Some(route) = global.docker_route {
        options = options.docker_route(match route {
            args::Route::Auto => DockerRoute::Auto,
            args::Route::H2c => DockerRoute::H2c,
            args::Route::Grpc => DockerRoute::Grpc,
            args::Route::Build => DockerRoute::Build,
            args::Route::Tar => DockerRoute::Tar,
        });
    }
    if let Some(how) = daemonless(global)? {
        options = options.daemonless(how);
    }
    match tls(global)? {
        Some(tls) => Ok(options.tls(tls)),
        None => Ok(options),
    }
}

/// The private daemon, unless it is forbidden.
fn daemonless(global: &Global) -> Result<Option<Daemonless>, BuildError> {
    let args = &global.private;
    if args.daemonless == Some(false) {
        return Ok(None);
    }
    let mut how = Daemonless::new(private::keeper()?)
        .always(args.daemonless == Some(true))
        .notice(|program| report::to_stderr(&notice(program)));
    if let Some(program) = &args.daemonless_program {
        how = how.program(program);
    }
    if let Some(idle) = args.daemonless_idle {
        how = how.idle(idle);
    }
    Ok(Some(how))
}

/// What is said when nobody asked for a private daemon, whatever the command wants of it.
fn notice(program: &Program) -> String {
    format!(
        "no daemon answers: using a private {} ({}); `bk daemon status` tells more, --daemonless=false forbids it\n",
        program.kind().name(),
        program.path().display()
    )
}

/// TLS, when any of its options is given.
fn tls(global: &Global) -> Result<Option<TlsOptions>, BuildError> {
    let mut tls = match &global.tlsdir {
        Some(dir) => Some(TlsOptions::from_dir(dir)?),
        None => global.tls.then(TlsOptions::new),
    };
    if let Some(ca) = &global.tlscacert {
        tls = Some(tls.unwrap_or_default().ca(ca.clone()));
    }
    if let (Some(cert), Some(key)) = (&global.tlscert, &global.tlskey) {
        tls = Some(tls.unwrap_or_default().identity(cert.clone(), key.clone()));
    }
    if let Some(name) = &global.tlsservername {
        tls = Some(tls.unwrap_or_default().server_name(name));
    }
    Ok(tls)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;

    fn tls_of(line: &[&str]) -> String {
        let line = [&["bk"], line, &["build", "."]].concat();
        match Cli::try_parse_from(line) {
            Ok(cli) => format!("{:?}", tls(&cli.global).expect("options")),
            Err(e) => e.kind().to_string(),
        }
    }

    #[test]
    fn tls_options_are_read() {
        assert_eq!(tls_of(&[]), "None");
        let all = [
            "--tlscacert",
            "a",
            "--tlscert",
            "c",
            "--tlskey",
            "k",
            "--tlsservername",
            "n",
        ];
        let text = tls_of(&all);
        for part in ["File(\"a\")", "File(\"c\")", "Some(\"***\")", "Some(\"n\")"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(tls_of(&["--tls"]).contains("system_roots: false"));
        let missing = "one or more required arguments were not provided";
        assert_eq!(tls_of(&["--tlscert", "c"]), missing);
        assert_eq!(tls_of(&["--tlskey", "k"]), missing);
        let both = tls_of(&["--tlsdir", "d", "--tlscacert", "a"]);
        assert!(both.contains("cannot be used with"), "{both}");
    }
}
