//! Hours of a relay in minutes: mixed calls without a pause, while its settings change each 5 s, keys go bad and good, and
//! the upstream dies and comes back. No call may be lost without an error that its caller can tell from an answer, every counter must be
//! back at zero at the end, and the memory level.
//!
//! ```text
//! cargo test --release -p relay --test relay_soak -- --ignored --nocapture     # 30 minutes
//! RELAY_SOAK=3m cargo test --release -p relay --test relay_soak -- --ignored --nocapture
//! ```

#![cfg(target_os = "linux")] // where memory is read from /proc
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_process;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tower::ServiceExt;
use tower_gemini::{
    client::Client,
    emulator::{Emulator, Trouble, When},
};

use relay_process::Relay;

const KEYS: [&str; 3] = ["soak-key-of-one", "soak-key-of-two", "soak-key-of-three"];
const TOKENS: [&str; 3] = ["token-of-the-shop", "token-of-the-desk", "token-of-the-night"];

/// The number of callers at work.
const CALLERS: usize = 24;

/// The longest time for which a call may be without an answer: the relay's own clocks are shorter.
const LOST: Duration = Duration::from_secs(30);

#[tokio::test]
async fn ten_seconds_of_everything_lose_no_call() {
    soak(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half an hour"]
async fn half_an_hour_of_everything_loses_no_call() {
    let wanted = std::env::var("RELAY_SOAK").ok();
    let time = wanted.map_or(Duration::from_secs(1_800), |time| humantime::parse_duration(&time).unwrap());
    soak(time).await;
}

async fn soak(time: Duration) {
    let builder = KEYS.iter().zip(["one", "two", "three"]).fold(Emulator::builder(), |b, (key, of)| b.key(key, of));
    let emulator = builder.build();
    let server = emulator.serve().await.unwrap();
    usual_troubles(&emulator);
    let door = Door::open(server.uri().strip_prefix("http://").unwrap().parse().unwrap()).await;
    let settings: Vec<_> = VARIANTS.iter().map(|variant| settings(door.address, variant)).collect();
    let relay = Relay::start_logging(&settings[0], &[("RUST_LOG", "off,relay::serve::current=info")]).await;

    let tally = Arc::new(Tally::default());
    let (stop, stopped) = watch::channel(false);
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| tokio::spawn(call_until(stopped.clone(), relay.uri(), caller, tally.clone())))
        .collect();
    let begun = Instant::now();
    let keys = tokio::spawn(keys_go_bad_and_good(stopped.clone(), emulator.clone()));
    let upstream = tokio::spawn(dies_and_comes_back(stopped.clone(), door, time));
    let mut levels = Vec::new();
    let mut reloads = 0;
    while begun.elapsed() < time {
        sleep(Duration::from_secs(5).min(time / 8)).await;
        reloads += 1;
        let wanted = &settings[reloads % settings.len()];
        let said = relay.reload(wanted).await;
        let is_right = !wanted.contains(WRONG);
        assert_eq!(said.contains("the old ones stay"), !is_right, "{said}");
        levels.push((resident(&relay), descriptors(&relay)));
    }
    stop.send_replace(true);
    let door = upstream.await.unwrap();
    keys.await.unwrap();
    emulator.clear_troubles();
    for caller in join_all(callers).await {
        caller.unwrap();
    }

    let counts = tally.0.lock().clone();
    println!("{reloads} reloads, {} calls: {counts:#?}", counts.values().sum::<usize>());
    let lost: Vec<_> = counts.iter().filter(|(end, _)| end.starts_with("lost")).collect();
    assert!(lost.is_empty(), "{lost:#?}");
    assert!(counts.keys().any(|end| end == "answered") && counts.keys().any(|end| end.starts_with("error")));

    back_at_rest(&relay).await;
    println!("memory in KiB and descriptors after each reload: {levels:?}");
    if let [.., _, _, _] = &levels[levels.len() / 3..] {
        let (middle, last) = (&levels[levels.len() / 3..levels.len() * 2 / 3], &levels[levels.len() * 2 / 3..]);
        let most = |levels: &[(usize, usize)]| levels.iter().map(|level| level.0).max().unwrap_or_default();
        // The allocator keeps what a wave of calls took; a leak grows in each third.
        assert!(most(last) <= most(middle) * 11 / 10 + 8_192, "{} KiB, then {} KiB", most(middle), most(last));
    }
    drop(door);
}

// --- the settings ---

/// The settings that differ from one reload to the next.
const VARIANTS: [&str; 5] = [
    "",
    "[limits.default]\nrpm = 6000\ntpm = 4000000\n[breaker]\nmode = \"consecutive\"\n",
    WRONG,
    "[fallback]\n\"gemini-2.5-pro\" = [\"gemini-2.5-flash\"]\n[precheck]\nenabled = false\n",
    "[limits.\"gemini-2.5-flash\"]\nrpm = 3000\nmax_wait = \"2s\"\n",
];

/// Settings that are refused.
const WRONG: &str = "[breaker]\nopen = \"no time\"\n";

fn settings(upstream: SocketAddr, variant: &str) -> String {
    let tokens = TOKENS.iter().enumerate().map(|(nth, token)| {
        let priority = ["interactive", "normal", "batch"][nth % 3];
        format!("[[callers]]\nname = \"c{nth}\"\ntoken = {token:?}\npriority = \"{priority}\"\n")
    });
    // The third key comes and goes.
    let keys = KEYS.iter().take(if variant.contains("limits") { 2 } else { 3 }).enumerate();
    let keys = keys.map(|(nth, key)| format!("[[keys]]\nkey = {key:?}\nproject = \"p{nth}\"\n"));
    format!(
        "upstream = \"http://{upstream}\"\nmax_concurrent = 20\n{}{}[timeout]\ntotal = \"10s\"\nattempt = \"3s\"\n\
         first_event = \"3s\"\nidle = \"3s\"\n[retry]\nmax_attempts = 4\nbase_delay = \"50ms\"\n{variant}",
        tokens.collect::<String>(),
        keys.collect::<String>()
    )
}

// --- the troubles ---

fn usual_troubles(emulator: &Emulator) {
    emulator.trouble(When::probability(0.05), Trouble::overloaded());
    emulator.trouble(When::probability(0.02), Trouble::cut(1));
    emulator.trouble(When::probability(0.02), Trouble::hang());
}

/// Lets each key be refused in turn, and then be good again.
async fn keys_go_bad_and_good(mut stopped: watch::Receiver<bool>, emulator: Emulator) {
    for key in KEYS.iter().cycle() {
        emulator.trouble(When::always().key(key), Trouble::leaked_key());
        for is_good in [false, true] {
            if is_good {
                emulator.clear_troubles();
                usual_troubles(&emulator);
            }
            // A refused key is checked after a minute, and less and less often while it stays bad.
            if timeout(Duration::from_secs(20), stopped.wait_for(|stopped| *stopped)).await.is_ok() {
                return;
            }
        }
    }
}

/// Closes the door for a fifth of the time, again and again, and leaves it open at the end.
async fn dies_and_comes_back(mut stopped: watch::Receiver<bool>, mut door: Door, time: Duration) -> Door {
    let turn = (time / 3).min(Duration::from_secs(30));
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return door,
            () = sleep(turn * 4 / 5) => {}
        }
        door.close();
        sleep(turn / 5).await;
        door.reopen().await;
    }
}

/// A forwarder of connections that can be closed, with all that go through it, and opened again at the same address.
struct Door {
    address: SocketAddr,
    to: SocketAddr,
    tasks: JoinSet<()>,
}

impl Door {
    async fn open(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut door = Self { address: listener.local_addr().unwrap(), to, tasks: JoinSet::new() };
        door.forward(listener);
        door
    }

    fn close(&mut self) {
        self.tasks = JoinSet::new();
    }

    async fn reopen(&mut self) {
        let listener = loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        };
        self.forward(listener);
    }

    fn forward(&mut self, listener: TcpListener) {
        let to = self.to;
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                connections.spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(to).await {
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
    }
}

// --- the callers ---

/// The number of calls that ended in each way.
#[derive(Default)]
struct Tally(Mutex<BTreeMap<String, usize>>);

impl Tally {
    fn count(&self, end: String) {
        *self.0.lock().entry(end).or_default() += 1;
    }
}

async fn call_until(stopped: watch::Receiver<bool>, uri: String, caller: usize, tally: Arc<Tally>) {
    let client: Client<Full<Bytes>> = Client::builder().base_url(uri).build().unwrap();
    let mut turn = caller;
    while !*stopped.borrow() {
        let shape = SHAPES[turn % SHAPES.len()];
        turn += 1;
        // A caller that leaves before the end is nobody's loss.
        if turn.is_multiple_of(17) {
            let _ = timeout(Duration::from_millis(20), one(&client, caller, shape)).await;
            tally.count("left".to_owned());
            continue;
        }
        let end = timeout(LOST, one(&client, caller, shape)).await.unwrap_or_else(|_| format!("lost: {shape:?} hangs"));
        tally.count(end);
        sleep(Duration::from_millis(10)).await;
    }
}

/// The calls: path and body.
const SHAPES: [(&str, &str); 6] = [
    ("/v1beta/models/gemini-2.5-flash:generateContent", PROMPT),
    ("/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", PROMPT),
    ("/v1beta/models/gemini-2.5-pro:generateContent", PROMPT),
    ("/v1beta/models/gemini-2.5-flash:countTokens", PROMPT),
    (
        "/v1beta/openai/chat/completions",
        r#"{"model": "gemini-2.5-flash", "messages": [{"role": "user", "content": "hello"}]}"#,
    ),
    ("/v1beta/models/gemini-2.5-pro:streamGenerateContent", PROMPT),
];

const PROMPT: &str = r#"{"contents": [{"parts": [{"text": "a few words that count"}]}]}"#;

/// Makes one call, and says how it ended.
async fn one(client: &Client<Full<Bytes>>, caller: usize, (path, body): (&str, &'static str)) -> String {
    let token = TOKENS[caller % TOKENS.len()];
    let request = Request::post(path).header("x-goog-api-key", token).header("content-type", "application/json");
    let response = match client.clone().oneshot(request.body(Full::from(body)).unwrap()).await {
        Ok(response) => response,
        Err(error) => return format!("lost: {path}: no answer: {error}"),
    };
    let status = response.status();
    let (mut body, mut read, mut broken) = (response.into_body(), Vec::new(), false);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => read.extend(frame.into_data().unwrap_or_default()),
            Err(_) => broken = true,
        }
        if broken {
            break;
        }
    }
    let text = String::from_utf8_lossy(&read);
    let error = text.contains("\"error\"");
    match (status, broken) {
        (StatusCode::OK, false) if !error && text.contains("STOP") || text.contains("totalTokens") => {
            "answered".to_owned()
        }
        (StatusCode::OK, false) if text.contains("\"finish_reason\"") => "answered".to_owned(),
        (StatusCode::OK, _) if error => "error in a stream".to_owned(),
        // Its head was out: a broken connection is all that can be said, and no client takes it for an answer.
        (StatusCode::OK, true) if !path.contains("stream") => "error by a broken connection".to_owned(),
        (StatusCode::OK, _) => format!("lost: {path}: broken: {broken}: {text}"),
        _ => match serde_json::from_slice::<Value>(&read) {
            Ok(answer) if !broken && is_typed(&answer) => format!("error {status}"),
            _ => format!("lost: {path}: {status}, broken: {broken}: {text}"),
        },
    }
}

/// Returns whether an answer has an error in Google's form or in OpenAI's.
fn is_typed(answer: &Value) -> bool {
    let answer = if answer.is_array() { &answer[0] } else { answer };
    let error = &answer["error"];
    error["message"].is_string() && (error["code"].is_number() || error["code"].is_string())
}

// --- the end ---

/// Waits until nothing is under way or waits any more, by the relay's own metrics.
async fn back_at_rest(relay: &Relay) {
    let client: Client<Full<Bytes>> = Client::builder().base_url(relay.operator_uri()).build().unwrap();
    let until = Instant::now() + LOST;
    loop {
        let request = Request::get("/metrics").body(Full::default()).unwrap();
        let metrics = client.clone().oneshot(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        let metrics = String::from_utf8_lossy(&metrics).into_owned();
        let of_now = [
            "tower_gemini_calls_active",
            "tower_gemini_attempts_active",
            "tower_gemini_limit_waiting",
            "relay_queue_waiting",
            "relay_connections_busy",
        ];
        let gauges = || metrics.lines().filter(|line| of_now.iter().any(|name| line.starts_with(name)));
        assert!(gauges().count() > 0, "no gauge: {metrics}");
        let busy: Vec<_> = gauges().filter(|line| !line.ends_with(" 0")).collect();
        if busy.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "not at rest: {busy:#?}");
        sleep(Duration::from_millis(200)).await;
    }
}

/// Returns the relay's memory in KiB.
fn resident(relay: &Relay) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", relay.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// Returns the number of the relay's open file descriptors.
fn descriptors(relay: &Relay) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", relay.id())).unwrap().count()
}
