//! What real daemons tell of a build that has succeeded: provenance from their history, and the image of each platform.

use bk_client::{
    Attestation, BuildOutcome, BuildRequest, ImageBuilder, Inspect, Missing, Output, ProvenanceMode,
};
use bk_testkit::{
    conformance::fresh_token,
    events::{Recorder, chain},
    fixture::TreeBuilder,
    live::{Daemon, Engine, Route, Target},
};

use crate::{Connected, LIMIT, bounded, connect};

const PROVENANCE: &str = "Provenance of a build (`BuildOutcome::inspected`)";
const IMAGES: &str = "Manifests and configurations by platform (`BuildOutcome::inspected`)";

async fn built(at: &Connected, what: &str, request: BuildRequest) -> BuildOutcome {
    let inspect = Inspect::new().provenance(true).images(true);
    let build = at.client.build(request.inspect(inspect), Recorder::new().sink());
    let built = bounded("the build", LIMIT, build).await;
    built.unwrap_or_else(|e| panic!("{what}: {}", chain(&e)))
}

async fn inspected(daemon: Daemon, route: Route) {
    const TEST: &str = "inspected";
    let Some(target) = Target::find(daemon, route, TEST) else {
        return;
    };
    let _turn = target.turn().await;
    let at = connect(&target).await;
    let name = target.name();
    let tree = TreeBuilder::new()
        .file("Dockerfile", "FROM scratch\nCOPY a /\n")
        .file("a", fresh_token())
        .build()
        .expect("fixture");
    let tag = format!("bk-inspected-{}", name.replace(['/', '.'], "-").to_lowercase());
    let request = || BuildRequest::new(tree.path()).tag(&*tag);
    let one = built(&at, &name, request()).await;
    let engine = Engine::connect(&target.docker).await.expect("the engine behind");
    let why = |what| {
        let found = one.inspected.missing.iter().find(|m| m.what == what);
        found.map(|m| m.why.clone())
    };
    if route == Route::Build || route == Route::Tar {
        assert_eq!(one.inspected.missing.len(), 2, "{name}");
        target.refuses(PROVENANCE, &why(Missing::PROVENANCE).expect("missing"));
        target.refuses(IMAGES, &why(Missing::IMAGES).expect("missing"));
        engine.remove_image(&tag).await.expect("removable");
        target.passed(TEST);
        return;
    }
    match why(Missing::PROVENANCE) {
        Some(why) => {
            assert!(
                daemon == Daemon::Docker20_10 && why.contains("BuildKit 0.11"),
                "{name}: {why}"
            );
            target.refuses(PROVENANCE, &why);
        }
        None => {
            let document = &one.inspected.provenance[""];
            assert!(
                document
                    .predicate_type
                    .starts_with("https://slsa.dev/provenance/"),
                "{name}"
            );
            let whole = document.object().expect("an object");
            let kept = document.minimal().expect("an object");
            assert!(
                whole.contains_key("metadata") && !kept.contains_key("metadata"),
                "{name}: {whole:?}"
            );
            assert!(
                document.json.contains("dockerfile.v0"),
                "{name}: {}",
                document.json
            );
            target.supports(PROVENANCE);
        }
    }
    let [image] = &one.inspected.images[..] else {
        panic!("{name}: {:?}", one.inspected)
    };
    let manifests = matches!(daemon, Daemon::Docker28_5Containerd | Daemon::BuildkitUnix);
    assert_eq!(image.manifest.is_some(), manifests, "{name}: {image:?}");
    assert_eq!(
        image.manifest.as_ref().map(|m| m.digest.clone()),
        one.digest,
        "{name}"
    );
    let config = image.config.clone();
    assert!(config.is_some(), "{name}");
    assert_eq!(
        config,
        one.config_digest.clone().or(one.image_id.clone()),
        "{name}"
    );
    if manifests {
        let several = request()
            .platform("linux/amd64")
            .platform("linux/arm64")
            .attest(Attestation::provenance(ProvenanceMode::Min))
            .output(Output::image());
        let several = built(&at, &name, several).await;
        let said = &several.inspected;
        assert!(said.missing.is_empty(), "{name}: {:?}", said.missing);
        let platforms: Vec<_> = said.images.iter().filter_map(|i| i.platform.as_deref()).collect();
        assert_eq!(platforms, ["linux/amd64", "linux/arm64"], "{name}");
        assert!(
            said.images
                .iter()
                .all(|i| i.config.is_some() && i.attestations.len() == 1),
            "{name}: {said:?}"
        );
        // The same input is the same image, however many are made.
        assert_eq!(said.images[0].config, config, "{name}");
        let documents: Vec<_> = said.provenance.keys().map(String::as_str).collect();
        assert_eq!(documents, platforms, "{name}");
        assert!(several.descriptor.expect("said").is_index(), "{name}");
        target.supports("Provenance beside the image (`--provenance`)");
    }
    target.supports(IMAGES);
    engine.remove_image(&tag).await.expect("removable");
    target.passed(TEST);
}

macro_rules! tests {
    ($($test:ident => $daemon:ident, $route:ident;)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            Box::pin(inspected(Daemon::$daemon, Route::$route)).await;
        })+
    };
}

tests! {
    build_docker_26_1 => Docker26_1, Build;
    direct_buildkit_unix => BuildkitUnix, Direct;
    grpc_docker_20_10 => Docker20_10, Grpc;
    grpc_docker_26_1 => Docker26_1, Grpc;
    grpc_docker_28_5_containerd => Docker28_5Containerd, Grpc;
    h2c_docker_28_5 => Docker28_5, H2c;
    tar_docker_28_5 => Docker28_5, Tar;
}
