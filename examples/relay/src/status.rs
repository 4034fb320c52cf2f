//! `/`, `/status` and `/metrics`: what is going on, for whoever looks after the relay.
//!
//! `/status` is JSON: first what is wrong and what to do about it, then how each model, key and chain stands, then the last
//! failures that callers have seen. `/` shows the same as a page for people, `/metrics` is for Prometheus. Keys are shown by
//! name and fingerprint, and of a prompt nothing is shown.
//!
//! None of them asks for a credential. They tell names of models, projects and keys: do not let the public see them.

use std::{cmp::Reverse, collections::BTreeMap, fmt::Write, sync::Arc, time::Duration};

use axum::{Json, Router, response::Html, routing::get};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{
    HeaderName, StatusCode,
    header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS},
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tower_gemini::{
    circuit_breaker::{CircuitBreakers, State},
    clock,
    key_pool::{DisabledReason, KeyPool, KeyReport, KeyState},
    observe::{Observe, Reading},
    rate_limit::{Limiter, ScopeReport},
};

use crate::{
    failures::Noted,
    house::House,
    metrics::Exporter,
    stack::Stack,
    what_to_do::{at_door, what_to_do},
    wrong::{Wrong, wrong},
};

/// No more models are shown; those in trouble come first. Their names are callers' inventions.
const MODELS: usize = 100;

/// Serves the three pages.
pub(crate) fn router(house: Arc<House>) -> Result<Router, tower::BoxError> {
    let gauges = house.now().telemetry().gauges().watch(Handles(house.clone()));
    let exporter = Exporter::install(gauges)?;
    let begun = Instant::now();
    let policy = policy();
    Ok(Router::new()
        .route("/", get(async move || ([(CONTENT_SECURITY_POLICY, policy)], SAFE, Html(PAGE))))
        .route("/status", get(async move || (SAFE, Json(Board(house.now()).status(begun)))))
        // Browsers ask for it by themselves, and the API has none.
        .route("/favicon.ico", get(async || StatusCode::NO_CONTENT))
        .route("/metrics", get(async move || ([(CONTENT_TYPE, TEXT)], SAFE, exporter.render()))))
}

/// The handles that are in use at the moment of asking.
struct Handles(Arc<House>);

impl Observe for Handles {
    fn observe(&self, say: &mut dyn FnMut(Reading<'_>)) {
        let gemini = &self.0.now().gemini;
        let handles = [
            gemini.limiter().map(|limiter| limiter as &dyn Observe),
            gemini.breakers().map(|breakers| breakers as &dyn Observe),
            gemini.keys().map(|keys| keys as &dyn Observe),
        ];
        handles.into_iter().flatten().for_each(|handle| handle.observe(say));
    }
}

/// How everything stands in the stack that serves just now.
struct Board(Arc<Stack>);

impl Board {
    fn status(&self, begun: Instant) -> Status {
        let now = Instant::now();
        let mut models = self.models();
        let chains = self.0.gemini.chains().map_or_else(Vec::new, |chains| {
            let chain = |report: tower_gemini::model_fallback::ChainReport| Chain {
                model: report.model().to_owned(),
                current: report.current().to_owned(),
                away_for_s: report.away_for().map(seconds),
            };
            chains.snapshot().into_iter().map(chain).collect()
        });
        let keys: Vec<_> = self.0.gemini.keys().map(KeyPool::snapshot).unwrap_or_default().iter().map(key).collect();
        let failures: Vec<_> = self.0.failures().latest().iter().map(|noted| failure(noted, now)).collect();
        let wrong = wrong(&models, &keys, &chains, &failures);
        let models_left_out = models.len().saturating_sub(MODELS);
        models.truncate(MODELS);
        Status {
            wrong,
            time: humantime::format_rfc3339_seconds(clock::wall()).to_string(),
            running_for_s: seconds(now - begun),
            models,
            models_left_out,
            keys,
            chains,
            failures,
        }
    }

    /// Models that are in use or in trouble, the latter first.
    fn models(&self) -> Vec<Model> {
        let mut models = BTreeMap::<String, Model>::new();
        let named = |name: &str| {
            // Lists and counts have breakers, too.
            let model = if name.is_empty() { "(calls to no model)".to_owned() } else { self.0.failures().clean(name) };
            Model { model, breaker: None, limits: Vec::new() }
        };
        for (scope, state) in self.0.gemini.breakers().into_iter().flat_map(CircuitBreakers::snapshot) {
            if state != State::Closed {
                // The worst, where there are several endpoints.
                let model = models.entry(scope.model().to_owned()).or_insert_with(|| named(scope.model()));
                let state = Some(state.as_str());
                if !model.is_down() {
                    model.breaker = state;
                }
            }
        }
        for report in self.0.gemini.limiter().map(Limiter::snapshot).unwrap_or_default() {
            let used = report.dimensions.iter().any(|dimension| dimension.used > 0);
            // Names that nobody has answered for are callers' inventions.
            if used || report.blocked_for.is_some() || report.waiting > 0 {
                let name = report.scope.model();
                models.entry(name.to_owned()).or_insert_with(|| named(name)).limits.push(limit(&report));
            }
        }
        let mut models: Vec<_> = models.into_values().collect();
        if self.0.gemini.breakers().is_some() {
            models.iter_mut().for_each(|model| model.breaker = model.breaker.or(Some(State::Closed.as_str())));
        }
        models.sort_by_cached_key(|model| (Reverse(model.trouble()), model.model.clone()));
        models
    }
}

// === what is shown ===

#[derive(Serialize)]
struct Status {
    wrong: Vec<Wrong>,
    time: String,
    running_for_s: f64,
    models: Vec<Model>,
    models_left_out: usize,
    keys: Vec<Key>,
    chains: Vec<Chain>,
    failures: Vec<Failed>,
}

#[derive(Serialize)]
pub(crate) struct Model {
    pub(crate) model: String,
    pub(crate) breaker: Option<&'static str>,
    pub(crate) limits: Vec<Limit>,
}

impl Model {
    /// Whether calls to it are refused for now.
    pub(crate) fn is_down(&self) -> bool {
        let down = [State::Open, State::HalfOpen, State::ForcedOpen].map(State::as_str);
        self.breaker.is_some_and(|state| down.contains(&state))
    }

    /// The more, the sooner somebody should look at it.
    fn trouble(&self) -> u64 {
        let limits = self.limits.iter().map(|limit| {
            let fullest = limit.dimensions.iter().filter_map(Dimension::percent).max().unwrap_or(0);
            fullest.min(100) + if limit.blocked_for_s.is_some() { 200 } else { 0 }
        });
        limits.max().unwrap_or(0) + if self.is_down() { 1_000 } else { 0 }
    }
}

#[derive(Serialize)]
pub(crate) struct Limit {
    pub(crate) project: String,
    pub(crate) blocked_for_s: Option<f64>,
    pub(crate) waiting: usize,
    pub(crate) dimensions: Vec<Dimension>,
}

#[derive(Serialize)]
pub(crate) struct Dimension {
    /// "requests a minute" and the like.
    pub(crate) of: &'static str,
    pub(crate) used: u64,
    pub(crate) max: Option<u64>,
}

impl Dimension {
    pub(crate) fn percent(&self) -> Option<u64> {
        let max = self.max.filter(|max| *max > 0)?;
        Some(self.used.saturating_mul(100) / max)
    }
}

#[derive(Serialize)]
pub(crate) struct Key {
    pub(crate) fingerprint: String,
    pub(crate) name: Option<String>,
    pub(crate) project: String,
    pub(crate) state: &'static str,
    /// Why it is disabled.
    pub(crate) reason: Option<String>,
    /// When all that is cooling or exhausted is back.
    pub(crate) back_in_s: Option<f64>,
    pub(crate) disabled_for_s: Option<f64>,
    pub(crate) what_to_do: Option<&'static str>,
    /// What its project has no quota for just now.
    pub(crate) models: Vec<Out>,
    pub(crate) calls: u64,
}

impl Key {
    /// As people know it.
    pub(crate) fn called(&self) -> String {
        match &self.name {
            Some(name) => format!("{name} ({})", self.fingerprint),
            None => self.fingerprint.clone(),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Out {
    pub(crate) model: String,
    pub(crate) state: &'static str,
    pub(crate) back_in_s: Option<f64>,
}

#[derive(Serialize)]
pub(crate) struct Chain {
    pub(crate) model: String,
    pub(crate) current: String,
    pub(crate) away_for_s: Option<f64>,
}

#[derive(Serialize)]
pub(crate) struct Failed {
    pub(crate) time: String,
    pub(crate) ago_s: f64,
    pub(crate) model: String,
    pub(crate) fault: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) code: u16,
    pub(crate) message: String,
    pub(crate) attempts: u32,
    pub(crate) key: Option<String>,
    pub(crate) in_the_answer: bool,
    pub(crate) what_to_do: &'static str,
}

// === how it is read ===

fn limit(report: &ScopeReport) -> Limit {
    let dimension = |report: &tower_gemini::rate_limit::DimensionReport| Dimension {
        of: report.dimension.as_str(),
        used: report.used,
        max: report.limit,
    };
    Limit {
        project: report.scope.project().to_owned(),
        blocked_for_s: report.blocked_for.map(seconds),
        waiting: report.waiting,
        dimensions: report.dimensions.iter().map(dimension).collect(),
    }
}

fn key(report: &KeyReport) -> Key {
    let disabled = match report.state {
        KeyState::Disabled { reason, since } => Some((reason, since)),
        _ => None,
    };
    let out = report.models.iter().map(|report| Out {
        model: report.model.to_string(),
        state: report.state.as_str(),
        back_in_s: left(report.state),
    });
    Key {
        fingerprint: report.fingerprint.to_string(),
        name: report.name.as_deref().map(str::to_owned),
        project: report.project.to_string(),
        state: report.state.as_str(),
        reason: disabled.map(|(reason, _)| reason.to_string()),
        back_in_s: left(report.state),
        disabled_for_s: disabled.map(|(_, since)| seconds(since)),
        what_to_do: disabled.map(|(reason, _)| match reason {
            DisabledReason::Refused(kind) => what_to_do(kind),
            _ => "Enable it, when it is to serve again: somebody has disabled it by hand.",
        }),
        models: out.collect(),
        calls: report.uses,
    }
}

fn left(state: KeyState) -> Option<f64> {
    match state {
        KeyState::Cooling { left } | KeyState::Exhausted { left } => Some(seconds(left)),
        _ => None,
    }
}

fn failure(noted: &Noted, now: Instant) -> Failed {
    let (kind, fault, what_to_do) = match noted.at_door {
        true => at_door(noted.code),
        false => (noted.kind.as_str(), noted.fault.as_str(), what_to_do(noted.kind)),
    };
    Failed {
        time: humantime::format_rfc3339_seconds(noted.when).to_string(),
        ago_s: seconds(now.saturating_duration_since(noted.at)),
        model: noted.model.clone(),
        fault,
        kind,
        code: noted.code,
        message: noted.message.clone(),
        attempts: noted.attempts,
        key: noted.key.clone(),
        in_the_answer: noted.in_the_answer,
        what_to_do,
    }
}

/// To a tenth: nobody reads more.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

// === the page ===

const PAGE: &str = include_str!("page.html");

/// As Prometheus wants it.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Nobody keeps it, guesses at it, or is told of it.
const SAFE: [(HeaderName, &str); 3] =
    [(CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff"), (REFERRER_POLICY, "no-referrer")];

/// The page may run its own script and no other, whatever somebody calls a model.
fn policy() -> String {
    let mut policy = "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        .to_owned();
    for element in ["script", "style"] {
        let (open, close) = (format!("<{element}>"), format!("</{element}>"));
        let inside = PAGE.split_once(&open).and_then(|(_, rest)| rest.split_once(&close)).map(|(inside, _)| inside);
        let digest = STANDARD.encode(Sha256::digest(inside.unwrap_or_default()));
        // Writing to a String cannot fail.
        let _ = write!(policy, "; {element}-src 'sha256-{digest}'");
    }
    policy
}
