//! From the global options to a connected builder.

use bk_client::{Backend, BuildError, Client, ConnectOptions, DockerRoute, connect_with};

use crate::args::{self, Global};

/// Connects as the options say; what they leave open, the library decides.
pub(crate) async fn connect(global: &Global) -> Result<Client, BuildError> {
    connect_with(options(global)).await
}

fn options(global: &Global) -> ConnectOptions {
    let mut options = ConnectOptions::new();
    if let Some(addr) = &global.addr {
        options = options.addr(addr.clone());
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
    options
}
