//! `state` of the relay as a process: what holds after a restart, and the files that are ignored or refused.

#![cfg(unix)] // as tests/relay.rs, with which it shares the process's harness
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_process;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tower::ServiceExt;
use tower_gemini::{
    client::Client,
    emulator::{Emulator, Server, Trouble, When},
    quota::Limits,
};

use relay_process::{PATIENCE, Relay, checked, refused};

const FLASH: &str = "gemini-2.5-flash";
const PRO: &str = "gemini-2.5-pro";

/// Keys without the known shape of one.
const KEYS: [&str; 2] = ["first-key-of-the-relay", "second-key-of-the-relay"];
const TOKEN: &str = "a-token-of-a-caller";

/// A folder for a state, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("relay-state-{process}-{number}"));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn state(&self) -> PathBuf {
        self.0.join("state.json")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An upstream that outlives the relays in front of it, and the settings that they share.
struct Place {
    emulator: Emulator,
    server: Server,
    folder: Folder,
    settings: String,
}

impl Place {
    async fn new(emulator: tower_gemini::emulator::EmulatorBuilder, more: &str) -> Self {
        let emulator = emulator.key(KEYS[0], "p1").key(KEYS[1], "p2").build();
        let (server, folder) = (emulator.serve().await.unwrap(), Folder::new());
        let head = format!("upstream = {:?}\nstate = {:?}\n", server.uri(), folder.state());
        let settings = format!("{head}[retry]\nmax_attempts = 1\n{}{more}", key(0));
        Self { emulator, server, folder, settings }
    }

    async fn start(&self) -> Relay {
        Relay::start(&self.settings).await
    }

    /// Starts a relay and returns its log, up to what it says of its state.
    async fn start_logging(&self) -> (Relay, String) {
        let relay = Relay::start_logging(&self.settings, &[]).await;
        let log = relay.logged("state").await;
        (relay, log)
    }

    fn asked(&self) -> usize {
        self.emulator.count(|visit| visit.model.is_some())
    }

    fn kept(&self) -> Value {
        serde_json::from_slice(&fs::read(self.folder.state()).unwrap()).unwrap()
    }
}

fn key(number: usize) -> String {
    format!("[[keys]]\nname = \"k{number}\"\nkey = {:?}\nproject = \"p{}\"\n", KEYS[number], number + 1)
}

async fn ended(mut relay: Relay) {
    relay.terminate().await;
    assert!(relay.ended().await.success());
}

async fn send(relay: &Relay, request: Request<Full<Bytes>>) -> (u16, Value) {
    let client: Client<Full<Bytes>> = Client::builder().base_url(relay.uri_of(request.uri().path())).build().unwrap();
    let response: Response<_> = timeout(PATIENCE, client.oneshot(request)).await.expect("no answer").unwrap();
    let (head, body) = response.into_parts();
    let body = timeout(PATIENCE, body.collect()).await.expect("no end").unwrap().to_bytes();
    (head.status.as_u16(), serde_json::from_slice(&body).unwrap_or_default())
}

/// Asks a model, with a deadline so short that the call never waits for quota. Returns the status, and the layer that has
/// refused it.
async fn ask(relay: &Relay, model: &str) -> (u16, String) {
    let body = json!({ "contents": [{ "parts": [{ "text": "hello" }] }] });
    let request = Request::post(format!("/v1beta/models/{model}:generateContent"))
        .header("x-goog-api-key", TOKEN)
        .header("x-server-timeout", 10);
    let (status, answer) = send(relay, request.body(Full::from(body.to_string())).unwrap()).await;
    let layer = answer["error"]["details"][0]["metadata"]["layer"].as_str().unwrap_or_default();
    (status, layer.to_owned())
}

async fn status(relay: &Relay) -> Value {
    let (status, answer) = send(relay, Request::get("/status").body(Full::default()).unwrap()).await;
    assert_eq!(status, 200);
    answer
}

// --- what holds ---

#[tokio::test]
async fn the_days_count_and_the_minutes_hold_after_a_restart() {
    let limits = "[limits.default]\nrpd = 3\n[limits.\"gemini-2.5-pro\"]\nrpm = 2\n";
    let place = Place::new(Emulator::builder(), limits).await;
    let relay = place.start().await;
    for model in [FLASH, FLASH, PRO, PRO] {
        assert_eq!(ask(&relay, model).await.0, 200);
    }
    ended(relay).await;
    let relay = place.start().await;
    assert_eq!(ask(&relay, PRO).await, (429, "rate_limit".into()), "the minute is not over");
    assert_eq!(ask(&relay, FLASH).await.0, 200);
    assert_eq!(ask(&relay, FLASH).await, (429, "rate_limit".into()));
    ended(relay).await;
    // A third process knows what both have used.
    let relay = place.start().await;
    assert_eq!(ask(&relay, FLASH).await, (429, "rate_limit".into()));
    assert_eq!(place.asked(), 5);
}

#[tokio::test]
async fn what_is_parked_is_not_asked_for_after_a_restart() {
    let place = Place::new(Emulator::builder(), "").await;
    place.emulator.trouble(When::always().model(PRO), Trouble::zero_quota());
    let relay = place.start().await;
    assert_eq!(ask(&relay, PRO).await.0, 429);
    let before = status(&relay).await["keys"][0]["models"].clone();
    assert_eq!(before[0]["reason"], "quota_zero");
    ended(relay).await;
    // The upstream would answer; nobody asks before the look, an hour later.
    place.emulator.clear_troubles();
    let (relay, _) = place.start_logging().await;
    let asked = place.asked();
    let after = status(&relay).await["keys"][0]["models"].clone();
    assert_eq!((&after[0]["model"], &after[0]["part"]), (&before[0]["model"], &before[0]["part"]));
    let asked_again = |models: &Value| models[0]["asked_again_in_s"].as_f64().unwrap();
    let passed = asked_again(&before) - asked_again(&after);
    assert!((-1.5..PATIENCE.as_secs_f64()).contains(&passed), "{before} {after}");
    assert_eq!(ask(&relay, PRO).await.0, 429);
    assert_eq!(place.asked(), asked);
    assert_eq!(ask(&relay, FLASH).await.0, 200);
    // Who knows better lifts it, and the next process knows that.
    relay.lift().await;
    assert_eq!(ask(&relay, PRO).await.0, 200);
    ended(relay).await;
    let relay = place.start().await;
    assert_eq!(ask(&relay, PRO).await.0, 200);
}

#[tokio::test]
async fn a_dead_key_stays_dead_after_a_restart() {
    let mut place = Place::new(Emulator::builder(), "").await;
    place.settings.push_str(&key(1));
    place.emulator.trouble(When::always().key(KEYS[1]), Trouble::leaked_key());
    let relay = place.start().await;
    for call in 0.. {
        ask(&relay, FLASH).await;
        if status(&relay).await["keys"][1]["state"] == "disabled" {
            break;
        }
        assert!(call < 200, "the leaked key is never tried");
    }
    ended(relay).await;
    let emulator = place.emulator.clone();
    let visits = || emulator.count(|visit| visit.trouble.is_some());
    let before = visits();
    assert!(before > 0);
    let (relay, _) = place.start_logging().await;
    let log = relay.logged("key disabled").await;
    assert!(log.contains("key_leaked") || log.contains("leaked"), "{log}");
    assert_eq!(status(&relay).await["keys"][1]["state"], "disabled");
    for _ in 0..30 {
        assert_eq!(ask(&relay, FLASH).await.0, 200);
    }
    assert_eq!(visits(), before);
    // Another key in its place is nobody's enemy.
    ended(relay).await;
    place.settings = place.settings.replace(KEYS[1], "third-key-of-the-relay");
    let relay = place.start().await;
    assert_eq!(status(&relay).await["keys"][1]["state"], "active");
}

#[tokio::test]
async fn a_limit_that_was_learned_holds_after_a_restart_until_another_one_is_set() {
    let place = Place::new(Emulator::builder().limits(Limits::new().requests_per_minute(2)), "").await;
    let relay = place.start().await;
    while ask(&relay, FLASH).await.0 == 200 {}
    let limit = |status: Value| status["models"][0]["limits"][0].clone();
    let learned = limit(status(&relay).await);
    ended(relay).await;
    let relay = place.start().await;
    let kept = limit(status(&relay).await);
    let minute = |limit: &Value| {
        let dimensions = limit["dimensions"].as_array().unwrap();
        dimensions.iter().find(|of| of["of"] == "requests a minute").cloned().unwrap_or_default()
    };
    assert_eq!(minute(&kept)["max"], 2, "{learned} {kept}");
    ended(relay).await;
    let more = Place { settings: format!("{}[limits.default]\nrpm = 100\n", place.settings), ..place };
    let relay = more.start().await;
    assert_eq!(minute(&limit(status(&relay).await))["max"], 100);
    drop(more.server);
}

#[tokio::test]
async fn what_a_caller_has_used_holds_and_the_file_has_no_secret() {
    let caller = format!("[[callers]]\nname = \"app\"\ntoken = {TOKEN:?}\nrpd = 2\n");
    let place = Place::new(Emulator::builder(), &caller).await;
    let relay = place.start().await;
    for _ in 0..2 {
        assert_eq!(ask(&relay, FLASH).await.0, 200);
    }
    ended(relay).await;
    let relay = place.start().await;
    assert_eq!(ask(&relay, FLASH).await, (429, "caller_limit".into()));
    ended(relay).await;
    assert_eq!(place.kept()["version"], 1);
    let text = fs::read_to_string(place.folder.state()).unwrap();
    assert!(text.contains("app") && text.contains(FLASH), "{text}");
    for secret in [KEYS[0], TOKEN, "hello"] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
    assert_eq!(fs::metadata(place.folder.state()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn what_a_caller_has_made_is_its_own_after_a_restart() {
    const OTHER: &str = "a-token-of-another-caller";
    let callers =
        format!("[[callers]]\nname = \"app\"\ntoken = {TOKEN:?}\n[[callers]]\nname = \"other\"\ntoken = {OTHER:?}\n");
    let place = Place::new(Emulator::builder(), &callers).await;
    let call = async |relay: &Relay, method: &str, token: &str, path: &str, body: Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder().method(method).uri(path).header("x-goog-api-key", token);
        send(relay, request.header("content-type", "application/json").body(Full::from(body)).unwrap()).await
    };
    let relay = place.start().await;
    let contents = json!([{ "role": "user", "parts": [{ "text": "x ".repeat(9_000) }] }]);
    let cache = json!({ "model": format!("models/{FLASH}"), "ttl": "600s", "contents": contents });
    let (status, made) = call(&relay, "POST", TOKEN, "/v1beta/cachedContents", cache).await;
    assert_eq!(status, 200, "{made}");
    ended(relay).await;

    let relay = place.start().await;
    let path = format!("/v1beta/{}", made["name"].as_str().unwrap());
    let list = "/v1beta/cachedContents";
    let (_, own) = call(&relay, "GET", TOKEN, list, Value::Null).await;
    assert_eq!(own["cachedContents"][0]["name"], made["name"], "{own}");
    let (_, others) = call(&relay, "GET", OTHER, list, Value::Null).await;
    assert!(!others.to_string().contains(made["name"].as_str().unwrap()), "{others}");
    assert_eq!(call(&relay, "GET", OTHER, &path, Value::Null).await.0, 404);
    assert_eq!(call(&relay, "DELETE", OTHER, &path, Value::Null).await.0, 404);
    assert_eq!(call(&relay, "GET", TOKEN, &path, Value::Null).await.0, 200);
}

#[tokio::test]
async fn a_relay_that_is_killed_loses_the_last_ten_seconds_at_most() {
    let place = Place::new(Emulator::builder(), "[limits.default]\nrpd = 1\n").await;
    let relay = place.start().await;
    assert_eq!(ask(&relay, FLASH).await.0, 200);
    let counts = || place.kept()["limits"]["scopes"][0]["day"][1] == 1;
    let written = async {
        while !place.folder.state().exists() || !counts() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(10) + PATIENCE, written).await.expect("nothing is written");
    // Killed, not told to end.
    drop(relay);
    let relay = place.start().await;
    assert_eq!(ask(&relay, FLASH).await, (429, "rate_limit".into()));
}

// --- what is ignored ---

#[tokio::test]
async fn a_file_that_says_nothing_is_ignored_with_a_word_and_kept_beside() {
    let place = Place::new(Emulator::builder(), "[limits.default]\nrpd = 1\n").await;
    let relay = place.start().await;
    assert_eq!(ask(&relay, FLASH).await.0, 200);
    ended(relay).await;
    let whole = fs::read_to_string(place.folder.state()).unwrap();
    let changed = |name: &str, value: Value| {
        let mut kept: Value = serde_json::from_str(&whole).unwrap();
        kept[name] = value;
        kept.to_string()
    };
    for (file, says) in [
        ("a letter to a friend".to_owned(), "broken"),
        (String::new(), "broken"),
        (whole[..whole.len() / 2].to_owned(), "broken"),
        (changed("version", json!(2)), "version is 2"),
        (changed("limits", json!(7)), "broken"),
        (changed("upstream", json!("ffffffff")), "another upstream"),
        (changed("written", json!(1_000)), "days ago"),
        (changed("written", json!(99_999_999_999u64)), "in the future"),
    ] {
        fs::write(place.folder.state(), &file).unwrap();
        let (relay, log) = place.start_logging().await;
        assert!(log.contains("the state is ignored") && log.contains(says), "{says}: {log}");
        assert_eq!(log.matches("state is ignored").count(), 1);
        assert_eq!(ask(&relay, FLASH).await.0, 200, "{says}");
        assert_eq!(fs::read_to_string(place.folder.0.join("state.json.ignored")).unwrap(), file);
        ended(relay).await;
        assert_eq!(place.kept()["version"], 1, "{says}");
    }
    // The good one holds.
    fs::write(place.folder.state(), &whole).unwrap();
    let (relay, log) = place.start_logging().await;
    assert!(log.contains("took up the state"), "{log}");
    assert_eq!(ask(&relay, FLASH).await.0, 429);
}

#[tokio::test]
async fn a_path_that_cannot_be_written_is_a_mistake_at_the_start_and_at_the_check() {
    let folder = Folder::new();
    for (path, says) in [
        (folder.0.clone(), "is a folder"),
        (folder.0.join("none/state.json"), "cannot be written"),
        ("/dev/null".into(), "no file that can be replaced"),
        ("/proc/state.json".into(), "cannot be written"),
    ] {
        let settings = format!("upstream = \"emulator\"\nstate = {path:?}\n");
        let (code, said) = refused(&settings).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.starts_with("relay.toml: state: ") && said.contains(says), "{said}");
        let (code, _, said) = checked(&settings).await;
        assert!(code == Some(2) && said.contains(says), "{said}");
    }
    let state = folder.state();
    let (code, _, said) = checked(&format!("upstream = \"emulator\"\nstate = {state:?}\n")).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0, "a check leaves nothing");
}

#[tokio::test]
async fn a_relay_whose_state_cannot_be_written_any_more_serves_on_and_ends_well() {
    let place = Place::new(Emulator::builder(), "").await;
    let (relay, log) = place.start_logging().await;
    assert!(log.contains("there is no state yet"), "{log}");
    // It has been written once by then.
    while !place.folder.state().exists() {
        sleep(Duration::from_millis(20)).await;
    }
    fs::remove_dir_all(&place.folder.0).unwrap();
    assert_eq!(ask(&relay, FLASH).await.0, 200);
    relay.terminate().await;
    let log = relay.logged("the state cannot be written").await;
    ended(relay).await;
    assert_eq!(log.matches("cannot be written").count(), 1, "{log}");
}

#[tokio::test]
async fn a_reload_changes_no_place_of_the_state() {
    let place = Place::new(Emulator::builder(), "").await;
    let (relay, _) = place.start_logging().await;
    let other = place.settings.replace("state.json", "other.json");
    let log = relay.reload(&other).await;
    assert!(log.contains("state cannot change while the relay runs"), "{log}");
    ended(relay).await;
    assert!(place.folder.state().exists() && !place.folder.0.join("other.json").exists());
}
