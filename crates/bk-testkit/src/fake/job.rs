//! Builds that run, and what they tell through `Status`.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use bk_proto::control::{StatusResponse, Vertex, VertexLog, VertexStatus};
use bytes::Bytes;
use tokio::sync::Notify;

use super::{State, locked};
use crate::snapshot::ContentDigest;

/// Every build by its reference, also those that ended: `Status` may come late.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    by_ref: Mutex<HashMap<String, Arc<Job>>>,
}

impl Jobs {
    pub(crate) fn running(&self) -> usize {
        locked(&self.by_ref).values().filter(|job| !job.is_done()).count()
    }

    pub(crate) fn get(&self, reference: &str) -> Option<Arc<Job>> {
        locked(&self.by_ref).get(reference).cloned()
    }
}

/// One build. Its messages are kept, so that every follower sees all of them.
#[derive(Debug, Default)]
pub(crate) struct Job {
    messages: Mutex<Vec<StatusResponse>>,
    done: AtomicBool,
    changed: Notify,
}

impl Job {
    fn is_done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }

    pub(crate) fn tell(&self, message: StatusResponse) {
        locked(&self.messages).push(message);
        self.changed.notify_waiters();
    }

    /// The messages from number `from` on, waiting for more; `None` when there will be none.
    pub(crate) async fn messages(&self, from: usize) -> Option<Vec<StatusResponse>> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            // Read before the messages: one that is told before the end is never lost.
            let done = self.is_done();
            let new: Vec<_> = locked(&self.messages).iter().skip(from).cloned().collect();
            if !new.is_empty() {
                return Some(new);
            }
            if done {
                return None;
            }
            changed.await;
        }
    }
}

/// Marks the build as ended however its future ends: done, failed or dropped.
pub(crate) struct RunningJob {
    pub(crate) job: Arc<Job>,
    state: Arc<State>,
}

impl RunningJob {
    /// Registers a build; `None` when the reference is taken.
    pub(crate) fn begin(state: &Arc<State>, reference: &str) -> Option<Self> {
        let job = Arc::new(Job::default());
        let mut jobs = locked(&state.jobs.by_ref);
        if jobs.contains_key(reference) {
            return None;
        }
        jobs.insert(reference.to_owned(), Arc::clone(&job));
        drop(jobs);
        state.changed.notify_waiters();
        Some(Self {
            job,
            state: Arc::clone(state),
        })
    }
}

impl Drop for RunningJob {
    fn drop(&mut self) {
        self.job.done.store(true, Ordering::SeqCst);
        self.job.changed.notify_waiters();
        self.state.changed.notify_waiters();
    }
}

/// One step as it is told.
pub(crate) struct Step<'a> {
    job: &'a Job,
    vertex: Vertex,
}

impl<'a> Step<'a> {
    /// Announces a step and starts it.
    pub(crate) fn start(job: &'a Job, name: &str, inputs: Vec<String>) -> Self {
        let number = locked(&job.messages).len();
        let digest = ContentDigest::of(format!("{number} {name}").as_bytes());
        let hex: String = digest.0.iter().map(|b| format!("{b:02x}")).collect();
        let vertex = Vertex {
            digest: format!("sha256:{hex}"),
            name: name.to_owned(),
            inputs,
            ..Vertex::default()
        };
        job.tell(StatusResponse {
            vertexes: vec![vertex.clone()],
            ..StatusResponse::default()
        });
        let vertex = Vertex {
            started: Some(SystemTime::now().into()),
            ..vertex
        };
        job.tell(StatusResponse {
            vertexes: vec![vertex.clone()],
            ..StatusResponse::default()
        });
        Self { job, vertex }
    }

    pub(crate) fn digest(&self) -> &str {
        &self.vertex.digest
    }

    /// Output of the step; 1 is standard output, 2 standard error.
    pub(crate) fn log(&self, stream: i64, text: &[u8]) {
        let log = VertexLog {
            vertex: self.vertex.digest.clone(),
            timestamp: Some(SystemTime::now().into()),
            stream,
            msg: Bytes::copy_from_slice(text),
        };
        self.job.tell(StatusResponse {
            logs: vec![log],
            ..StatusResponse::default()
        });
    }

    /// A reading inside the step.
    pub(crate) fn status(&self, id: &str, current: u64, total: u64, done: bool) {
        let now = Some(SystemTime::now().into());
        let status = VertexStatus {
            id: id.to_owned(),
            vertex: self.vertex.digest.clone(),
            name: String::new(),
            current: i64::try_from(current).unwrap_or(i64::MAX),
            total: i64::try_from(total).unwrap_or(i64::MAX),
            timestamp: now,
            started: self.vertex.started,
            completed: if done { now } else { None },
        };
        self.job.tell(StatusResponse {
            statuses: vec![status],
            ..StatusResponse::default()
        });
    }

    /// Ends the step, with the text of its error if it failed.
    pub(crate) fn end(mut self, error: &str) -> String {
        self.vertex.completed = Some(SystemTime::now().into());
        self.vertex.error = error.to_owned();
        self.job.tell(StatusResponse {
            vertexes: vec![self.vertex.clone()],
            ..StatusResponse::default()
        });
        self.vertex.digest
    }
}
