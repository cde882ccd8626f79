//! The engine's own API as administration, with a scripted engine.

use std::sync::Arc;

use bk_build::{ImageBuilder, NoCredentials};

use super::*;
use crate::testing::{Engine, Reply};

const LIST: &str = r#"{"LayersSize":0,"BuildCache":[
    {"ID":"a","Parent":"","Type":"regular","Description":"one","InUse":false,"Shared":false,"Size":10,
     "CreatedAt":"2024-01-02T03:04:05.5+01:00","LastUsedAt":null,"UsageCount":2,"New":{"x":1}},
    {"ID":"b","Parent":"a","Type":"source.local","Size":300,"InUse":true},
    {"ID":"c","Parents":["a","b"],"Type":"internal","Size":-4,"Shared":true}]}"#;

fn engine(version: &'static str, api: &'static str) -> Engine {
    Engine::of_version(version, api, "linux", |line| match line {
        l if l.contains("/system/df") => Reply::http("200 OK", "", LIST),
        l if l.contains("/build/prune") => {
            Reply::http("200 OK", "", r#"{"CachesDeleted":["a","z"],"SpaceReclaimed":10}"#)
        }
        l if l.contains("/info") => Reply::http(
            "200 OK",
            "",
            r#"{"Name":"h","NCPU":2,"OperatingSystem":"","Driver":"overlay2"}"#,
        ),
        _ => Reply::http("404 Not Found", "", r#"{"message":"page not found"}"#),
    })
}

async fn admin(engine: &Engine) -> Arc<dyn Administration> {
    let backend = DockerBackend::connect(&engine.address(), DockerRoute::Tar, Arc::new(NoCredentials)).await;
    backend
        .expect("connects")
        .administration(bk_build::AdminOptions::new())
        .expect("an administration")
}

#[tokio::test]
async fn the_list_of_the_engine_is_that_of_the_cache() {
    let engine = engine("20.10.24", "1.41");
    let admin = admin(&engine).await;
    let usage = admin.disk_usage(&CacheQuery::new()).await.expect("a list");
    let ids: Vec<_> = usage.records.iter().map(|r| (&*r.id, r.size)).collect();
    assert_eq!(ids, [("b", 300), ("a", 10), ("c", 0)]);
    let a = &usage.records[1];
    assert_eq!((&*a.description, a.usage_count, a.last_used_at), ("one", 2, None));
    let at = a.created_at.and_then(bk_build::format_time);
    assert_eq!(at.as_deref(), Some("2024-01-02T02:04:05.5Z"));
    assert_eq!(usage.records[0].parents, ["a"]);
    assert_eq!(usage.records[2].parents, ["a", "b"]);
    // Before API 1.42 there is no way to ask for the cache alone.
    assert_eq!(engine.arrived("GET /v1.41/system/df HTTP/1.1"), 1);
    let query = CacheQuery::new().filter("type=source.local").expect("a filter");
    let usage = admin.disk_usage(&query).await.expect("a list");
    assert_eq!(usage.records.len(), 1);
    let query = CacheQuery::new().filter("id=^a").expect("a filter");
    let e = admin
        .disk_usage(&query)
        .await
        .expect_err("no regular expressions");
    assert!(e.to_string().contains("routes grpc and h2c only"), "{e}");
}

#[tokio::test]
async fn a_removal_says_what_went_and_heeds_what_is_known() {
    let old = engine("20.10.24", "1.41");
    let mut gone = Vec::new();
    let options = PruneOptions::new()
        .query(CacheQuery::new().filter("id=a").expect("a filter"))
        .all(true)
        .reserved_space(5);
    let removed = admin(&old)
        .await
        .prune(&options, &mut |r| gone.push((r.id, r.size)))
        .await;
    assert_eq!(removed.expect("removes"), Pruned::new(2, 10));
    assert_eq!(gone, [("a".to_owned(), 10), ("z".to_owned(), 0)]);
    let line =
        "POST /v1.41/build/prune?all=1&filters=%7B%22id%22%3A%7B%22a%22%3Atrue%7D%7D&keep-storage=5 HTTP/1.1";
    assert_eq!(old.arrived(line), 1);
    // A limit that it would ignore is no order to remove everything.
    let options = PruneOptions::new().max_used_space(1);
    let e = admin(&old)
        .await
        .prune(&options, &mut |_| ())
        .await
        .expect_err("too old");
    assert!(
        matches!(&e, BuildError::TooOld(old) if old.needs.contains("28.0")),
        "{e}"
    );
    assert_eq!(old.arrived("POST "), 1);
    let new = engine("28.5.2", "1.51");
    admin(&new)
        .await
        .prune(&options, &mut |_| ())
        .await
        .expect("removes");
    assert_eq!(
        new.arrived("POST /v1.51/build/prune?max-used-space=1 HTTP/1.1"),
        1
    );
    assert_eq!(new.arrived("GET /v1.47/system/df?type=build-cache HTTP/1.1"), 1);
    for filter in ["id!=a", "mutable", "parents=x"] {
        let options = PruneOptions::new().query(CacheQuery::new().filter(filter).expect("a filter"));
        let e = admin(&new)
            .await
            .prune(&options, &mut |_| ())
            .await
            .expect_err(filter);
        assert!(matches!(&e, BuildError::Input(_)), "{e}");
    }
}

#[tokio::test]
async fn what_the_engine_cannot_tell_is_refused_with_the_route() {
    let engine = engine("20.10.24", "1.41");
    let admin = admin(&engine).await;
    let e = admin.history().await.expect_err("no history");
    assert_eq!(
        (e.to_string(), e.hint()),
        (
            "the build history cannot be asked for on the Docker route tar".to_owned(),
            Some("the routes grpc and h2c can".to_owned())
        )
    );
    assert!(admin.workers(&[]).await.is_err());
    let info = admin.daemon().await.expect("a daemon");
    assert_eq!(info.workers, None);
    assert_eq!(info.buildkit_line.as_deref(), Some("0.8"));
    let engine: Vec<_> = info.engine.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        engine,
        [
            "API in use=1.41",
            "host name=h",
            "newest API=1.41",
            "processors=2",
            "storage driver=overlay2"
        ]
    );
    let history: Vec<_> = info
        .capabilities
        .iter()
        .filter(|c| c.name == "the build history")
        .collect();
    assert!(matches!(&history[..], [c] if matches!(&c.able, Able::No(why) if why.contains("route tar"))));
    admin.ping().await.expect("answers");
}
