//! The outputs of a request as the daemon's exporters, and what their answers mean.
//!
//! The rule: the exporter's place in the request to the daemon is its id on the session, so both are made from one list.

use std::collections::BTreeMap;

use bk_build::{BuildOutcome, BuildRequest, Descriptor, Output, OutputKind, Sink};
use bk_proto::control::Exporter;

use crate::{ImageExporter, described::descriptor};

/// One exporter, and what becomes of its bytes.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// Which of the request's outputs it is.
    pub output: usize,
    /// What the daemon is told.
    pub exporter: Exporter,
    /// Where the bytes go.
    pub sink: Sink,
}

/// The exporters of a request, in the order in which the daemon is told of them: images in its own store last.
///
/// Inside Docker Engine an image that is to be loaded is in the engine anyway: it becomes one in the daemon's store, or
/// nothing when there is one already. One that is pushed by digest alone gets no name there, which only the exporter of a
/// standalone buildkitd can do; engines with the containerd store have that as well.
pub fn exporters(request: &BuildRequest, image: ImageExporter) -> Vec<Lowered> {
    lowered(request.effective_outputs(), &request.tags, image)
}

/// The exporters of outputs, each with its number; images without names get `tags`.
pub(crate) fn lowered(outputs: Vec<(usize, Output)>, tags: &[String], image: ImageExporter) -> Vec<Lowered> {
    let has_image = outputs.iter().any(|(_, o)| o.kind == OutputKind::Image);
    let mut all = Vec::new();
    for (output, mut asked) in outputs {
        if image == ImageExporter::Moby && is_plain_load(&asked) {
            if has_image {
                continue;
            }
            asked.kind = OutputKind::Image;
            asked.sink = Sink::Daemon;
        }
        let kind = match asked.kind {
            OutputKind::Image if asked.is_push_by_digest() => ImageExporter::Image.name(),
            OutputKind::Image => image.name(),
            kind => kind.name(),
        };
        all.push(Lowered {
            output,
            exporter: Exporter {
                r#type: kind.to_owned(),
                attrs: attrs(tags, &asked),
            },
            sink: asked.sink,
        });
    }
    // Of several images the daemon names the last one only, and the one in its own store has the id that people use.
    all.sort_by_key(|l| matches!(l.sink, Sink::Daemon));
    all
}

fn is_plain_load(output: &Output) -> bool {
    output.kind == OutputKind::Docker && matches!(output.sink, Sink::Engine(None))
}

fn attrs(tags: &[String], output: &Output) -> BTreeMap<String, String> {
    let mut attrs = output.attrs.clone();
    if output.kind.is_image() && !tags.is_empty() {
        attrs.insert("name".to_owned(), tags.join(","));
    }
    if let Sink::Dir { options, .. } = &output.sink
        && options.mode == bk_fsync::receive::ReceiveMode::Delete
    {
        attrs.insert("mode".to_owned(), "delete".to_owned());
    }
    attrs
}

/// Keys of the exporters' answer.
const DIGEST: &str = "containerimage.digest";
const CONFIG_DIGEST: &str = "containerimage.config.digest";
const DESCRIPTOR: &str = "containerimage.descriptor";
const CACHE_MANIFEST: &str = "cache.manifest";
const NAME: &str = "image.name";

/// What the exporters' answer means for a request.
pub fn outcome(
    response: BTreeMap<String, String>,
    request: &BuildRequest,
    exporter: ImageExporter,
) -> BuildOutcome {
    let mut outcome = BuildOutcome::default();
    let digest = response.get(DIGEST).cloned();
    let config = response.get(CONFIG_DIGEST).cloned();
    let images: Vec<_> = request
        .effective_outputs()
        .into_iter()
        .filter(|(_, o)| o.kind.is_image())
        .collect();
    if !images.is_empty() {
        let in_engine = exporter == ImageExporter::Moby
            && images
                .iter()
                .any(|(_, o)| o.kind == OutputKind::Image || is_plain_load(o));
        outcome.image_id = if in_engine {
            // The image id on graph drivers, the manifest digest (which is the id there) on containerd.
            digest.clone().or_else(|| config.clone())
        } else {
            config.clone().or_else(|| digest.clone())
        };
    }
    // On graph drivers Docker's `containerimage.digest` is the image id, not a manifest's digest: it then stands alone
    // or repeats the config digest.
    outcome.descriptor = response.get(DESCRIPTOR).and_then(|text| encoded(text));
    outcome.digest = digest.filter(|d| {
        exporter == ImageExporter::Image
            || outcome.descriptor.is_some()
            || config.as_ref().is_some_and(|c| c != d)
    });
    outcome.config_digest = config;
    outcome.cache_manifest = response
        .get(CACHE_MANIFEST)
        .and_then(|text| descriptor(text.as_bytes()));
    outcome.names = response
        .get(NAME)
        .map(|names| {
            names
                .split(',')
                .filter(|n| !n.is_empty())
                .map(str::to_owned)
                .collect()
        })
        .unwrap_or_default();
    outcome.exporter_response = response;
    outcome
}

/// A descriptor in base64.
fn encoded(text: &str) -> Option<Descriptor> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.decode(text).ok().and_then(|json| descriptor(&json))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(request: &BuildRequest, image: ImageExporter) -> Vec<(usize, String)> {
        exporters(request, image)
            .into_iter()
            .map(|l| {
                (
                    l.output,
                    format!("{} {:?} {:?}", l.exporter.r#type, l.exporter.attrs, l.sink),
                )
            })
            .collect()
    }

    #[test]
    fn outputs_keep_their_numbers_and_the_image_of_the_store_is_last() {
        let request = BuildRequest::new(".")
            .tag("a:1")
            .output(Output::cache_only())
            .output(Output::registry())
            .output(Output::local("out"))
            .output(Output::oci("f").names(["b"]));
        let lowered = exporters(&request, ImageExporter::Image);
        let said: Vec<_> = lowered
            .iter()
            .map(|l| (l.output, l.exporter.r#type.as_str(), l.exporter.attrs.clone()))
            .collect();
        let attrs = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        assert_eq!(
            said,
            [
                (2, "local", attrs(&[])),
                (3, "oci", attrs(&[("name", "a:1")])),
                (1, "image", attrs(&[("name", "a:1"), ("push", "true")])),
            ]
        );
        assert!(
            exporters(
                &BuildRequest::new(".").output(Output::cache_only()),
                ImageExporter::Image
            )
            .is_empty()
        );
    }

    #[test]
    fn nothing_here_is_told_to_the_daemon() {
        let mut options = bk_fsync::ReceiveOptions::new();
        options.mode = bk_fsync::receive::ReceiveMode::Delete;
        let request = BuildRequest::new(".").output(Output::local_with("/secret/place", options));
        let lowered = exporters(&request, ImageExporter::Moby);
        assert_eq!(
            lowered[0].exporter.attrs,
            [("mode".to_owned(), "delete".to_owned())].into()
        );
    }

    #[test]
    fn loading_into_the_engine_that_builds_is_no_transfer() {
        let load = BuildRequest::new(".").tag("a").output(Output::load());
        assert_eq!(
            said(&load, ImageExporter::Moby),
            [(0, r#"moby {"name": "a"} Daemon"#.to_owned())]
        );
        assert_eq!(
            said(&load, ImageExporter::Image),
            [(0, r#"docker {"name": "a"} Engine(..)"#.to_owned())]
        );
        let both = load.output(Output::registry());
        assert_eq!(
            said(&both, ImageExporter::Moby),
            [(1, r#"moby {"name": "a", "push": "true"} Daemon"#.to_owned())]
        );
        assert_eq!(exporters(&both, ImageExporter::Image).len(), 2);
    }

    #[test]
    fn what_is_pushed_by_digest_gets_no_name_in_the_engine() {
        let by_digest = |yes| {
            let output = Output::registry().names(["h/a"]).push_by_digest(yes);
            said(&BuildRequest::new(".").output(output), ImageExporter::Moby)
                .remove(0)
                .1
        };
        assert!(by_digest(true).starts_with("image {"), "{}", by_digest(true));
        assert!(by_digest(false).starts_with("moby {"), "{}", by_digest(false));
    }

    fn answer(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn an_answer_is_read() {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let json = r#"{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:1","size":855,
            "annotations":{"k":"v"},"platform":{"architecture":"arm","os":"linux","variant":"v7"}}"#;
        let response = answer(&[
            (DIGEST, "sha256:1"),
            (DESCRIPTOR, &STANDARD.encode(json)),
            (NAME, "a:1,b"),
            (
                CACHE_MANIFEST,
                r#"{"mediaType":"m","digest":"sha256:2","size":1}"#,
            ),
        ]);
        let request = BuildRequest::new(".");
        for exporter in [ImageExporter::Moby, ImageExporter::Image] {
            let outcome = outcome(response.clone(), &request, exporter);
            assert_eq!(outcome.image_id.as_deref(), Some("sha256:1"));
            assert_eq!(outcome.digest.as_deref(), Some("sha256:1"));
            assert_eq!(outcome.names, ["a:1", "b"]);
            let found = outcome.descriptor.expect("a descriptor");
            assert!(found.is_index() && found.size == 855 && found.annotations["k"] == "v");
            assert_eq!(found.platform.as_deref(), Some("linux/arm/v7"));
            assert_eq!(outcome.cache_manifest, Some(Descriptor::new("m", "sha256:2", 1)));
        }
    }

    #[test]
    fn graph_drivers_name_no_manifest() {
        let request = BuildRequest::new(".");
        let alone = outcome(answer(&[(DIGEST, "sha256:1")]), &request, ImageExporter::Moby);
        assert_eq!(
            (alone.image_id.as_deref(), alone.digest),
            (Some("sha256:1"), None)
        );
        let same = answer(&[(DIGEST, "sha256:1"), (CONFIG_DIGEST, "sha256:1")]);
        let same = outcome(same, &request, ImageExporter::Moby);
        assert_eq!(same.digest, None);
        // An archive's image is named by its config, wherever it was made.
        let archive = BuildRequest::new(".").output(Output::oci("f"));
        let both = answer(&[(DIGEST, "sha256:1"), (CONFIG_DIGEST, "sha256:2")]);
        let both = outcome(both, &archive, ImageExporter::Moby);
        assert_eq!(both.image_id.as_deref(), Some("sha256:2"));
        // Files have no id, and odd answers do no harm.
        let files = BuildRequest::new(".").output(Output::local("d"));
        let odd = outcome(
            answer(&[(DESCRIPTOR, "%"), (CACHE_MANIFEST, "{")]),
            &files,
            ImageExporter::Image,
        );
        assert_eq!(
            (odd.image_id, odd.descriptor, odd.cache_manifest),
            (None, None, None)
        );
    }
}
