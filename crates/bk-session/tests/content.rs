//! Layouts as a daemon meets them on the session: what it reads and writes, what it is refused, and what odd or hostile
//! calls come to.

#[path = "support/daemon.rs"]
mod daemon;

use std::{fs, path::Path, sync::Arc};

use bk_build::{
    BuildError, BuildRequest, Cache, Context, Dockerfile, EventSink, NamedContext, NoCredentials, Output,
    Refusal,
};
use bk_proto::{
    content::{
        AbortRequest, DeleteContentRequest, InfoRequest, ListContentRequest, ListStatusesRequest,
        ReadContentRequest, StatusRequest, UpdateRequest, WriteAction, WriteContentRequest,
        WriteContentResponse, content_client::ContentClient,
    },
    headers,
};
use bk_session::{Contents, RunningSession, SessionConfig, Sources, limits};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

use daemon::{Daemon, attach, origin};

type Client = ContentClient<Daemon>;

struct Place {
    session: RunningSession,
    client: Client,
    contents: Contents,
}

async fn place(mut request: BuildRequest) -> Place {
    let contents = Contents::of(&mut request, &EventSink::discard())
        .await
        .expect("layouts");
    let config = SessionConfig::new(Sources::none(), Arc::new(NoCredentials)).contents(contents.clone());
    let (daemon, session) = attach(config).await;
    let client = ContentClient::with_origin(daemon, origin()).max_decoding_message_size(usize::MAX);
    Place {
        session,
        client,
        contents,
    }
}

fn request() -> BuildRequest {
    BuildRequest::new(Context::None).dockerfile(Dockerfile::Inline("FROM scratch".into()))
}

/// A session whose cache `dir` may be written.
async fn cache(dir: &Path) -> (Place, String) {
    let place = place(request().cache_to(Cache::local(dir))).await;
    (place, format!("local:{}", dir.display()))
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

fn to<T>(id: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let id = id.parse().expect("a header value");
    request.metadata_mut().insert(headers::STORE_ID, id);
    request
}

/// A layout that holds one blob, which is its image as well.
fn layout(dir: &Path, blob: &[u8]) -> String {
    let digest = digest(blob);
    fs::create_dir_all(dir.join("blobs/sha256")).expect("a directory");
    fs::write(dir.join("blobs").join(digest.replace(':', "/")), blob).expect("writable");
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{digest}"}}]}}"#);
    fs::write(dir.join("index.json"), index).expect("writable");
    digest
}

/// The id of the only layout that is a context.
fn layout_id(contents: &Contents) -> String {
    let value = &contents.frontend_attrs()["context:base"];
    let id = value.trim_start_matches("oci-layout://").split('@').next();
    format!("oci:{}", id.unwrap_or_default())
}

fn code<T>(result: Result<T, Status>) -> Code {
    result.err().map_or(Code::Ok, |status| status.code())
}

async fn read(
    client: &mut Client,
    id: &str,
    digest: &str,
    offset: i64,
    size: i64,
) -> Result<Vec<u8>, Status> {
    let asked = ReadContentRequest {
        digest: digest.to_owned(),
        offset,
        size,
    };
    let mut pieces = client.read(to(id, asked)).await?.into_inner();
    let mut all = Vec::new();
    while let Some(piece) = pieces.message().await? {
        assert_eq!(piece.offset, offset + all.len() as i64);
        assert!(piece.data.len() <= limits::CONTENT_CHUNK);
        all.extend_from_slice(&piece.data);
    }
    Ok(all)
}

/// A call that writes, one request and one answer at a time.
struct Writing {
    requests: mpsc::Sender<WriteContentRequest>,
    answers: Streaming<WriteContentResponse>,
}

impl Writing {
    async fn open(client: &mut Client, id: &str) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(1);
        let answers = client.write(to(id, ReceiverStream::new(receiver))).await?;
        Ok(Self {
            requests,
            answers: answers.into_inner(),
        })
    }

    async fn step(&mut self, request: WriteContentRequest) -> Result<WriteContentResponse, Status> {
        // A call that has failed takes nothing any more; its answer says why.
        drop(self.requests.send(request).await);
        self.answers
            .message()
            .await?
            .ok_or_else(|| Status::cancelled("it has ended"))
    }
}

fn step(action: WriteAction, reference: &str, offset: i64, data: &[u8]) -> WriteContentRequest {
    WriteContentRequest {
        action: action.into(),
        r#ref: reference.to_owned(),
        offset,
        data: data.to_vec().into(),
        ..WriteContentRequest::default()
    }
}

fn stat(reference: &str, total: usize, expected: &str) -> WriteContentRequest {
    WriteContentRequest {
        total: total as i64,
        expected: expected.to_owned(),
        ..step(WriteAction::Stat, reference, 0, b"")
    }
}

fn commit(total: usize, expected: &str) -> WriteContentRequest {
    WriteContentRequest {
        total: total as i64,
        expected: expected.to_owned(),
        ..step(WriteAction::Commit, "", total as i64, b"")
    }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_are_read_in_any_part() {
    let dir = tempfile::tempdir().expect("a directory");
    let blob = bytes(limits::CONTENT_CHUNK * 2 + 100);
    let name = layout(dir.path(), &blob);
    let base = NamedContext::parse(&format!("oci-layout://{}", dir.path().display())).expect("a context");
    let Place {
        mut client,
        contents,
        session: _session,
    } = place(request().named_context("base", base)).await;
    let id = layout_id(&contents);
    let asked = InfoRequest { digest: name.clone() };
    let info = client
        .info(to(&id, asked))
        .await
        .expect("info")
        .into_inner()
        .info
        .expect("info");
    assert_eq!((&info.digest, info.size), (&name, blob.len() as i64));
    assert!(info.created_at.is_some());
    let end = blob.len() as i64;
    for (offset, size, part) in [
        (0, 0, &blob[..]),
        (0, -1, &blob),
        (5, 32, &blob[5..37]),
        (end - 3, 100, &blob[blob.len() - 3..]),
        (1, i64::MAX, &blob[1..]),
        (end, 10, &[]),
    ] {
        let got = read(&mut client, &id, &name, offset, size).await.expect("bytes");
        assert!(got == part, "{offset} {size}: {}", got.len());
    }
    assert_eq!(
        code(read(&mut client, &id, &name, end + 1, 0).await),
        Code::OutOfRange
    );
    assert_eq!(code(read(&mut client, &id, &name, -1, 0).await), Code::OutOfRange);
    // As daemons read: many calls, each left as soon as there is enough.
    for n in 0..300 {
        let asked = ReadContentRequest {
            digest: name.clone(),
            offset: n * 1000,
            size: 0,
        };
        let mut pieces = client.read(to(&id, asked)).await.expect("a stream").into_inner();
        let piece = pieces.message().await.expect("a piece").expect("a piece");
        assert_eq!(piece.data[..16], blob[n as usize * 1000..][..16]);
    }
    let list = client
        .list(to(&id, ListContentRequest::default()))
        .await
        .expect("a list");
    let first = list
        .into_inner()
        .message()
        .await
        .expect("a list")
        .expect("a list");
    assert_eq!(first.info.len(), 1);
    // It is there to be read only.
    assert_eq!(
        code(Writing::open(&mut client, &id).await),
        Code::PermissionDenied
    );
    let abort = AbortRequest {
        r#ref: "r".to_owned(),
    };
    assert_eq!(code(client.abort(to(&id, abort)).await), Code::PermissionDenied);
    let delete = DeleteContentRequest { digest: name.clone() };
    assert_eq!(code(client.delete(to(&id, delete)).await), Code::PermissionDenied);
    let update = UpdateRequest::default();
    assert_eq!(
        code(client.update(to(&id, update)).await),
        Code::FailedPrecondition
    );
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_are_chosen_by_their_exact_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let (place, id) = cache(&dir.path().join("c")).await;
    let mut client = place.client;
    let info = || InfoRequest { digest: digest(b"") };
    assert_eq!(
        code(client.info(Request::new(info())).await),
        Code::InvalidArgument
    );
    for wrong in [
        "",
        "local:",
        "export",
        "local:/",
        &id[..id.len() - 1],
        "oci:bk-layout-0",
    ] {
        assert_eq!(
            code(client.info(to(wrong, info())).await),
            Code::NotFound,
            "{wrong}"
        );
        assert_eq!(
            code(Writing::open(&mut client, wrong).await),
            Code::NotFound,
            "{wrong}"
        );
    }
    // The right one has nothing yet, and asking makes nothing.
    assert_eq!(code(client.info(to(&id, info())).await), Code::NotFound);
    let status = StatusRequest {
        r#ref: "r".to_owned(),
    };
    assert_eq!(code(client.status(to(&id, status)).await), Code::NotFound);
    let all = client
        .list_statuses(to(&id, ListStatusesRequest::default()))
        .await
        .expect("a list");
    assert!(all.into_inner().statuses.is_empty());
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
    // Without any layout nothing is served.
    let mut none = self::place(request()).await;
    assert_eq!(code(none.client.info(to(&id, info())).await), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_is_written_step_by_step() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut place, id) = cache(dir.path()).await;
    let blob = bytes(3_000_000);
    let name = digest(&blob);
    let mut writing = Writing::open(&mut place.client, &id).await.expect("a call");
    let answer = writing
        .step(stat("layer-1", blob.len(), &name))
        .await
        .expect("an answer");
    assert_eq!(
        (answer.action(), answer.offset, answer.total),
        (WriteAction::Stat, 0, 3_000_000)
    );
    assert!(answer.started_at.is_some() && answer.updated_at.is_some());
    let mut at = 0;
    for piece in blob.chunks(1 << 20) {
        let answer = writing
            .step(step(WriteAction::Write, "", at, piece))
            .await
            .expect("an answer");
        at += piece.len() as i64;
        assert_eq!((answer.action(), answer.offset), (WriteAction::Write, at));
    }
    let status = StatusRequest {
        r#ref: "layer-1".to_owned(),
    };
    let status = place
        .client
        .status(to(&id, status))
        .await
        .expect("a status")
        .into_inner()
        .status
        .expect("a status");
    assert_eq!((&*status.r#ref, status.offset, status.total), ("layer-1", at, at));
    let answer = writing.step(commit(blob.len(), &name)).await.expect("an answer");
    assert_eq!(
        (answer.action(), answer.offset, &answer.digest),
        (WriteAction::Commit, at, &name)
    );
    assert!(
        writing.answers.message().await.expect("no error").is_none(),
        "it ends by itself"
    );
    let path = dir.path().join("blobs").join(name.replace(':', "/"));
    assert!(fs::read(path).expect("a blob") == blob);
    assert_eq!(
        read(&mut place.client, &id, &name, 7, 9).await.expect("bytes"),
        blob[7..16]
    );

    // Whoever comes with it again is told so.
    let mut again = Writing::open(&mut place.client, &id).await.expect("a call");
    assert_eq!(
        code(again.step(stat("layer-1", blob.len(), &name)).await),
        Code::AlreadyExists
    );
    // One that announces another size has another blob, or the one on disk is torn.
    let mut torn = Writing::open(&mut place.client, &id).await.expect("a call");
    assert_eq!(code(torn.step(stat("layer-1", 5, &name)).await), Code::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_goes_on_where_it_was_left() {
    let dir = tempfile::tempdir().expect("a directory");
    let blob = bytes(100_000);
    let name = digest(&blob);
    {
        let (mut place, id) = cache(dir.path()).await;
        let mut writing = Writing::open(&mut place.client, &id).await.expect("a call");
        writing
            .step(stat("r", blob.len(), &name))
            .await
            .expect("an answer");
        writing
            .step(step(WriteAction::Write, "", 0, &blob[..60_000]))
            .await
            .expect("an answer");
        // The daemon closes its half without a commit.
        drop(writing.requests);
        assert!(writing.answers.message().await.expect("no error").is_none());
    }
    let (mut place, id) = cache(dir.path()).await;
    let all = place
        .client
        .list_statuses(to(&id, ListStatusesRequest::default()))
        .await
        .expect("a list");
    assert_eq!(all.into_inner().statuses[0].offset, 60_000);
    let mut writing = Writing::open(&mut place.client, &id).await.expect("a call");
    let answer = writing
        .step(stat("r", blob.len(), &name))
        .await
        .expect("an answer");
    assert_eq!((answer.offset, answer.digest), (60_000, digest(&blob[..60_000])));
    writing
        .step(step(WriteAction::Write, "", 60_000, &blob[60_000..]))
        .await
        .expect("an answer");
    writing.step(commit(blob.len(), &name)).await.expect("a blob");

    // An upload that is thrown away begins again.
    let mut writing = Writing::open(&mut place.client, &id).await.expect("a call");
    writing
        .step(step(WriteAction::Write, "other", 0, b"abc"))
        .await
        .expect("an answer");
    let abort = || AbortRequest {
        r#ref: "other".to_owned(),
    };
    assert_eq!(
        code(place.client.abort(to(&id, abort())).await),
        Code::Unavailable
    );
    drop(writing.requests);
    assert!(writing.answers.message().await.expect("no error").is_none());
    place.client.abort(to(&id, abort())).await.expect("gone");
    assert_eq!(code(place.client.abort(to(&id, abort())).await), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_do_not_get_into_each_others_way() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut place, id) = cache(dir.path()).await;
    let mut first = Writing::open(&mut place.client, &id).await.expect("a call");
    first.step(stat("same", 0, "")).await.expect("an answer");
    let mut second = Writing::open(&mut place.client, &id).await.expect("a call");
    assert_eq!(code(second.step(stat("same", 0, "")).await), Code::Unavailable);
    first
        .step(step(WriteAction::Write, "", 0, b"abc"))
        .await
        .expect("an answer");
    first.step(commit(3, &digest(b"abc"))).await.expect("a blob");
    let mut others = Vec::new();
    for n in 0..20 {
        let mut client = place.client.clone();
        let id = id.clone();
        others.push(tokio::spawn(async move {
            let blob = bytes(50_000 + n);
            let mut writing = Writing::open(&mut client, &id).await.expect("a call");
            writing
                .step(stat(&format!("r{n}"), blob.len(), ""))
                .await
                .expect("an answer");
            for (at, piece) in blob.chunks(7000).enumerate() {
                let at = (at * 7000) as i64;
                writing
                    .step(step(WriteAction::Write, "", at, piece))
                    .await
                    .expect("an answer");
            }
            let answer = writing.step(commit(blob.len(), "")).await.expect("a blob");
            assert_eq!(answer.digest, digest(&blob));
        }));
    }
    for other in others {
        other.await.expect("a blob");
    }
    assert_eq!(
        fs::read_dir(dir.path().join("blobs/sha256"))
            .expect("readable")
            .count(),
        21
    );
    assert_eq!(
        fs::read_dir(dir.path().join("ingest")).expect("readable").count(),
        0
    );
    // There is an end to uploads at once.
    let mut open = Vec::new();
    for n in 0..limits::MAX_INGESTS {
        let mut writing = Writing::open(&mut place.client, &id).await.expect("a call");
        writing
            .step(stat(&format!("r{n}"), 0, ""))
            .await
            .expect("an answer");
        open.push(writing);
    }
    assert_eq!(
        code(Writing::open(&mut place.client, &id).await),
        Code::Unavailable
    );
    open.pop();
    let again = async {
        while Writing::open(&mut place.client, &id).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), again)
        .await
        .expect("room again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_steps_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut place, id) = cache(dir.path()).await;
    let long = "r".repeat(limits::MAX_INGEST_REF + 1);
    for (message, expected) in [
        (stat("", 0, ""), Code::InvalidArgument),
        (stat(&long, 0, ""), Code::InvalidArgument),
        (stat("r", 0, "sha256:../../../etc/passwd"), Code::InvalidArgument),
        (
            stat("r", 0, "md5:d41d8cd98f00b204e9800998ecf8427e"),
            Code::InvalidArgument,
        ),
        (
            WriteContentRequest {
                total: -1,
                ..stat("r", 0, "")
            },
            Code::InvalidArgument,
        ),
        (
            WriteContentRequest {
                action: 7,
                ..stat("r", 0, "")
            },
            Code::InvalidArgument,
        ),
        (step(WriteAction::Write, "r", -1, b"x"), Code::InvalidArgument),
        (step(WriteAction::Write, "r", 5, b"x"), Code::OutOfRange),
        (
            WriteContentRequest {
                total: 2,
                ..step(WriteAction::Write, "r", 0, b"xyz")
            },
            Code::OutOfRange,
        ),
        (commit(5, ""), Code::InvalidArgument),
        (
            WriteContentRequest {
                r#ref: "r".to_owned(),
                offset: 0,
                ..commit(5, "")
            },
            Code::FailedPrecondition,
        ),
    ] {
        let text = format!("{message:?}");
        let mut writing = Writing::open(&mut place.client, &id).await.expect("a call");
        assert_eq!(code(writing.step(message).await), expected, "{text}");
    }
    // What does not have its digest is no blob, and does not stay.
    let mut writing = Writing::open(&mut place.client, &id).await.expect("a call");
    writing
        .step(stat("r", 3, &digest(b"abc")))
        .await
        .expect("an answer");
    writing
        .step(step(WriteAction::Write, "", 0, b"abd"))
        .await
        .expect("an answer");
    assert_eq!(
        code(writing.step(commit(3, &digest(b"abc"))).await),
        Code::FailedPrecondition
    );
    drop(writing);
    // Names of uploads are no paths.
    for name in ["../../up", "/etc/cron.d/x", "a/b", ".", "\u{0}", "data"] {
        let mut writing = Writing::open(&mut place.client, &id).await.expect("a call");
        writing
            .step(step(WriteAction::Write, name, 0, b"abc"))
            .await
            .expect("an answer");
        drop(writing.requests);
        assert!(writing.answers.message().await.expect("no error").is_none());
    }
    let names: Vec<_> = fs::read_dir(dir.path().join("ingest"))
        .expect("readable")
        .map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    assert!(
        names.len() == 6 && names.iter().all(|n| n.len() == 64),
        "{names:?}"
    );
    assert!(!dir.path().join("blobs").exists());
    assert!(!dir.path().parent().expect("a parent").join("up").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_disk_does_is_said_to_the_user_and_not_to_the_daemon() {
    let dir = tempfile::tempdir().expect("a directory");
    let refusal = || BuildError::Refused(Refusal::new(9, "the daemon says something"));
    // Where the uploads of a layout should be there is a file.
    let odd = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir(&path).expect("a directory");
        fs::write(path.join("ingest"), "").expect("writable");
        path
    };
    let (result, kept) = (odd("result"), odd("kept"));
    let asked = request()
        .output(Output::oci_layout(&result))
        .cache_to(Cache::local(&kept));
    let mut place = place(asked).await;
    let id = format!("local:{}", kept.display());
    for (id, vital) in [(&*id, false), ("export", true)] {
        let mut writing = Writing::open(&mut place.client, id).await.expect("a call");
        let status = writing.step(stat("r", 0, "")).await.expect_err("no place");
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(
            !status.message().contains(&*dir.path().to_string_lossy()),
            "{status}"
        );
        let error = place.session.failures().explain(refusal());
        match (vital, &error) {
            (true, BuildError::Local(failure)) => assert_eq!(failure.path, result),
            (false, BuildError::Refused(_)) => {}
            _ => panic!("{id}: {error:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_a_build_lacks_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    layout(dir.path(), b"{}");
    let base = NamedContext::parse(&format!("oci-layout://{}", dir.path().display())).expect("a context");
    let mut place = place(request().named_context("base", base)).await;
    let id = layout_id(&place.contents);
    let name = digest(b"a layer");
    assert_eq!(
        code(read(&mut place.client, &id, &name, 0, 0).await),
        Code::NotFound
    );
    let failures = place.session.failures();
    let other = BuildError::Refused(Refusal::new(2, "something else"));
    assert!(matches!(failures.explain(other), BuildError::Refused(_)));
    let about = BuildError::Refused(Refusal::new(5, format!("there is no blob {name}")));
    let BuildError::Local(failure) = failures.explain(about) else {
        panic!("this machine lacks it");
    };
    assert_eq!(failure.path, dir.path());
    assert!(
        failure.message.contains(&name) && failure.hint.is_some(),
        "{failure:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_dropped_leaves_nothing_of_a_result() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("a/out");
    let mut place = place(request().output(Output::oci_layout(&out))).await;
    let mut writing = Writing::open(&mut place.client, "export").await.expect("a call");
    writing
        .step(step(WriteAction::Write, "a", 0, b"abc"))
        .await
        .expect("an answer");
    writing.step(commit(3, "")).await.expect("a blob");
    let mut half = Writing::open(&mut place.client, "export").await.expect("a call");
    half.step(step(WriteAction::Write, "b", 0, b"half"))
        .await
        .expect("an answer");
    assert!(out.join("ingest").exists());
    drop(place);
    let gone = async {
        while dir.path().join("a").exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), gone)
        .await
        .expect("it goes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_is_abandoned_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("out");
    let mut place = place(request().output(Output::oci_layout(&out))).await;
    let mut writing = Writing::open(&mut place.client, "export").await.expect("a call");
    writing
        .step(step(WriteAction::Write, "a", 0, b"abc"))
        .await
        .expect("an answer");
    writing.step(commit(3, "")).await.expect("a blob");
    let mut half = Writing::open(&mut place.client, "export").await.expect("a call");
    half.step(step(WriteAction::Write, "b", 0, b"half"))
        .await
        .expect("an answer");
    assert!(out.join("blobs/sha256").exists());
    place.session.close(limits::CLOSE_GRACE).await;
    place.contents.abandon().await;
    drop(place.contents);
    assert!(
        !out.exists(),
        "{:?}",
        fs::read_dir(&out).map(|d| d.collect::<Vec<_>>())
    );
}
