//! Names of the HTTP headers and gRPC metadata that BuildKit's services rely on.
//!
//! All are lower case, as HTTP/2 and gRPC want them. HTTP/1 headers can be written in any case; daemons fold
//! them, so the canonical forms of the session headers are here only for those who want to look like Go.

/// Id of the session. Every session needs one, and never one that was used before.
pub const SESSION_ID: &str = "x-docker-expose-session-uuid";
/// [`SESSION_ID`] in the canonical form of HTTP/1.
pub const SESSION_ID_CANONICAL: &str = "X-Docker-Expose-Session-Uuid";

/// Display name of the session. Read by BuildKit 0.8 only.
pub const SESSION_NAME: &str = "x-docker-expose-session-name";
/// [`SESSION_NAME`] in the canonical form of HTTP/1.
pub const SESSION_NAME_CANONICAL: &str = "X-Docker-Expose-Session-Name";

/// Shared key of the session: builds with equal keys reuse each other's transferred files. Always sent, may be
/// empty. It ends up in cache records, so it must not contain secrets.
pub const SESSION_SHARED_KEY: &str = "x-docker-expose-session-sharedkey";
/// [`SESSION_SHARED_KEY`] in the canonical form of HTTP/1.
pub const SESSION_SHARED_KEY_CANONICAL: &str = "X-Docker-Expose-Session-Sharedkey";

/// Path of a method that the session serves. Sent once for each method; the values are never joined.
pub const SESSION_METHOD: &str = "x-docker-expose-session-grpc-method";
/// [`SESSION_METHOD`] in the canonical form of HTTP/1.
pub const SESSION_METHOD_CANONICAL: &str = "X-Docker-Expose-Session-Grpc-Method";

/// Interval and timeout of the daemon's health check in milliseconds, at least 1000; one failure is then fatal.
/// Meant for tests. Since BuildKit 0.30.
pub const SESSION_HEALTH_TIMEOUT: &str = "x-buildkit-session-health-custom-timeout";
/// [`SESSION_HEALTH_TIMEOUT`] in the canonical form of HTTP/1.
pub const SESSION_HEALTH_TIMEOUT_CANONICAL: &str = "X-Buildkit-Session-Health-Custom-Timeout";

/// FileSync: name of the local source that is asked for. Exactly one value.
pub const DIR_NAME: &str = "dir-name";
/// FileSync: patterns of which an entry must match one. Absent means that every entry is wanted.
pub const INCLUDE_PATTERNS: &str = "include-patterns";
/// FileSync: patterns of unwanted entries, in order, with `!` for exceptions.
pub const EXCLUDE_PATTERNS: &str = "exclude-patterns";
/// FileSync: paths that are wanted together with everything their links lead to. There is no hyphen in it.
pub const FOLLOW_PATHS: &str = "followpaths";
/// FileSync: `true` makes a client drop exclude patterns of its own. Only sent by BuildKit before 0.13.
pub const OVERRIDE_EXCLUDES: &str = "override-excludes";
/// What is added to a key to say that the values of that key are encoded. See [`crate::metadata`].
pub const ENCODED_SUFFIX: &str = "-encoded";

/// FileSend: index of the exporter in the solve request, in decimal. Absent before BuildKit 0.13, meaning 0.
pub const EXPORTER_ID: &str = "buildkit-attachable-exporter-id";
/// FileSend: the stream holds all platforms, so that the receiver may delete what is not in it. Since BuildKit
/// 0.31.
pub const EXPORTER_MULTI_PLATFORM: &str = "buildkit-exporter-multi-platform";
/// FileSend to a file: what precedes each key of the exporter's response.
pub const EXPORTER_METADATA_PREFIX: &str = "exporter-md-";

/// Content: id of the store that a call is about. Required; the first value counts.
pub const STORE_ID: &str = "buildkit-attachable-store-id";
/// SSH: id of the agent. Absent or empty means `default`.
pub const SSH_ID: &str = "buildkit.ssh.id";
/// Upload: path of the URL that is fetched; its base name is the id of the upload.
pub const UPLOAD_PATH: &str = "urlpath";
/// Upload: host of the URL that is fetched.
pub const UPLOAD_HOST: &str = "urlhost";

/// LLBBridge, from client to daemon: ref of the build that a call belongs to.
pub const BUILD_ID: &str = "buildkit-controlapi-buildid";
/// Status and ListenBuildHistory, from daemon to client: the daemon's clock, RFC 3339 with nanoseconds. Since
/// BuildKit 0.12.
pub const CURRENT_TIMESTAMP: &str = "buildkit-current-timestamp";
/// Trailer with an encoded `google.rpc.Status` that describes an error in detail.
pub const STATUS_DETAILS: &str = "grpc-status-details-bin";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_names_are_the_same_names() {
        for (lower, canonical) in [
            (SESSION_ID, SESSION_ID_CANONICAL),
            (SESSION_NAME, SESSION_NAME_CANONICAL),
            (SESSION_SHARED_KEY, SESSION_SHARED_KEY_CANONICAL),
            (SESSION_METHOD, SESSION_METHOD_CANONICAL),
            (SESSION_HEALTH_TIMEOUT, SESSION_HEALTH_TIMEOUT_CANONICAL),
        ] {
            assert_eq!(canonical.to_ascii_lowercase(), lower);
            for word in canonical.split('-') {
                let (first, rest) = word.split_at(1);
                assert_eq!(word, first.to_ascii_uppercase() + &rest.to_ascii_lowercase());
            }
        }
    }

    #[test]
    fn lower_case_names_are_valid_in_http2() {
        for name in [
            SESSION_ID,
            SESSION_NAME,
            SESSION_SHARED_KEY,
            SESSION_METHOD,
            SESSION_HEALTH_TIMEOUT,
            DIR_NAME,
            INCLUDE_PATTERNS,
            EXCLUDE_PATTERNS,
            FOLLOW_PATHS,
            OVERRIDE_EXCLUDES,
            EXPORTER_ID,
            EXPORTER_MULTI_PLATFORM,
            STORE_ID,
            SSH_ID,
            UPLOAD_PATH,
            UPLOAD_HOST,
            BUILD_ID,
            CURRENT_TIMESTAMP,
            STATUS_DETAILS,
        ] {
            // `from_static` panics on anything that HTTP/2 would refuse.
            assert_eq!(http::HeaderName::from_static(name).as_str(), name);
        }
    }
}
