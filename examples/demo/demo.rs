//! Shows a bad day at Gemini's, with and without the layers.
//!
//! `cargo run --release --example demo` starts the emulator on a loopback port with a seeded bad day (a storm of 503s,
//! quotas, resets, hangs, empty answers, streams that break) and sends the same few hundred prompts twice: through a bare
//! hyper client, and through the same client with the layers around it. It prints what each of them saw.
//!
//! With `GEMINI_API_KEY` set, `-- --live` sends three prompts through the layers to the real service instead.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::task::JoinSet;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_gemini::{
    BoxError, ClassifyLayer, Outcome, RetryBudget, RetryLayer, RetryPolicy, TimeoutLayer,
    client::Client,
    emulator::{Emulator, Trouble, When},
};

/// The number of prompts that are sent each way.
const PROMPTS: usize = 300;

/// The number of calls in flight at a time: a small service that is busy.
const CONCURRENCY: usize = 24;

const HELP: &str = "\
A bad day at Gemini's, with and without the layers.

  --live          sends three prompts to the real service instead (needs GEMINI_API_KEY)
  --model NAME    the model to ask [default: gemini-2.5-flash]
  --seed NUMBER   the seed of the bad day [default: 7]";

/// The arguments of the program.
struct Arguments {
    live: bool,
    model: String,
    seed: u64,
}

impl Arguments {
    /// Reads the arguments. `None` means that help is asked for.
    fn parse(mut given: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut arguments = Self { live: false, model: "gemini-2.5-flash".into(), seed: 7 };
        while let Some(argument) = given.next() {
            let mut value = || given.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--live" => arguments.live = true,
                "--model" => arguments.model = value()?,
                "--seed" => arguments.seed = value()?.parse().map_err(|_| "--seed needs a whole number")?,
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("unknown argument {argument:?}; --help lists those that there are")),
            }
        }
        Ok(Some(arguments))
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let Some(arguments) = Arguments::parse(std::env::args().skip(1))? else {
        println!("{HELP}");
        return Ok(());
    };
    if arguments.live { live(&arguments.model).await } else { compare(&arguments).await }
}

/// Sends the same prompts both ways, each on an equally bad day.
async fn compare(arguments: &Arguments) -> Result<(), BoxError> {
    println!("{PROMPTS} prompts to {} on a bad day, half of them streamed, {CONCURRENCY} at a time\n", arguments.model);
    let mut columns = Vec::new();
    for with_layers in [false, true] {
        let emulator = bad_day(arguments.seed);
        let server = emulator.serve().await?;
        let client = Client::builder().base_url(server.uri()).build()?;
        let name = if with_layers { "through the layers" } else { "bare client" };
        let tally = if with_layers {
            let service = ServiceBuilder::new()
                .layer(TimeoutLayer::total(Duration::from_secs(20)))
                .layer(RetryLayer::new(patient()))
                .layer(impatient())
                .layer(ClassifyLayer::new())
                .service(client);
            send_all(arguments, service).await
        } else {
            // Even a bare client needs some time-out, or the hangs would never end.
            send_all(arguments, impatient_only(client)).await
        };
        columns.push((name, tally, emulator.journal().len()));
        server.shutdown().await;
    }
    print_table(&columns);
    Ok(())
}

/// Makes a bad day: its troubles, compressed into seconds. The same seed gives the same day.
fn bad_day(seed: u64) -> Emulator {
    let second = Duration::from_secs;
    Emulator::builder()
        .seed(seed)
        .key("demo-key", "demo-project")
        .first_token(Duration::from_millis(60))
        .between_chunks(Duration::from_millis(5))
        .trouble(When::prompt_contains("poison"), Trouble::internal())
        .trouble(When::probability(0.5).until(second(1)), Trouble::overloaded())
        .trouble(When::probability(0.12), Trouble::overloaded())
        .trouble(When::probability(0.05), Trouble::minute_quota(Duration::from_millis(900)))
        .trouble(When::probability(0.04), Trouble::internal())
        .trouble(When::probability(0.03), Trouble::reset())
        .trouble(When::probability(0.03), Trouble::empty())
        .trouble(When::probability(0.02), Trouble::html_bad_gateway())
        .trouble(When::probability(0.01), Trouble::hang())
        .trouble(When::probability(0.03).streaming(true), Trouble::overloaded().in_stream(0))
        .trouble(When::probability(0.01).streaming(true), Trouble::cut(2))
        .journal_capacity(20 * PROMPTS)
        .build()
}

/// Makes the clocks of one attempt, for a service that answers in milliseconds; the defaults suit the real one.
fn impatient() -> TimeoutLayer {
    TimeoutLayer::attempt(Duration::from_secs(2)).first_content(Duration::from_secs(2)).idle(Duration::from_secs(2))
}

fn impatient_only<S>(client: S) -> tower_gemini::timeout::Timeout<S> {
    ServiceBuilder::new().layer(impatient()).service(client)
}

/// Makes the default table with shorter pauses and a larger budget, because minutes of trouble come in seconds here.
fn patient() -> RetryPolicy {
    RetryPolicy::default()
        .base_delay(Duration::from_millis(200))
        .max_delay(Duration::from_secs(2))
        .budget(RetryBudget::new(1_000))
}

/// The results of the prompts that were sent one way.
#[derive(Default)]
struct Tally {
    answered: usize,
    failed: BTreeMap<String, usize>,
    latencies: Vec<Duration>,
}

async fn send_all<S, R>(arguments: &Arguments, service: S) -> Tally
where
    S: Service<Request<Full<Bytes>>, Response = http::Response<R>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
    R: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
{
    let mut tally = Tally::default();
    let mut waiting = (0..PROMPTS).map(|number| {
        let request = prompt(&arguments.model, number);
        let service = service.clone();
        async move {
            let begun = now();
            (ask(service, request).await, begun.elapsed())
        }
    });
    let mut calls = JoinSet::new();
    waiting.by_ref().take(CONCURRENCY).for_each(|call| drop(calls.spawn(call)));
    while let Some(call) = calls.join_next().await {
        match call {
            Ok((Ok(()), latency)) => {
                tally.answered += 1;
                tally.latencies.push(latency);
            }
            Ok((Err(why), _)) => *tally.failed.entry(why).or_default() += 1,
            Err(broken) => *tally.failed.entry(broken.to_string()).or_default() += 1,
        }
        if let Some(call) = waiting.next() {
            calls.spawn(call);
        }
    }
    tally.latencies.sort_unstable();
    tally
}

#[expect(clippy::disallowed_methods, reason = "the latency that a person would measure")]
fn now() -> Instant {
    Instant::now()
}

/// Makes the prompt of that number: every second asks for a stream, one in a hundred has content that breaks the model.
fn prompt(model: &str, number: usize) -> Request<Full<Bytes>> {
    let text = if number % 100 == 42 { "a poison pill" } else { "Say hello to the world." };
    let method = if number.is_multiple_of(2) { "generateContent" } else { "streamGenerateContent?alt=sse" };
    request(model, method, &format!("{text} ({number})"), "demo-key")
}

fn request(model: &str, method: &str, text: &str, key: &str) -> Request<Full<Bytes>> {
    let body = serde_json::json!({ "contents": [{ "role": "user", "parts": [{ "text": text }] }] });
    let mut request = Request::new(Full::from(body.to_string()));
    *request.method_mut() = http::Method::POST;
    if let Ok(uri) = format!("/v1beta/models/{model}:{method}").parse() {
        *request.uri_mut() = uri;
    }
    request.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    if let Ok(mut key) = http::HeaderValue::try_from(key) {
        key.set_sensitive(true);
        request.headers_mut().insert("x-goog-api-key", key);
    }
    request
}

/// Makes one call to its end. An answer is what a person would call one: text, and a reason why it ended.
async fn ask<S, R>(service: S, request: Request<Full<Bytes>>) -> Result<(), String>
where
    S: Service<Request<Full<Bytes>>, Response = http::Response<R>, Error = BoxError>,
    R: http_body::Body<Data = Bytes, Error = BoxError>,
{
    let response = service.oneshot(request).await.map_err(|error| kind_of(&error))?;
    let status = response.status();
    if !status.is_success() {
        return Err(status.to_string());
    }
    let body = response.into_body().collect().await.map_err(|error| format!("in the answer: {}", kind_of(&error)))?;
    let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    match () {
        () if text.contains("\"error\"") => Err("an error inside a 200".into()),
        () if !text.contains("\"text\"") => Err("an empty answer".into()),
        () if !text.contains("finishReason") => Err("an answer cut short".into()),
        () => Ok(()),
    }
}

fn kind_of(error: &BoxError) -> String {
    let known = tower_gemini::Error::find(&**error).map(|error| error.failure().kind());
    known.unwrap_or_else(|| tower_gemini::failure::Failure::from_error(&**error).kind()).to_string()
}

fn print_table(columns: &[(&str, Tally, usize)]) {
    let row = |label: &str, cell: &dyn Fn(&Tally, usize) -> String| {
        print!("{label:<36}");
        columns.iter().for_each(|(_, tally, attempts)| print!("{:>20}", cell(tally, *attempts)));
        println!();
    };
    print!("\n{:<36}", "");
    columns.iter().for_each(|(name, ..)| print!("{name:>20}"));
    println!();
    row("answered", &|tally, _| format!("{} of {PROMPTS}", tally.answered));
    let kinds: std::collections::BTreeSet<_> = columns.iter().flat_map(|(_, tally, _)| tally.failed.keys()).collect();
    for kind in kinds {
        row(&format!("  failed: {kind}"), &|tally, _| match tally.failed.get(kind) {
            Some(count) => count.to_string(),
            None => "-".into(),
        });
    }
    row("attempts at the upstream", &|_, attempts| attempts.to_string());
    let quantile = |tally: &Tally, q: f64| {
        let at = (tally.latencies.len() as f64 * q) as usize;
        let latency = tally.latencies.get(at).or(tally.latencies.last());
        latency.map_or_else(|| "-".into(), |latency| format!("{:.0} ms", latency.as_secs_f64() * 1000.0))
    };
    row("p50 of the answered", &|tally, _| quantile(tally, 0.50));
    row("p99 of the answered", &|tally, _| quantile(tally, 0.99));
    println!(
        "\nThree prompts are poison: their 500 is the content's, and no retry cures it. A stream that is cut after its first"
    );
    println!("words is never sent again: it ends in an error that says so.");
}

/// Sends three prompts to the real service.
async fn live(model: &str) -> Result<(), BoxError> {
    let key = std::env::var("GEMINI_API_KEY").map_err(|_| "--live needs GEMINI_API_KEY in the environment")?;
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::total(TimeoutLayer::TOTAL))
        .layer(RetryLayer::default())
        .layer(TimeoutLayer::attempt(TimeoutLayer::ATTEMPT))
        .layer(ClassifyLayer::new())
        .service(Client::builder().build()?);
    for text in ["Say hello in one word.", "Name a prime between 20 and 30.", "What is a tower layer? One sentence."] {
        println!("> {text}");
        let response = service.clone().oneshot(request(model, "generateContent", text, &key)).await?;
        let outcome = response.extensions().get::<Outcome>().cloned().unwrap_or_default();
        let body = response.into_body().collect().await?.to_bytes();
        match outcome.failure() {
            Some(failure) => println!("{failure}\n"),
            None => {
                let answer: Value = serde_json::from_slice(&body)?;
                let text = &answer["candidates"][0]["content"]["parts"][0]["text"];
                println!("{}({} attempts)\n", text.as_str().unwrap_or_default(), outcome.attempts().max(1));
            }
        }
    }
    Ok(())
}
