//! The contract of an image builder: what is asked, what happens meanwhile, what comes out and what went wrong.
//!
//! This crate names no daemon and opens no connection. A backend implements [`ImageBuilder`]; a program fills a
//! [`BuildRequest`], watches [`BuildEvent`]s through an [`EventSink`] and gets a [`BuildOutcome`] or a
//! [`BuildError`] that says who is at fault. Third parties can implement the trait without pulling in gRPC:
//! `examples/third_party.rs` shows one.

mod admin;
mod advice;
mod archive;
mod attest;
mod builder;
mod cache;
mod call;
mod credentials;
mod error;
mod event;
mod frontend;
mod headers;
mod inspect;
pub mod limits;
mod loss;
mod named;
mod obstacle;
mod outcome;
mod output;
mod patience;
mod policy_verifier;
mod request;
mod secret;
mod secret_text;
mod serial;
mod session_exporter;
mod set;
mod sink;
mod snippet;
mod source_policy;
mod ssh;
mod steps;
mod tokens;
mod trace;
mod transfer;

pub use admin::{
    Able, AdminOptions, Administration, BuildkitInfo, CacheCondition, CacheQuery, CacheRecord, Capability,
    Comparison, DaemonInfo, DiskUsage, GcRule, HistoryError, HistoryExport, HistoryExporter, HistoryFilter,
    HistoryRecord, HistoryResult, HistoryState, Pong, PruneOptions, PrunePlan, Pruned, Worker, find_record,
    parse_duration,
};
pub use advice::Advice;
pub use archive::{Archive, ArchiveReader};
pub use attest::{Annotation, AnnotationScope, Attestation, ProvenanceMode};
pub use bk_fsync::policy::{
    ChangePolicy, ContentOptions, DirHashCache, FilePolicies, HashCache, ModePolicy, OwnerMap, OwnerPolicy,
    SyncPolicy,
};
pub use bk_proto::ops::Definition;
pub use builder::{BuilderInfo, ImageBuilder};
pub use cache::Cache;
pub use call::{
    Call, CallAnswer, Check, CheckError, CheckSource, CheckWarning, Outline, OutlineArg, OutlineMount, Place,
    PlaceLine, PlaceRange, TargetStage, Targets,
};
pub use credentials::{
    Credential, CredentialAnswer, CredentialError, CredentialErrorKind, CredentialKind, CredentialProvider,
    CredentialQuery, NoCredentials, OnlyHosts, WithTokens,
};
pub use error::{
    Attempt, BuildError, ConnectError, DaemonTooOld, DockerfileFailure, Fault, InputError, LocalFailure,
    ProtocolFailure, Refusal, StepFailure,
};
pub use event::{
    BuildEvent, CredentialGiven, CredentialUse, LogChunk, LogStream, ProgressGroup, StatusUpdate, Transfer,
    Vertex, VertexId, Warning, WarningKind,
};
pub use frontend::{Entitlement, Frontend};
pub use headers::CallHeaders;
pub use inspect::{Inspect, Inspected, Missing, PlatformImage, Provenance};
pub use loss::{LastSeen, LossKind, SessionLost, Stalled};
pub use named::{NamedContext, OciReference, context_name, is_remote};
pub use obstacle::Obstacle;
pub use outcome::{BuildOutcome, Descriptor, ExportReport, TransferReport};
pub use output::{
    Compression, ImageLoader, Loaded, Output, OutputKind, ResultInfo, ResultStream, Sink, WriterFactory,
};
pub use patience::Patience;
pub use policy_verifier::{PolicyDecision, PolicyGit, PolicyHttp, PolicyImage, PolicySource, PolicyVerifier};
pub use request::{BuildRequest, Context, Dockerfile};
pub use secret::{SecretBytes, SecretError, SecretProvider, SecretSource};
pub use secret_text::SecretText;
pub use serial::{format_time, parse_time};
pub use session_exporter::{BuiltResult, ProgramError, SessionExporter};
pub use set::{BuildSet, SetEnd, SetResult};
pub use sink::{EventReceiver, EventSink};
pub use snippet::{LineRange, SourceSnippet};
pub use source_policy::SourcePolicy;
pub use ssh::{DEFAULT_SSH_ID, SshForward};
pub use steps::{ExtraHost, HostAddress, Network, StepOptions, Ulimit, parse_bytes};
pub use tokens::{Reach, Token, TokenError, TokenExchange, TokenRequest};
pub use trace::TraceContext;
pub use transfer::{AskedFor, SentShare, TransferDetails};
