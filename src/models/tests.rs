//! Tests of the model table.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use http_body_util::{Full, StreamBody};
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::time::advance;
use tower::{ServiceExt, service_fn, util::BoxCloneService};

use super::*;
use crate::{
    context::BoxError,
    emulator::{self, Emulator, Trouble, When},
};

const HOUR: Duration = Duration::from_secs(3_600);
const GENERATE: Operation = Operation::GenerateContent;

type Upstream = BoxCloneService<Request<String>, Response<Full<Bytes>>, BoxError>;

/// An upstream that answers one page after the other and repeats the last one, and a log of the requests.
fn upstream(pages: Vec<(u16, String)>) -> (Upstream, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    let service = service_fn(move |request: Request<String>| {
        assert_eq!(request.method(), "GET");
        assert_eq!(request.headers()["accept-encoding"], "identity");
        assert!(request.body().is_empty());
        let mut log = log.lock();
        let (status, body) = pages[log.len().min(pages.len() - 1)].clone();
        log.push(request.uri().to_string());
        async move {
            let mut response = Response::new(Full::from(body));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            Ok::<_, BoxError>(response)
        }
    });
    (BoxCloneService::new(service), asked)
}

fn page(names: &[&str], next: &str) -> (u16, String) {
    let models: Vec<_> = names
        .iter()
        .map(|name| {
            let methods = if name.contains("embedding") { "embedContent" } else { "generateContent" };
            format!(
                r#"{{"name": "models/{name}", "inputTokenLimit": 1000000, "supportedGenerationMethods": ["{methods}"]}}"#
            )
        })
        .collect();
    (200, format!(r#"{{"models": [{}], "nextPageToken": "{next}"}}"#, models.join(",")))
}

async fn table_of(names: &[&str]) -> ModelTable {
    let table = ModelTable::new();
    assert_eq!(table.refresh(upstream(vec![page(names, "")]).0).await.unwrap(), names.len());
    table
}

fn nearest_of(table: &ModelTable, name: &str) -> Vec<String> {
    match table.verdict(name, GENERATE) {
        ModelVerdict::Missing { nearest } => nearest.iter().map(|name| name.to_string()).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn the_built_in_list_knows_but_never_refuses() {
    let table = ModelTable::new();
    assert_eq!(ModelTable::SEED_DATE, "2026-10");
    let flash = table.lookup("models/gemini-2.5-flash").unwrap();
    assert_eq!((flash.name(), flash.source()), ("gemini-2.5-flash", Source::Seed));
    assert_eq!((flash.input_limit(), flash.output_limit()), (Some(1_048_576), Some(65_536)));
    assert!(!flash.shares_limit() && table.lookup("gemini-4-carbon").unwrap().shares_limit());
    assert_eq!(table.verdict("gemini-2.5-flash", Operation::EmbedContent), ModelVerdict::Known(flash));
    assert_eq!(table.verdict("gemini-2.5-flsh", GENERATE), ModelVerdict::Unknown);
    assert_eq!(table.effective_input_limit("gemini-4-hydrogen"), None);
    assert!(!table.is_fresh() && table.snapshot().age.is_none());
    let names: std::collections::HashSet<_> = seed::models().map(|model| model.shared_name()).collect();
    assert_eq!(names.len(), table.snapshot().models.len(), "no name is there twice");
}

#[tokio::test(start_paused = true)]
async fn a_fresh_list_refuses_a_typing_error_and_a_stale_one_nothing() {
    let table = table_of(&["gemini-2.5-flash", "gemini-2.5-pro", "gemini-embedding-001"]).await;
    assert_eq!(nearest_of(&table, "gemini-2.5-flsh"), ["gemini-2.5-flash"]);
    assert_eq!(nearest_of(&table, "models/gemini-2.5-flsh"), ["gemini-2.5-flash"]);
    assert!(table.lookup("gemini-3.5-flash").is_none(), "the built-in list is gone");
    assert_eq!(table.verdict("gemini-3.5-flash", GENERATE), ModelVerdict::Unknown);
    let long = format!("gemini-2.5-flsh{}", "h".repeat(200));
    assert_eq!(table.verdict(&long, GENERATE), ModelVerdict::Unknown);

    advance(24 * HOUR - Duration::from_millis(1)).await;
    assert!(table.is_fresh());
    assert_eq!(nearest_of(&table, "gemini-2.5-flsh"), ["gemini-2.5-flash"]);
    advance(Duration::from_millis(1)).await;
    assert!(!table.is_fresh() && !table.snapshot().is_fresh);
    assert_eq!(table.verdict("gemini-2.5-flsh", GENERATE), ModelVerdict::Unknown);
    assert!(table.lookup("gemini-2.5-flash").is_some(), "old, but better than none");
}

#[tokio::test(start_paused = true)]
async fn only_generating_and_embedding_are_judged_and_only_freshly() {
    let table = table_of(&["gemini-2.5-flash", "gemini-embedding-001"]).await;
    let refused = |name: &str, operation| match table.verdict(name, operation) {
        ModelVerdict::MethodUnsupported { model, supported } => {
            assert_eq!(model.name(), name);
            Some(supported.to_string())
        }
        verdict => {
            assert!(matches!(verdict, ModelVerdict::Known(_)), "{verdict:?}");
            None
        }
    };
    assert_eq!(refused("gemini-embedding-001", GENERATE).as_deref(), Some("embedContent"));
    assert_eq!(refused("gemini-2.5-flash", Operation::EmbedContent).as_deref(), Some("generateContent"));
    assert_eq!(refused("gemini-2.5-flash", Operation::BatchEmbedContents).as_deref(), Some("generateContent"));
    assert_eq!(refused("gemini-embedding-001", Operation::BatchEmbedContents), None, "embedContent goes with it");
    for operation in [Operation::CountTokens, Operation::Predict, Operation::GetModel, Operation::Write] {
        assert_eq!(refused("gemini-embedding-001", operation), None, "{operation:?}");
    }
    advance(24 * HOUR).await;
    assert_eq!(refused("gemini-embedding-001", GENERATE), None);
    // A model set by hand needs no freshness, and limits that were not set refuse nothing.
    table.insert(Model::new("gemini-embedding-001").with_methods(Methods::of(["embedContent", "newMethod"])));
    assert_eq!(refused("gemini-embedding-001", GENERATE).as_deref(), Some("embedContent, others"));
    table.insert(Model::new("gemini-embedding-001").with_methods(Methods::of([])));
    assert_eq!(refused("gemini-embedding-001", GENERATE), None);
}

#[tokio::test(start_paused = true)]
async fn pages_are_followed_to_the_last() {
    let (service, asked) = upstream(vec![page(&["a-one"], "to+2&x=%"), page(&["a-two"], "é"), page(&["a-three"], "")]);
    let path = PathAndQuery::from_static("/relay/v1/models?x=1");
    let table = ModelTable::builder().list_path(path).build();
    assert_eq!(table.refresh(service).await.unwrap(), 3);
    assert!(["a-one", "a-two", "a-three"].iter().all(|name| table.lookup(name).is_some()));
    assert_eq!(
        *asked.lock(),
        [
            "/relay/v1/models?x=1&pageSize=1000",
            "/relay/v1/models?x=1&pageSize=1000&pageToken=to%2B2%26x%3D%25",
            "/relay/v1/models?x=1&pageSize=1000&pageToken=%C3%A9",
        ]
    );
    let (service, asked) = upstream(vec![page(&["a-one"], "")]);
    ModelTable::new().refresh(service).await.unwrap();
    assert_eq!(*asked.lock(), ["/v1beta/models?pageSize=1000"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_wholly_good_changes_nothing() {
    let table = table_of(&["gemini-old"]).await;
    let good = || page(&["gemini-new"], "more");
    let many: Vec<String> = (0..1_000).map(|at| format!("m{at}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let broken = |body: &str| (200, body.to_owned());
    for (pages, why) in [
        (vec![good(), (503, "{}".into())], "503"),
        (vec![good(), (204, "{}".into())], "204"),
        (vec![good(), broken("{\"models\": [")], "cannot be read"),
        (vec![good(), broken(r#"{"error": {"code": 429}}"#)], "it is an error"),
        (vec![good(), broken("<html>AIzaSyA-0123456789012345678901234567890</html>")], "not a JSON object"),
        (vec![broken("{}")], "no model"),
        (vec![good()], "more than 32 pages"),
        (vec![broken(&format!("{{{}}}", " ".repeat(4 << 20)))], "more than 4194304 bytes"),
        (vec![page(&many, "2"), page(&many, "3"), page(&many, "")], "more than 2048 models"),
        // Neither page is too large, but both together are.
        (vec![broken(&format!(r#"{{"nextPageToken": "2"{}}}"#, " ".repeat(3 << 20)))], "more than 4194304 bytes"),
    ] {
        let failures = table.snapshot().failures;
        let error = table.refresh(upstream(pages).0).await.unwrap_err();
        assert!(error.to_string().contains(why), "{why}: {error}");
        assert_eq!(error.status().is_some(), why.parse::<u16>().is_ok());
        assert!(table.lookup("gemini-old").is_some() && table.lookup("gemini-new").is_none(), "{why}");
        let report = table.snapshot();
        assert_eq!((report.failures, report.last_failure.as_deref()), (failures + 1, Some(&*error.to_string())));
    }
    table.refresh(upstream(vec![page(&["gemini-new"], "")]).0).await.unwrap();
    assert!(table.lookup("gemini-old").is_none());
    let report = table.snapshot();
    assert_eq!((report.failures, report.last_failure), (0, None));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_is_an_error_without_its_key() {
    let url = "http://h/v1beta/models?key=AIzaSyA-0123456789012345678901234567890";
    let failing = service_fn(move |_: Request<String>| async move {
        Err::<Response<Full<Bytes>>, _>(io::Error::other(format!("no way to {url}")))
    });
    let table = ModelTable::new();
    let error = table.refresh(failing).await.unwrap_err();
    assert!(std::error::Error::source(&error).is_some_and(|source| source.to_string().contains("no way")));
    let report = table.snapshot().last_failure.unwrap();
    assert!(report.contains("could not be fetched: no way to"), "{report}");
    assert!(!report.contains("0123456789") && !format!("{error:?}").contains("0123456789"));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_ends_whatever_the_upstream_does() {
    let table = ModelTable::new();
    let silent = service_fn(|_: Request<String>| std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>());
    let begin = Instant::now();
    assert!(table.refresh(silent).await.unwrap_err().to_string().contains("60 s"));
    assert_eq!(begin.elapsed(), Duration::from_secs(60));

    // An endless body of empty frames or trailers, which are always ready.
    for trailers in [false, true] {
        let endless = service_fn(move |_: Request<String>| {
            let frame = move || match trailers {
                true => http_body::Frame::trailers(http::HeaderMap::new()),
                false => http_body::Frame::data(Bytes::new()),
            };
            let frames = futures_util::stream::repeat_with(move || Ok::<_, Infallible>(frame()));
            std::future::ready(Ok::<_, Infallible>(Response::new(StreamBody::new(frames))))
        });
        assert!(table.refresh(endless).await.unwrap_err().to_string().contains("more than 4194304 bytes"));
    }
    assert_eq!(table.snapshot().failures, 3);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_was_asked_for_earlier_does_not_replace_a_later_one() {
    let table = ModelTable::new();
    let slow = upstream(vec![page(&["gemini-early"], "")]).0.then(|answer| async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        answer
    });
    let early = tokio::spawn(table.refresh(slow.clone()));
    tokio::task::yield_now().await;
    advance(Duration::from_secs(1)).await;
    table.refresh(upstream(vec![page(&["gemini-late"], "")]).0).await.unwrap();
    assert_eq!(early.await.unwrap().unwrap(), 1);
    assert!(table.lookup("gemini-late").is_some() && table.lookup("gemini-early").is_none());
    assert_eq!(table.snapshot().age, Some(Duration::from_secs(9)));
    table.refresh(slow).await.unwrap();
    assert_eq!(table.snapshot().age, Some(Duration::from_secs(10)), "counted from the asking");
}

#[tokio::test(start_paused = true)]
async fn it_is_kept_fresh_for_ever() {
    let (count, down) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let times = Arc::new(Mutex::new(Vec::new()));
    let begin = Instant::now();
    let service = {
        let (count, down, times) = (count.clone(), down.clone(), times.clone());
        service_fn(move |_: Request<String>| {
            times.lock().push(begin.elapsed().as_secs());
            let at = count.fetch_add(1, Ordering::Relaxed);
            let good = down.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err();
            let body = if good { page(&[&format!("gemini-n{at}")], "").1 } else { String::new() };
            async move { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(body))) }
        })
    };
    let table = ModelTable::new();
    let upkeep = tokio::spawn(table.refresh_every(service.clone(), ModelTable::REFRESH_EVERY));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(table.is_fresh() && table.lookup("gemini-n0").is_some());
    down.store(9, Ordering::Relaxed);
    tokio::time::sleep(18 * HOUR).await;
    down.store(1, Ordering::Relaxed);
    tokio::time::sleep(4 * HOUR).await;
    upkeep.abort();
    let waits: Vec<u64> = times.lock().windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits, [21_600, 30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600, 21_600, 21_600, 30]);
    assert_eq!(table.snapshot().failures, 0);

    // After a good refresh the delays begin anew; none is longer than the interval or shorter than 30 s.
    times.lock().clear();
    down.store(3, Ordering::Relaxed);
    let upkeep = tokio::spawn(table.refresh_every(service, Duration::from_secs(1)));
    tokio::time::sleep(Duration::from_secs(130)).await;
    upkeep.abort();
    let waits: Vec<u64> = times.lock().windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits, [30, 30, 30, 30]);
}

#[tokio::test(start_paused = true)]
async fn no_readiness_is_held_between_refreshes() {
    let (service, asked) = upstream(vec![page(&["gemini-new"], "")]);
    let limited = tower::limit::ConcurrencyLimit::new(service, 1);
    let table = ModelTable::new();
    let upkeep = tokio::spawn(table.refresh_every(limited.clone(), ModelTable::REFRESH_EVERY));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut mine = limited.clone();
    assert!(mine.ready().now_or_never().is_some(), "the permit is free");
    // While it is not ready, a refresh gives up after a minute, and leaves the queue.
    tokio::time::sleep(6 * HOUR + Duration::from_secs(70)).await;
    assert_eq!(table.snapshot().failures, 1);
    drop(mine);
    assert!(limited.clone().ready().now_or_never().is_some());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((asked.lock().len(), table.snapshot().failures), (2, 0));
    upkeep.abort();
}

#[tokio::test(start_paused = true)]
async fn a_learned_limit_lowers_for_a_day_and_never_raises() {
    let table = ModelTable::new();
    let limit = |name: &str| table.effective_input_limit(name).map(|limit| (limit.tokens, limit.source));
    let listed = Some((1_048_576, Source::Seed));
    assert!(table.learn_input_limit("models/gemini-2.5-pro", 131_072));
    assert_eq!(limit("gemini-2.5-pro"), Some((131_072, Source::Learned)));
    assert_eq!(limit("models/gemini-2.5-pro"), limit("gemini-2.5-pro"));
    assert_eq!(limit("gemini-2.5-flash"), listed);
    assert_eq!(table.lookup("gemini-2.5-pro").unwrap().input_limit(), Some(1_048_576));

    advance(HOUR).await;
    table.refresh(upstream(vec![page(&["gemini-2.5-pro"], "")]).0).await.unwrap();
    assert_eq!(limit("gemini-2.5-pro"), Some((131_072, Source::Learned)), "kept over a refresh");
    advance(23 * HOUR).await;
    assert_eq!(limit("gemini-2.5-pro"), Some((1_000_000, Source::Listed)));

    table.learn_input_limit("gemini-2.5-pro", 1_000_000);
    assert_eq!(limit("gemini-2.5-pro"), Some((1_000_000, Source::Listed)), "on a tie the list's");
    table.learn_input_limit("gemini-2.5-pro", 2_000_000);
    assert_eq!(limit("gemini-2.5-pro"), Some((1_000_000, Source::Listed)));
    assert!(!table.learn_input_limit("gemini-2.5-pro", 12));
    table.learn_input_limit("tunedModels/mine", 32_768);
    assert_eq!(limit("tunedModels/mine"), Some((32_768, Source::Learned)), "in no list");
    assert_eq!(table.snapshot().learned, [("gemini-2.5-pro".into(), 2_000_000), ("tunedModels/mine".into(), 32_768)]);
    let none = ModelTable::builder().learned_for(Duration::ZERO).build();
    none.learn_input_limit("gemini-2.5-pro", 131_072);
    assert_eq!(none.effective_input_limit("gemini-2.5-pro").unwrap().source, Source::Seed);
}

#[tokio::test(start_paused = true)]
async fn what_is_set_by_hand_stays_and_is_bounded() {
    let table = ModelTable::new();
    assert!(table.insert(Model::new("models/gemini-2.5-pro").with_input_limit(65_536)));
    assert!(table.insert(Model::new("my-model").with_input_limit(8_192).with_shared_limit()));
    table.refresh(upstream(vec![page(&["gemini-2.5-pro", "gemini-2.5-flash"], "")]).0).await.unwrap();
    let limit = table.effective_input_limit("gemini-2.5-pro").unwrap();
    assert_eq!((limit.tokens, limit.source), (65_536, Source::Set));
    assert!(table.lookup("my-model").unwrap().shares_limit());
    assert_eq!(nearest_of(&table, "my-modl"), ["my-model"]);

    let report = table.snapshot();
    let names: Vec<_> = report.models.iter().map(|report| report.model.name()).collect();
    assert_eq!(names, ["gemini-2.5-flash", "gemini-2.5-pro", "my-model"]);
    assert_eq!(report.models[1].input_limit.unwrap(), limit);

    assert!(!table.insert(Model::new("")) && !table.insert(Model::new("m".repeat(129))));
    let set = (0..2_000).filter(|at| table.insert(Model::new(format!("own{at}")))).count();
    assert_eq!(set, MAX_SET - 2);
    assert!(table.insert(Model::new("own0").with_input_limit(1_024)), "one that is there may change");
    assert_eq!(table.effective_input_limit("own0").unwrap().tokens, 1_024);
    assert!(!table.insert(Model::new("one-more")) && !table.insert(Model::new("gemini-2.5-flash")));
}

#[tokio::test(start_paused = true)]
async fn misspelt_names_leave_nothing_behind() {
    let table = table_of(&["gemini-2.5-flash"]).await;
    let before = (table.snapshot().models.len(), table.snapshot().learned.len());
    for at in 0..10_000 {
        let name = format!("gemini-2.5-fl{}sh", char::from_u32(0x4e00 + at).unwrap());
        let _ = (table.verdict(&name, GENERATE), table.effective_input_limit(&name), table.lookup(&name));
    }
    assert_eq!(before, (table.snapshot().models.len(), table.snapshot().learned.len()));
}

#[tokio::test(start_paused = true)]
async fn the_emulators_list_is_read_page_by_page() {
    let models = (0..1_500).map(|at| emulator::EmulatedModel::new(format!("gemini-m{at}")));
    let builder = Emulator::builder()
        .trouble(When::first(1).operation(Operation::ListModels), Trouble::overloaded())
        .default_models();
    let emulator = models.fold(builder, emulator::EmulatorBuilder::model).build();
    let service = emulator.clone().map_request(|mut request: Request<Full<Bytes>>| {
        request.headers_mut().insert("x-goog-api-key", http::HeaderValue::from_static("test-key"));
        request
    });
    let table = ModelTable::new();
    let error = table.refresh(service.clone()).await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(table.refresh(service).await.unwrap(), 1_511);
    assert_eq!(emulator.journal().len(), 3, "one refused, two pages");
    assert_eq!(table.lookup("gemini-m1499").unwrap().source(), Source::Listed);
    assert_eq!(table.effective_input_limit("gemini-embedding-001").unwrap().tokens, 2_048);
    assert_eq!(nearest_of(&table, "gemini-2.5-flsh"), ["gemini-2.5-flash"]);
    let verdict = table.verdict("gemini-embedding-001", GENERATE);
    assert!(matches!(verdict, ModelVerdict::MethodUnsupported { .. }), "{verdict:?}");
}

#[test]
fn methods_are_a_set_of_names() {
    let methods = Methods::of(["streamGenerateContent", "countTokens", "countTokens", "madeUp"]);
    assert_eq!(methods.to_string(), "generateContent, countTokens, others");
    assert_eq!(methods.names().collect::<Vec<_>>(), ["generateContent", "countTokens"]);
    assert!(methods.contains(GENERATE) && !methods.contains(Operation::Predict) && !methods.contains(Operation::Write));
    assert!(methods.has_others() && !Methods::of(["predict"]).has_others());
    assert!(Methods::of([]).is_empty() && Methods::of(["embedContent"]).contains(Operation::EmbedContent));
}

proptest! {
    /// It holds for any other names on the list, however near.
    #[test]
    fn a_listed_name_is_never_missing(names in proptest::collection::vec("[ab1.-]{1,8}", 1..20)) {
        let table = ModelTable::new();
        let models = names.iter().map(|name| Model::new(name).with_source(Source::Listed)).collect();
        table.publish(models, Instant::now());
        for name in &names {
            prop_assert!(matches!(table.verdict(name, GENERATE), ModelVerdict::Known(_)), "{}", name);
        }
    }

    /// The same holds for one with other digits, or with a suffix.
    #[test]
    fn another_version_is_never_missing(version in 0u32..1_000, suffix in "[-@][a-z0-9-]{0,8}") {
        let table = ModelTable::new();
        let names = ["gemini-2.5-flash", "gemini-2.5-flash-lite", "gemini-embedding-001", "gemini-2.5-pro"];
        table.publish(names.map(|name| Model::new(name).with_source(Source::Listed)).into(), Instant::now());
        for name in [format!("gemini-{version}-flash"), format!("gemini-embedding-{version:03}")] {
            let same = ["25", "001"].contains(&&*name.replace(|c: char| !c.is_ascii_digit(), ""));
            prop_assert!(same || !matches!(table.verdict(&name, GENERATE), ModelVerdict::Missing { .. }), "{}", name);
        }
        let name = format!("gemini-2.5-pro{suffix}");
        prop_assert!(!matches!(table.verdict(&name, GENERATE), ModelVerdict::Missing { .. }), "{}", name);
    }
}
