//! Full paths of the methods that a session may serve, as `/package.Service/Method`.
//!
//! A client tells the daemon which of them it serves, each in a header of its own
//! ([`SESSION_METHOD`](crate::headers::SESSION_METHOD)). The daemon consults that list before it calls
//! [`FILE_SYNC_DIFF_COPY`] and [`FILE_SEND_DIFF_COPY`]; everything else it calls and takes the status
//! *unimplemented* for a no.

/// Sends a tree to the daemon.
pub const FILE_SYNC_DIFF_COPY: &str = "/moby.filesync.v1.FileSync/DiffCopy";
/// Never called, but part of its service.
pub const FILE_SYNC_TAR_STREAM: &str = "/moby.filesync.v1.FileSync/TarStream";
/// Receives a result from the daemon.
pub const FILE_SEND_DIFF_COPY: &str = "/moby.filesync.v1.FileSend/DiffCopy";
/// Checks that the session is alive.
pub const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";

/// Methods of `grpc.health.v1.Health`.
pub const HEALTH: &[&str] = &[
    HEALTH_CHECK,
    "/grpc.health.v1.Health/List",
    "/grpc.health.v1.Health/Watch",
];
/// Methods of `moby.filesync.v1.FileSync`.
pub const FILE_SYNC: &[&str] = &[FILE_SYNC_DIFF_COPY, FILE_SYNC_TAR_STREAM];
/// Methods of `moby.filesync.v1.FileSend`.
pub const FILE_SEND: &[&str] = &[FILE_SEND_DIFF_COPY];
/// Methods of `moby.filesync.v1.Auth`.
pub const AUTH: &[&str] = &[
    "/moby.filesync.v1.Auth/Credentials",
    "/moby.filesync.v1.Auth/FetchToken",
    "/moby.filesync.v1.Auth/GetTokenAuthority",
    "/moby.filesync.v1.Auth/VerifyTokenAuthority",
];
/// Methods of `moby.buildkit.secrets.v1.Secrets`.
pub const SECRETS: &[&str] = &["/moby.buildkit.secrets.v1.Secrets/GetSecret"];
/// Methods of `moby.sshforward.v1.SSH`.
pub const SSH: &[&str] = &[
    "/moby.sshforward.v1.SSH/CheckAgent",
    "/moby.sshforward.v1.SSH/ForwardAgent",
];
/// Methods of `moby.upload.v1.Upload`.
pub const UPLOAD: &[&str] = &["/moby.upload.v1.Upload/Pull"];
/// Methods of `moby.exporter.v1.Exporter`.
pub const EXPORTER: &[&str] = &[
    "/moby.exporter.v1.Exporter/FindExporters",
    "/moby.exporter.v1.Exporter/FinalizeExport",
];
/// Methods of `moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier`.
pub const POLICY_VERIFIER: &[&str] =
    &["/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy"];
/// Methods of `containerd.services.content.v1.Content`.
pub const CONTENT: &[&str] = &[
    "/containerd.services.content.v1.Content/Info",
    "/containerd.services.content.v1.Content/Update",
    "/containerd.services.content.v1.Content/List",
    "/containerd.services.content.v1.Content/Delete",
    "/containerd.services.content.v1.Content/Read",
    "/containerd.services.content.v1.Content/Status",
    "/containerd.services.content.v1.Content/ListStatuses",
    "/containerd.services.content.v1.Content/Write",
    "/containerd.services.content.v1.Content/Abort",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// All method paths of one service that the generated dispatcher of a server knows.
    fn served(source: &str, service: &str) -> BTreeSet<String> {
        let prefix = format!("\"/{service}/");
        let server = source.split_once("_server {").map_or("", |(_, server)| server);
        server
            .match_indices(&prefix)
            .filter_map(|(at, _)| server[at + 1..].split('"').next())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn the_lists_name_what_the_generated_servers_serve() {
        for (methods, service, source) in [
            (
                HEALTH,
                crate::health::health_server::SERVICE_NAME,
                include_str!("generated/health.rs"),
            ),
            (
                FILE_SYNC,
                crate::filesync::file_sync_server::SERVICE_NAME,
                include_str!("generated/filesync.rs"),
            ),
            (
                FILE_SEND,
                crate::filesync::file_send_server::SERVICE_NAME,
                include_str!("generated/filesync.rs"),
            ),
            (
                AUTH,
                crate::auth::auth_server::SERVICE_NAME,
                include_str!("generated/auth.rs"),
            ),
            (
                SECRETS,
                crate::secrets::secrets_server::SERVICE_NAME,
                include_str!("generated/secrets.rs"),
            ),
            (
                SSH,
                crate::ssh::ssh_server::SERVICE_NAME,
                include_str!("generated/ssh.rs"),
            ),
            (
                UPLOAD,
                crate::upload::upload_server::SERVICE_NAME,
                include_str!("generated/upload.rs"),
            ),
            (
                EXPORTER,
                crate::exporter::exporter_server::SERVICE_NAME,
                include_str!("generated/exporter.rs"),
            ),
            (
                POLICY_VERIFIER,
                crate::policy_session::policy_verifier_server::SERVICE_NAME,
                include_str!("generated/policy_session.rs"),
            ),
            (
                CONTENT,
                crate::content::content_server::SERVICE_NAME,
                include_str!("generated/content.rs"),
            ),
        ] {
            let listed: BTreeSet<String> = methods.iter().map(|method| method.to_string()).collect();
            assert_eq!(listed.len(), methods.len(), "{service}");
            assert_eq!(listed, served(source, service), "{service}");
        }
    }
}
