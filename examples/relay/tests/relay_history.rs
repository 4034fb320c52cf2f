//! The page says how each model is, draws the last hour, and lifts what is parked: as JSON, and in a browser.

#![cfg(unix)] // as tests/relay.rs, with which it shares the process's harness
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_day;
mod relay_page;
mod relay_process;

use std::{net::SocketAddr, time::Duration};

use http::StatusCode;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{sleep, timeout},
};
use tower_gemini::emulator::{Emulator, Trouble, When};

use relay_day::Day;
use relay_page::Page;
use relay_process::{PATIENCE, Relay};

const FLASH: &str = "gemini-2.5-flash:generateContent";
const PRO: &str = "gemini-2.5-pro:generateContent";
const ONCE: &str = "[retry]\nmax_attempts = 1\non_open = \"fail\"\n[breaker]\nenabled = false\n";

fn sum(column: &Value) -> u64 {
    let column = column.as_array().unwrap();
    assert_eq!(column.len(), 60);
    column.iter().filter_map(Value::as_u64).sum()
}

fn model<'a>(status: &'a Value, name: &str) -> &'a Value {
    let mut models = status["models"].as_array().unwrap().iter();
    models.find(|model| model["model"] == name).unwrap_or_else(|| panic!("no {name}: {status}"))
}

fn lines(status: &Value) -> Vec<&str> {
    status["wrong"].as_array().unwrap().iter().map(|each| each["what"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_model_all_of_whose_calls_fail_is_not_up_and_is_one_box() {
    let day = Day::begin_with(ONCE).await;
    day.emulator.trouble(When::always().model("gemini-2.5-pro"), Trouble::overloaded());
    for nth in 0..5 {
        assert_eq!(day.ask(FLASH, "hello").await, StatusCode::OK);
        assert_eq!(day.ask(PRO, &format!("hello {nth}")).await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(day.ask("nobody-knows:generateContent", "hello").await, StatusCode::NOT_FOUND);
    }
    let status = day.status().await;
    let pro = model(&status, "gemini-2.5-pro");
    assert_eq!((&pro["state"], &pro["level"], &pro["calls"]), (&"failing".into(), &"bad".into(), &5.into()), "{pro}");
    assert_eq!(pro["says"], "all calls fail: the last 5");
    assert_eq!((sum(&pro["history"]["calls"]), sum(&pro["history"]["failed"])), (5, 5), "{pro}");
    assert_eq!(status["models"][0]["model"], "gemini-2.5-pro", "trouble comes first");
    let flash = model(&status, "gemini-2.5-flash");
    assert_eq!((&flash["state"], &flash["level"]), (&"up".into(), &"good".into()), "{flash}");
    assert!(flash["history"]["hour_p95_ms"].is_u64(), "{flash}");
    assert_eq!(status["models"].as_array().unwrap().len(), 2, "an invented name is no model: {status}");

    let wrong = lines(&status);
    assert_eq!(wrong.len(), 2, "{wrong:#?}");
    assert!(wrong[0].starts_with("All calls to gemini-2.5-pro fail: overloaded, not the callers' fault. 5 calls"));
    assert!(wrong[1].starts_with("5 calls failed in the last 5 minutes: model not found, callers' fault"));

    let history = &status["history"];
    let sums = ["calls", "failed", "failed_by_callers"].map(|column| sum(&history[column]));
    assert_eq!((sums, &history["faults"]["model"]), ([15, 5, 5], &5.into()), "{history}");
    assert_eq!(history["tiers"]["standard"], 15);

    // It answers again.
    day.emulator.clear_troubles();
    for _ in 0..2 {
        assert_eq!(day.ask(PRO, "hello").await, StatusCode::OK);
    }
    let status = day.status().await;
    assert_eq!(model(&status, "gemini-2.5-pro")["state"], "failing_in_part", "{status}");
}

#[tokio::test]
async fn a_model_for_which_no_key_has_quota_is_not_up_and_its_parks_are_in_the_order_of_the_keys() {
    // No call waits for the end of the quota's day, which may be near.
    let day =
        Day::begin_with("[timeout]\ntotal = \"5s\"\n[retry]\nmax_attempts = 4\n[limits.default]\nrpm = 100\n").await;
    for nth in 0..8 {
        assert_eq!(day.ask(FLASH, &format!("hello {nth}")).await, StatusCode::OK);
    }
    let status = day.status().await;
    assert_eq!(model(&status, "gemini-2.5-flash")["state"], "up");
    day.emulator.trouble(When::always(), Trouble::day_quota());
    for nth in 0..4 {
        assert_eq!(day.ask(FLASH, &format!("hello {nth}")).await, StatusCode::TOO_MANY_REQUESTS);
    }
    let status = day.status().await;
    let flash = model(&status, "gemini-2.5-flash");
    assert_eq!((&flash["state"], &flash["level"]), (&"no_quota".into(), &"bad".into()), "{flash}");
    let projects: Vec<_> = flash["limits"].as_array().unwrap().iter().map(|limit| &limit["project"]).collect();
    assert_eq!(projects, ["p1", "p2"]);
    let parked: Vec<_> =
        status["parked"].as_array().unwrap().iter().map(|park| (&park["project"], &park["model"])).collect();
    let flash = Value::from("gemini-2.5-flash");
    assert_eq!(parked, [(&"p1".into(), &flash), (&"p2".into(), &flash)], "each once");
    // Until midnight Pacific, which may be near.
    assert!(status["parked"][0]["back_in_s"].is_f64(), "{status}");
    let wrong = lines(&status);
    assert_eq!(wrong.len(), 1, "{wrong:#?}");
    assert!(
        wrong[0].contains("No key has quota left for gemini-2.5-flash") && wrong[0].contains("failed because of it")
    );
}

#[tokio::test]
async fn an_answer_that_breaks_is_counted_as_failed() {
    let day = Day::begin_with(ONCE).await;
    day.emulator.trouble(When::prompt_contains("break"), Trouble::cut(1));
    for prompt in ["break", "well"] {
        day.ask("gemini-2.5-flash:streamGenerateContent?alt=sse", prompt).await;
    }
    let history = &day.status().await["history"];
    assert_eq!((sum(&history["calls"]), sum(&history["failed"])), (2, 1), "{history}");
    assert_eq!(history["p50_ms"].as_array().unwrap().iter().filter(|time| time.is_u64()).count(), 1);
}

/// Serves an upstream that never ends an answer: to a prompt of `hang` it says nothing, else all of it but its end.
async fn endless(asked: mpsc::Sender<()>) -> SocketAddr {
    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    const EVENT: &str =
        r#"data: {"candidates": [{"content": {"parts": [{"text": "hello"}]}, "finishReason": "STOP"}]}"#;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let request = read_until(&mut stream, "}").await;
            if !request.contains("hang") {
                stream.write_all(format!("{HEAD}{EVENT}\n\n").as_bytes()).await.unwrap();
            }
            asked.send(()).await.unwrap();
            open.push(stream);
        }
    });
    address
}

/// Reads until these words have come, and returns what has come by then.
async fn read_until(stream: &mut TcpStream, words: &str) -> String {
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let read = timeout(PATIENCE, stream.read(&mut piece)).await.expect("no more comes").unwrap();
        all.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&all);
        if text.contains(words) {
            return text.into_owned();
        }
        assert_ne!(read, 0, "no {words:?} in {text}");
    }
}

async fn post(relay: &Relay, path: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(relay.address()).await.unwrap();
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_caller_that_leaves_is_counted_by_its_tier_and_one_with_the_whole_answer_as_answered() {
    let (sender, mut asked) = mpsc::channel(8);
    let upstream = endless(sender).await;
    let relay =
        Relay::start(&format!("upstream = \"http://{upstream}\"\n[[keys]]\nkey = \"key-of-the-relay\"\n")).await;
    let status = async |calls: u64| {
        let ask = async {
            loop {
                let mut stream =
                    TcpStream::connect(relay.operator_uri().strip_prefix("http://").unwrap()).await.unwrap();
                let request = "GET /status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                let status: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
                if sum(&status["history"]["calls"]) == calls {
                    return status;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, ask).await.expect("it is never counted")
    };
    // Model and tier stand in the body alone, and no answer says them.
    let chat =
        r#"{"model": "gemini-2.5-pro", "service_tier": "flex", "messages": [{"role": "user", "content": "hang"}]}"#;
    let stream = post(&relay, "/v1beta/openai/chat/completions", chat).await;
    timeout(PATIENCE, asked.recv()).await.expect("it is never asked");
    drop(stream);
    let history = &status(1).await["history"];
    assert_eq!((&history["tiers"], &history["hour_p50_ms"]), (&serde_json::json!({"flex": 1}), &Value::Null));

    let path = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse";
    let mut stream = post(&relay, path, r#"{"contents": [{"parts": [{"text": "hello"}]}]}"#).await;
    read_until(&mut stream, "finishReason").await;
    drop(stream);
    let status = status(2).await;
    assert_eq!(status["history"]["tiers"], serde_json::json!({"flex": 1, "standard": 1}), "{status}");
    let flash = model(&status, "gemini-2.5-flash");
    assert_eq!((&flash["state"], &flash["last_5_min"]["left"]), (&"up".into(), &0.into()), "{flash}");
}

/// Begins a bad day: one model fails, another has no quota in either project, a key leaks, callers invent names.
async fn bad_day() -> Day {
    // No call waits for the end of the quota's day, which may be near.
    let day = Day::begin_with(&format!("{ONCE}[timeout]\ntotal = \"5s\"\n[limits.default]\nrpm = 60\n")).await;
    for nth in 0..30 {
        assert_eq!(day.ask(FLASH, &format!("hello {nth}")).await, StatusCode::OK);
    }
    day.emulator.trouble(When::always().model("gemini-2.5-pro"), Trouble::overloaded());
    day.emulator.trouble(When::always().model("gemini-2.5-flash-lite"), Trouble::day_quota());
    for nth in 0..6 {
        assert_ne!(day.ask(PRO, &format!("hello {nth}")).await, StatusCode::OK);
        assert_ne!(day.ask("gemini-2.5-flash-lite:generateContent", &format!("hello {nth}")).await, StatusCode::OK);
    }
    for nth in 0..20 {
        assert_ne!(day.ask(&format!("nobody-knows-{nth}:generateContent"), "hello").await, StatusCode::OK);
    }
    day
}

#[tokio::test]
#[ignore = "needs Chromium; .ci/run runs it"]
async fn in_a_browser_the_hour_is_drawn_equal_failures_are_one_card_and_nothing_is_wider_than_a_phone() {
    let day = bad_day().await;
    let mut page = Page::open(&day.relay.operator_uri()).await;
    page.until("document.querySelectorAll('#charts svg').length === 3").await;
    let labels = page.value("[...document.querySelectorAll('#charts svg')].map(each => each.ariaLabel)").await;
    assert!(labels[0].as_str().unwrap().contains("62 in all"), "{labels}");
    assert!(labels[0].as_str().unwrap().contains("12 failed, 20 failed by callers' faults"), "{labels}");
    assert!(
        labels[1].as_str().unwrap().starts_with("Share of calls that fail")
            && labels[2].as_str().unwrap().contains("95 in 100")
    );
    let drawn = page
        .value("[...document.querySelectorAll('#charts rect')].every(each => each.getBoundingClientRect().height > 0)")
        .await;
    assert_eq!(drawn, true);
    let badges = "Object.fromEntries([...document.querySelectorAll('.grid .card')].filter(each => each.querySelector('.badge'))\
        .map(each => [each.querySelector('.name').textContent, each.querySelector('.badge')])\
        .map(([name, badge]) => [name, badge.className + ' ' + badge.textContent]))";
    let badges = page.value(badges).await;
    assert_eq!(badges["gemini-2.5-pro"], "badge is-bad all calls fail: the last 6", "{badges}");
    assert_eq!(badges["gemini-2.5-flash-lite"], "badge is-bad no key has quota", "{badges}");
    assert_eq!(badges["gemini-2.5-flash"], "badge is-good up", "{badges}");
    let cards = page.value("[...document.querySelectorAll('.failure')].map(each => each.innerText)").await;
    let invented: Vec<_> = cards
        .as_array()
        .unwrap()
        .iter()
        .map(|card| card.as_str().unwrap())
        .filter(|card| card.contains("model not found"))
        .collect();
    assert_eq!(invented.len(), 1, "{cards}");
    assert!(invented[0].contains("20 times") && invented[0].contains("and 15 more"), "{cards}");
    // An hour as it may be: a minute without calls parts the lines, and a slow answer alone is a dot.
    let hour = "at('charts').replaceChildren(...charts((() => {
        const calls = Array.from({length: 60}, (_, nth) => nth === 20 || nth === 22 ? 0 : Math.round(40 + 25 * Math.sin(nth / 7) + nth % 5));
        const failed = calls.map((all, nth) => nth > 40 && nth < 48 ? Math.round(all * .4) : nth % 9 ? 0 : Math.min(1, all));
        const p50 = calls.map((all, nth) => all ? 900 + 300 * Math.sin(nth / 5) + (nth > 40 && nth < 48 ? 2500 : 0) : null);
        return {calls, failed, failed_by_callers: calls.map((all, nth) => nth % 6 ? 0 : Math.min(3, all - failed[nth])), p50_ms: p50,
            p95_ms: p50.map((ms, nth) => ms && ms * (2.4 + nth % 3 / 5)), hour_p50_ms: 950, hour_p95_ms: 4200,
            faults: {model: 120, service: 9, caller: 30}, tiers: {standard: 2000, flex: 400}};
    })()))";
    page.looks(1200, "light").await;
    page.value(&format!("{hour}; null")).await;
    page.picture("hour-light.png").await;
    let drawn = "[...document.querySelectorAll('#charts figure')].map(each => ['rect.ok', 'rect.no', 'rect.own', 'polyline', '.dot']\
        .map(shapes => each.querySelectorAll(shapes).length).join())";
    let drawn = page.value(&format!("{hour}; {drawn}")).await;
    assert_eq!(drawn, serde_json::json!(["58,13,10,0,0", "0,13,0,0,0", "0,0,0,4,2"]), "{drawn}");
    page.looks(1200, "dark").await;
    page.value(&format!("{hour}; null")).await;
    page.picture("hour-dark.png").await;
    for (width, scheme) in [(1200, "light"), (1200, "dark"), (375, "light"), (375, "dark")] {
        page.looks(width, scheme).await;
        let wide = page.value("document.documentElement.scrollWidth").await;
        assert!(wide.as_u64().unwrap() <= u64::from(width), "{wide} at {width}");
        page.picture(&format!("{width}-{scheme}.png")).await;
    }
    page.close().await;
}

#[tokio::test]
#[ignore = "needs Chromium; .ci/run runs it"]
async fn in_a_browser_a_button_lifts_what_is_parked() {
    let day = bad_day().await;
    let mut page = Page::open(&day.relay.operator_uri()).await;
    page.until("document.querySelectorAll('.park').length === 2").await;
    assert_eq!(day.status().await["parked"].as_array().unwrap().len(), 2);
    page.value("document.querySelector('.park button').click()").await;
    page.until("document.querySelector('#lifted').textContent.includes('p1, gemini-2.5-flash-lite')").await;
    page.until("document.querySelectorAll('.park').length === 1").await;
    assert_eq!(day.status().await["parked"][0]["project"], "p2", "the other project rests on");
    page.value("document.querySelector('h2 button').click()").await;
    page.until("document.querySelectorAll('.park').length === 0").await;
    assert_eq!(day.status().await["parked"], Value::Array(Vec::new()));
    page.close().await;
}

#[tokio::test]
#[ignore = "needs Chromium; .ci/run runs it"]
async fn in_a_browser_the_page_works_where_the_listener_has_a_token() {
    const TOKEN: &str = "the-word-of-the-operators-of-this-relay";
    const NEXT: &str = "the-next-word-of-the-operators-of-this-relay";
    let emulator = Emulator::builder().key("key-of-the-relay", "p1").build();
    let server = emulator.serve().await.unwrap();
    let settings =
        format!("operator_token = {TOKEN:?}\nupstream = {:?}\n[[keys]]\nkey = \"key-of-the-relay\"\n", server.uri());
    let relay = Relay::start_logging(&settings, &[]).await;
    // As a browser has it once its user has entered it.
    let address = relay.operator_uri().replace("http://", &format!("http://operator:{TOKEN}@"));
    let mut page = Page::open(&address).await;
    let head = |text: &str| format!("document.querySelector('#head').textContent === {text:?}");
    page.until(&head("All is well")).await;
    assert_eq!(page.value("at('token').hidden").await, true);
    page.value("lift({})").await;
    page.until("document.querySelector('#lifted').textContent === 'Nothing was parked any more.'").await;

    // A page that is open asks for the next one.
    relay.reload(&settings.replace(TOKEN, NEXT)).await;
    page.until(&head("The relay asks for its operator's token")).await;
    page.looks(375, "light").await;
    page.picture("token.png").await;
    for (word, says) in [("a-strangers-word", "The token is not the relay's"), (NEXT, "All is well")] {
        assert_eq!(page.value("at('token').hidden").await, false);
        page.value(&format!("at('word').value = {word:?}; at('enter').click()")).await;
        page.until(&head(says)).await;
        assert_eq!(page.value("at('word').value").await, "");
    }
    assert_eq!(page.value("at('token').hidden").await, true);
    page.value("at('lifted').textContent = ''; lift({})").await;
    page.until("document.querySelector('#lifted').textContent === 'Nothing was parked any more.'").await;
    page.close().await;
}
