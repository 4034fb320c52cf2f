//! The relay's alert rules and dashboard, held against the metrics that the relay exports: every name in them exists,
//! and the rules fire in an outage and are quiet on a good day.

#![cfg(unix)] // as tests/relay.rs, with which it shares the process's harness
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_day;
mod relay_process;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use http::StatusCode;
use serde_json::{Value, json};
use tower_gemini::emulator::{Trouble, When};

use relay_day::{Day, KEYS};

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/alerts.yml");
const FLASH: &str = "gemini-2.5-flash:generateContent";
const STREAM: &str = "gemini-2.5-flash:streamGenerateContent?alt=sse";
const LITE: &str = "gemini-2.5-flash-lite:generateContent";
const PRO: &str = "gemini-2.5-pro:generateContent";

/// Settings with retries, waits in the queue, and a day's quota that is soon used up.
const SETTINGS: &str = "
[retry]
max_attempts = 2
base_delay = \"1ms\"
on_open = \"fail\"
[breaker]
mode = \"consecutive\"
open = \"60s\"
max_open = \"60s\"
[limits.\"gemini-2.5-flash\"]
rpm = 3000
pacing = \"smooth\"
[limits.\"gemini-2.5-flash-lite\"]
rpd = 20
";

// === names ===

#[tokio::test]
async fn every_metric_and_label_in_rules_and_dashboard_is_one_that_the_relay_exports() {
    // A store that is away has all metrics of one, too.
    let day = Day::begin_with(&format!("{SETTINGS}[store]\nredis = \"redis://127.0.0.1:1\"\n")).await;
    good_calls(&day).await;
    bad_calls(&day).await;
    day.turns_bad().await;
    let (mut names, mut labels) = (BTreeSet::new(), BTreeSet::from(["instance".to_owned()]));
    for series in scrape(&day).await.into_keys() {
        let (name, of) = series.split_once('{').unwrap();
        names.insert(name.to_owned());
        let of = of.trim_end_matches('}').split(',').filter_map(|label| label.split_once('='));
        labels.extend(of.map(|(label, _)| label.to_owned()));
    }

    let mut texts: Vec<String> = shown().map(|(expr, legend)| format!("{expr} {legend}")).collect();
    assert!(texts.len() > 10, "{texts:?}");
    texts.push(dashboard()["templating"]["list"][1]["query"].as_str().unwrap().to_owned());
    texts.push(std::fs::read_to_string(RULES).unwrap());
    let mut metrics = BTreeSet::new();
    for text in &texts {
        for word in text.split(|of: char| !(of.is_ascii_alphanumeric() || of == '_')) {
            if ["gen_ai_", "tower_gemini_", "relay_"].iter().any(|of| word.starts_with(of)) {
                assert!(names.contains(word) || labels.contains(word), "{word} is not exported, in {text}");
                metrics.extend(names.get(word));
            }
        }
        let grouped =
            text.split("by (").skip(1).filter_map(|rest| rest.split_once(')')).flat_map(|(of, _)| of.split(','));
        for label in grouped.map(str::trim) {
            assert!(labels.contains(label), "no {label} is exported, in {text}");
        }
    }
    assert!(metrics.len() > 15, "{metrics:?}");
}

#[test]
fn each_panel_of_the_dashboard_has_a_place_of_its_own() {
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard()["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{}", panel["id"]);
        let place = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(x < 24 && taken.insert((x, y)), "{} is over another panel", panel["title"]);
            }
        }
        // An override is of a series that there is: it goes by the legend.
        for each in panel["fieldConfig"]["overrides"].as_array().unwrap() {
            let legends = panel["targets"].as_array().unwrap().iter().map(|target| &target["legendFormat"]);
            assert!(legends.clone().any(|legend| *legend == each["matcher"]["options"]), "{each}");
        }
    }
}

fn dashboard() -> Value {
    serde_json::from_str(include_str!("../dashboard.json")).unwrap()
}

/// Returns the expressions and legends of the dashboard's panels.
fn shown() -> impl Iterator<Item = (String, String)> {
    let targets = dashboard()["panels"].as_array().unwrap().clone().into_iter();
    let targets = targets.flat_map(|panel| panel["targets"].as_array().unwrap().clone());
    targets.map(|target| ["expr", "legendFormat"].map(|name| target[name].as_str().unwrap().to_owned()).into())
}

// === fire ===

#[tokio::test]
#[ignore = "needs promtool; .ci/run runs it"]
async fn in_an_outage_the_rules_fire_and_on_a_good_day_they_are_quiet() {
    let day = Day::begin_with(SETTINGS).await;
    let mut recorded = Recorded::default();
    for _ in 0..40 {
        good_calls(&day).await;
        recorded.add(scrape(&day).await);
    }
    assert_eq!(recorded.alerts("good", "ALERTS"), [""; 0]);

    day.turns_bad().await;
    // More than the day's quota.
    for _ in 0..25 {
        day.ask(LITE, "hello").await;
    }
    for _ in 0..30 {
        bad_calls(&day).await;
        recorded.add(scrape(&day).await);
    }
    let outage = ["GeminiCallersSeeErrors", "GeminiKeyDisabled", "GeminiModelDown", "GeminiQuotaNearlyUsed"];
    assert_eq!(recorded.alerts("outage", FIRING), outage);
    for expr in shown().map(|(expr, _)| expr) {
        // Grafana replaces these.
        let expr = expr.replace("$__rate_interval", "5m").replace("$instance", ".*");
        let got = recorded.evaluate("panel", &expr);
        assert!(got.contains(char::is_numeric), "{expr} shows nothing: {got}");
    }

    day.emulator.trouble(When::always().key(KEYS[0]), Trouble::leaked_key());
    for _ in 0..12 {
        bad_calls(&day).await;
        recorded.add(scrape(&day).await);
    }
    let firing = recorded.alerts("keyless", FIRING);
    assert!(firing.iter().any(|alert| alert == "GeminiNoKeyLeft"), "{firing:?}");
}

const FIRING: &str = "ALERTS{alertstate=\"firing\"}";

/// Makes calls that are answered, one of them at the second attempt, and one that is a caller's mistake.
async fn good_calls(day: &Day) {
    let visits = day.emulator.journal().len() as u64;
    day.emulator.trouble(When::nth(visits + 1), Trouble::overloaded());
    for model in [FLASH, PRO] {
        assert_eq!(day.ask(model, "hello").await, StatusCode::OK);
    }
    assert_eq!(day.ask("nobody-knows-it:generateContent", "hello").await, StatusCode::NOT_FOUND);
}

async fn bad_calls(day: &Day) {
    day.ask(PRO, "hello").await;
    day.ask(STREAM, "hello").await;
    // All at once, so that some wait.
    tokio::join!(day.ask(FLASH, "a"), day.ask(FLASH, "b"), day.ask(FLASH, "c"));
}

/// Returns the value of each series, with a label `instance` as Prometheus gives it.
async fn scrape(day: &Day) -> BTreeMap<String, String> {
    let text = day.get("/metrics").await.into_body();
    let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    samples
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            (format!("{name}{{instance=\"relay\",{labels}"), value.to_owned())
        })
        .collect()
}

/// A series of scrapes. Each counts as a quarter of a minute, however soon it was, so that the test need not wait:
/// `promtool` judges the rules on a clock of its own.
#[derive(Default)]
struct Recorded {
    scrapes: Vec<BTreeMap<String, String>>,
}

impl Recorded {
    fn add(&mut self, scrape: BTreeMap<String, String>) {
        self.scrapes.push(scrape);
    }

    /// Returns the names of the alerts that fire at the end.
    fn alerts(&self, name: &str, which: &str) -> Vec<String> {
        let got = self.evaluate(name, &format!("max by (alertname) ({which})"));
        let mut names: Vec<_> =
            got.split("alertname=\"").skip(1).filter_map(|rest| rest.split('"').next().map(str::to_owned)).collect();
        names.sort();
        names
    }

    /// Returns the value that promtool has for an expression at the end.
    fn evaluate(&self, name: &str, expr: &str) -> String {
        let all: BTreeSet<&String> = self.scrapes.iter().flat_map(BTreeMap::keys).collect();
        let series: Vec<Value> = all
            .into_iter()
            .map(|series| {
                let value =
                    |scrape: &BTreeMap<String, String>| scrape.get(series).map_or("_", String::as_str).to_owned();
                let values: Vec<_> = self.scrapes.iter().map(value).collect();
                json!({"series": series.replace(",}", "}"), "values": values.join(" ")})
            })
            .collect();
        let query = json!({
            "expr": expr,
            "eval_time": format!("{}s", (self.scrapes.len() - 1) * 15),
            // This expectation never holds, and promtool prints the real value.
            "exp_samples": [{"labels": "{alertname=\"none\"}", "value": 7}],
        });
        let test = json!({
            "rule_files": [RULES],
            "evaluation_interval": "15s",
            "tests": [{"interval": "15s", "input_series": series, "promql_expr_test": [query]}],
        });
        let file = format!("alerts-{}-{name}.yml", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
        std::fs::write(&path, test.to_string()).unwrap();
        let output =
            Command::new("promtool").args(["test", "rules"]).arg(&path).output().expect("there is no promtool");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let (_, got) = said.split_once("got:").unwrap_or_else(|| panic!("promtool: {said}, of {}", path.display()));
        std::fs::remove_file(&path).unwrap();
        got.trim().to_owned()
    }
}
