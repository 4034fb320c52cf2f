//! Measures the cost of counting tokens: on this crate's own texts, on texts made to be slow, and for a whole request.
//!
//! `cargo bench -p benches --bench tokenizer` runs it all, with `-- --test` each once. Memory and the time of the first
//! count are printed at the beginning, as they can be measured only once. `tests/tokenizer/README.md` compares the
//! counter with other implementations, on documents of many kinds.

use std::{hint::black_box, time::Duration};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use futures_util::FutureExt;
use http::{Request, Response, header::CONTENT_TYPE};
use http_body_util::Full;
use tower::{Layer, Service, service_fn};
use tower_gemini::{BoxError, TokenPrecheckLayer, token_precheck::estimate::Estimate, tokenizer::Tokenizer};

const MARKDOWN: &str = concat!(include_str!("../README.md"), include_str!("../src/docs/ordering.md"));
const CODE: &str = concat!(
    include_str!("../src/call.rs"),
    include_str!("../src/context/mod.rs"),
    include_str!("../src/answer/scan.rs"),
    include_str!("../src/failure/mod.rs"),
);
const LANGUAGES: &str = include_str!("../tests/tokenizer/own.txt");
/// Half of it is random: the worst text that was not made to be slow.
const NOISE: &str = include_str!("../tests/tokenizer/fixtures.jsonl");

const MEGABYTE: usize = 1 << 20;

fn main() {
    first();
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .without_plots()
        .configure_from_args();
    corpora(&mut criterion);
    adversaries(&mut criterion);
    requests(&mut criterion);
    checks(&mut criterion);
    criterion.final_summary();
}

/// Prints the cost of the first count, and the memory that is kept after it.
fn first() {
    let start = tokio::time::Instant::now();
    let memory = allocation_counter::measure(|| {
        black_box(Tokenizer::gemma3().count("first"));
    });
    println!(
        "the first count: {:.1} ms, {:.1} MB allocated at most, {:.1} MB kept",
        start.elapsed().as_secs_f64() * 1e3,
        memory.bytes_max as f64 / 1e6,
        memory.bytes_current as f64 / 1e6
    );
}

fn corpora(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("corpora");
    let mixed = [MARKDOWN, CODE, LANGUAGES, NOISE].concat();
    for (name, text) in
        [("markdown", MARKDOWN), ("code", CODE), ("languages", LANGUAGES), ("noise", NOISE), ("mixed", &mixed)]
    {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bench| bench.iter(|| Tokenizer::gemma3().count(black_box(text))));
    }
    group.bench_function("mixed, estimated", |bench| {
        bench.iter(|| {
            let mut estimate = Estimate::new();
            estimate.push(black_box(&mixed));
            estimate.tokens()
        })
    });
    group.finish();
}

/// Counts texts of a megabyte each. The random ones are new for each count, so that the memo does not help.
fn adversaries(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("adversaries");
    group.sample_size(10).throughput(Throughput::Bytes(MEGABYTE as u64));
    let mut seed = 1;
    let random = |seed: &mut u64, of: u32| {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*seed >> 33) as u32 % of
    };
    let mut row = |name: &str, make: &dyn Fn(&mut u64, usize) -> u32| {
        group.bench_function(name, |bench| {
            let text = || {
                let mut text = String::with_capacity(MEGABYTE + 4);
                (0..)
                    .take_while(|&at| {
                        text.extend(char::from_u32(make(&mut seed, at)));
                        text.len() < MEGABYTE
                    })
                    .for_each(drop);
                text
            };
            bench.iter_batched(text, |text| Tokenizer::gemma3().count(&text), BatchSize::PerIteration);
        });
    };
    row("one letter", &|_, _| 'a'.into());
    row("alternating letters", &|_, at| 'a' as u32 + at as u32 % 2);
    row("random letters", &|seed, _| 'a' as u32 + random(seed, 26));
    row("random words of 8", &|seed, at| if at % 8 == 0 { ' '.into() } else { 'a' as u32 + random(seed, 26) });
    row("random words of 32", &|seed, at| if at % 32 == 0 { ' '.into() } else { 'a' as u32 + random(seed, 26) });
    row("stretches of 33", &|seed, at| if at % 34 == 0 { '1'.into() } else { 'a' as u32 + random(seed, 26) });
    row("stretches of 1024", &|seed, at| if at % 1025 == 0 { '1'.into() } else { 'a' as u32 + random(seed, 26) });
    row("runs of 32", &|_, at| if at % 33 == 0 { '1'.into() } else { '='.into() });
    row("runs of 1024", &|_, at| if at % 1025 == 0 { '1'.into() } else { '='.into() });
    row("base64", &|seed, _| {
        u32::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[random(seed, 64) as usize])
    });
    row("random signs", &|seed, _| '!' as u32 + random(seed, 14));
    row("random CJK", &|seed, _| 0x4e00 + random(seed, 0x5000));
    row("random Cyrillic", &|seed, _| 0x430 + random(seed, 32));
    row("random Hiragana", &|seed, _| 0x3041 + random(seed, 80));
    row("combining marks", &|seed, _| 0x300 + random(seed, 100));
    row("brackets", &|_, _| '<'.into());
    group.finish();
}

fn requests(criterion: &mut Criterion) {
    let body = |text: &str| serde_json::json!({"contents": [{"role": "user", "parts": [{"text": text}]}]}).to_string();
    let mut group = criterion.benchmark_group("requests");
    for (name, body) in [("1 KB", body(&MARKDOWN[..1000])), ("45 KB", body(CODE))] {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group
            .bench_function(name, |bench| bench.iter(|| Tokenizer::gemma3().count_request(black_box(body.as_bytes()))));
    }
    group.finish();
}

/// Runs a whole call through `TokenPrecheckLayer` to a service that answers at once: the check of the body is nearly
/// all of it.
fn checks(criterion: &mut Criterion) {
    let text = |text: &str, bytes: usize| {
        let text = text.repeat(bytes.div_ceil(text.len()));
        let parts = serde_json::json!({"contents": [{"role": "user", "parts": [{"text": text}]}]});
        Bytes::from(parts.to_string())
    };
    let image = "iVBORw0KGgoAAAANSUhEUgAA".repeat(20 * MEGABYTE / 24);
    let image =
        serde_json::json!({"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": image}}]}]});
    let bare = service_fn(|_: Request<Full<Bytes>>| {
        std::future::ready(Ok::<_, BoxError>(Response::new(Full::<Bytes>::default())))
    });
    let mut group = criterion.benchmark_group("checks");
    for (name, body, counts) in [
        ("1 KB", text(&MARKDOWN[..1_000], 1_000), false),
        ("1 KB, counted", text(&MARKDOWN[..1_000], 1_000), true),
        ("600 KB of prose", text("The quick brown fox jumps over the lazy dog. ", 600_000), false),
        ("600 KB of code", text(CODE, 600_000), false),
        ("600 KB of many languages", text(LANGUAGES, 600_000), false),
        ("20 MB image", Bytes::from(image.to_string()), false),
    ] {
        let layer = TokenPrecheckLayer::default();
        let mut service = if counts { layer } else { layer.without_counter() }.layer(bare);
        group.throughput(Throughput::Bytes(body.len() as u64));
        let request = || {
            let request = Request::post("/v1beta/models/gemini-2.5-flash:generateContent");
            request.header(CONTENT_TYPE, "application/json").body(Full::new(body.clone())).expect("a good request")
        };
        group.bench_function(name, |bench| {
            bench.iter_batched(
                request,
                |request| service.call(request).now_or_never().expect("decided at once"),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}
