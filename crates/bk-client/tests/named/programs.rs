//! What programs decide during a build, on the endpoint that was named: about sources, and about outputs.
//!
//! Whether the daemon is new enough is not known before: it does it, or it is refused by name.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bk_client::{
    BuildError, BuildRequest, BuiltResult, Client, ImageBuilder, Output, PolicyDecision, PolicySource,
    PolicyVerifier, ProgramError, SessionExporter,
};
use bk_testkit::{
    events::{Recorder, chain},
    fixture::{Tree, TreeBuilder},
    live::Support,
};
use tempfile::TempDir;

use crate::BoxError;

const REASON: &str = "only what was reviewed may be used";

/// Lets everything pass but one source, and remembers what it was asked about.
struct Reviewer {
    denied: &'static str,
    asked: Mutex<Vec<String>>,
}

impl Reviewer {
    fn new(denied: &'static str) -> Arc<Self> {
        Arc::new(Self {
            denied,
            asked: Mutex::default(),
        })
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

#[async_trait]
impl PolicyVerifier for Reviewer {
    async fn check(&self, source: &PolicySource) -> Result<PolicyDecision, ProgramError> {
        self.asked
            .lock()
            .expect("no panic")
            .push(source.identifier.clone());
        Ok(match source.identifier == self.denied {
            true => PolicyDecision::deny(REASON),
            false => PolicyDecision::Allow,
        })
    }
}

fn context() -> Result<Tree, BoxError> {
    Ok(TreeBuilder::new()
        .file("Dockerfile", "FROM scratch\nCOPY file /\n")
        .file("file", bk_testkit::conformance::fresh_token())
        .build()?)
}

async fn build(client: &Client, request: BuildRequest) -> Result<(), BuildError> {
    client.build(request, Recorder::new().sink()).await.map(drop)
}

/// Each source is asked about, and one that is denied fails the build with the reason.
pub(crate) async fn policy_verifier(client: &Client) -> Result<Support, BoxError> {
    let (tree, place) = (context()?, tempfile::tempdir()?);
    let attempt = async |reviewer: &Arc<Reviewer>| {
        let output = Output::tar(place.path().join("out"));
        let request = BuildRequest::new(tree.path()).output(output);
        build(client, request.policy_verifier(reviewer.clone())).await
    };
    let lenient = Reviewer::new("");
    match attempt(&lenient).await {
        Err(BuildError::TooOld(why)) => return Ok(Support::Refused(why.to_string())),
        answer => answer?,
    }
    let asked = lenient.asked();
    if !asked.iter().any(|source| source == "local://context") {
        return Err(format!("it was asked about {asked:?} only").into());
    }
    match attempt(&Reviewer::new("local://context")).await {
        Ok(()) => Err("a source that was denied was used".into()),
        Err(error) if chain(&error).contains(REASON) => Ok(Support::Yes),
        Err(error) => Err(format!("the reason is lost: {}", chain(&error)).into()),
    }
}

/// Adds an archive, and keeps what exporters answered.
struct Adding {
    place: PathBuf,
    answer: Mutex<Option<BTreeMap<String, String>>>,
}

#[async_trait]
impl SessionExporter for Adding {
    async fn find(&self, _: &BuiltResult) -> Result<Vec<Output>, ProgramError> {
        Ok(vec![Output::oci(self.place.join("archive"))])
    }

    async fn finalize(&self, answer: &BTreeMap<String, String>) -> Result<(), ProgramError> {
        *self.answer.lock().expect("no panic") = Some(answer.clone());
        Ok(())
    }
}

/// An output that a program adds is made, and a daemon that tells what came of it tells the same digest as the archive.
pub(crate) async fn session_exporter(client: &Client) -> Result<Support, BoxError> {
    let (tree, place): (_, TempDir) = (context()?, tempfile::tempdir()?);
    let adding = Arc::new(Adding {
        place: place.path().to_owned(),
        answer: Mutex::default(),
    });
    let request = BuildRequest::new(tree.path()).output(Output::cache_only());
    match build(client, request.session_exporter(adding.clone())).await {
        Err(error @ (BuildError::TooOld(_) | BuildError::Input(_) | BuildError::Refused(_))) => {
            return Ok(Support::Refused(error.to_string()));
        }
        answer => answer?,
    }
    let index = index(&place.path().join("archive"))?;
    let answer = adding.answer.lock().expect("no panic").take();
    match answer {
        None => Ok(Support::But(
            "what came of it is not told (BuildKit 0.32)".to_owned(),
        )),
        Some(answer) => match answer.get("containerimage.digest") {
            Some(digest) if index.contains(digest) => Ok(Support::Yes),
            _ => Err(format!("the answer {answer:?} is not of the index {index}").into()),
        },
    }
}

fn index(archive: &std::path::Path) -> Result<String, BoxError> {
    let mut archive = tar::Archive::new(std::fs::File::open(archive)?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path()?.as_os_str() == "index.json" {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut entry, &mut text)?;
            return Ok(text);
        }
    }
    Err("the archive has no index.json".into())
}
