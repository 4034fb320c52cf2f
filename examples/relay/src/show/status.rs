//! The three pages, and how they read the current state from the handles.
//!
//! `/status` is JSON: first the problems and what to do about them, then the state of each model, key and chain, then
//! the last failures that callers have seen. `/` shows the same as a page for people, `/metrics` is for Prometheus.
//! Keys are shown by name and fingerprint; nothing of a prompt is shown.
//!
//! They tell names of models, projects, keys and callers, and addresses: the operators' listener lets nobody else see them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use axum::{Json, Router, response::Html, routing::get};
use http::{
    StatusCode,
    header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE},
};
use serde::Serialize;
use tokio::time::Instant;
use tower_gemini::{
    caller_limit::CallerLimits,
    circuit_breaker::{CircuitBreakers, State},
    clock,
    key_pool::KeyPool,
    observe::{Observe, Reading},
    rate_limit::Limiter,
    stack::GeminiLayer,
    telemetry::{Conventions, Gauges},
};

use crate::show::{
    failures::Failures,
    history::MINUTES,
    kept::KeptView,
    metrics::{self, Exporter, observe_queue},
    model::{HourView, LatelyView, ModelView},
    page,
    parked::{ParkedView, place},
    problems::{Problem, problems},
    reloads::{Reloads, SettingsView},
    store::{ShownStore, StoreView},
    view::{CallerView, ChainView, FailureView, KeyView, LimitView, QueueView, seconds},
};

/// The most models that are shown; those in trouble come first. Callers can invent names.
const MODELS: usize = 100;

/// The handles of the stack in force.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) gemini: GeminiLayer,
    pub(crate) failures: Failures,
    pub(crate) reloads: Reloads,
    /// The store that several relays share, if there is one.
    pub(crate) store: Option<ShownStore>,
    /// The names that the settings give to callers.
    pub(crate) named_callers: HashSet<Arc<str>>,
}

/// The paths of what is shown.
pub(crate) const PATHS: [&str; 4] = [PAGE, STATUS, METRICS, ICON];
const PAGE: &str = "/";
const STATUS: &str = "/status";
const METRICS: &str = "/metrics";
/// Browsers ask for it by themselves.
const ICON: &str = "/favicon.ico";

/// Serves the three pages. `shown` returns the handles of the moment; `gauges` must know the names that metrics may
/// have, and `conventions` are those of its layer.
pub(crate) fn router<F>(gauges: Gauges, conventions: Conventions, shown: F) -> Result<Router, tower::BoxError>
where
    F: Fn() -> Shown + Clone + Send + Sync + 'static,
{
    let exporter = Exporter::install(gauges.watch(CurrentHandles(shown.clone())), conventions)?;
    let started = Instant::now();
    let policy = page::policy();
    let html = async move || ([(CONTENT_SECURITY_POLICY, policy)], page::SAFE, Html(page::PAGE));
    let scraped = shown.clone();
    let status = async move || (page::SAFE, Json(shown().status(started)));
    let metrics = async move || ([(CONTENT_TYPE, metrics::CONTENT)], page::SAFE, exporter.render(&scraped().reloads));
    Ok(Router::new()
        .route(PAGE, get(html))
        .route(STATUS, get(status))
        .route(METRICS, get(metrics))
        .route(ICON, get(async || StatusCode::NO_CONTENT)))
}

/// The handles that are in force at the moment of a scrape.
struct CurrentHandles<F>(F);

impl<F: Fn() -> Shown + Send + Sync> Observe for CurrentHandles<F> {
    fn observe(&self, say: &mut dyn FnMut(Reading<'_>)) {
        let Shown { gemini, named_callers, store, .. } = (self.0)();
        let handles = [
            gemini.limiter().map(|limiter| limiter as &dyn Observe),
            gemini.callers().map(|callers| callers as &dyn Observe),
            gemini.breakers().map(|breakers| breakers as &dyn Observe),
            gemini.keys().map(|keys| keys as &dyn Observe),
            Some(gemini.replay_memory() as &dyn Observe),
            store.as_ref().map(|store| &store.store as &dyn Observe),
        ];
        handles.into_iter().flatten().for_each(|handle| handle.observe(say));
        if let Some(limiter) = gemini.limiter() {
            observe_queue(limiter, &named_callers, say);
        }
    }
}

/// The content of `/status`.
#[derive(Serialize)]
struct Status {
    #[serde(rename = "wrong")]
    problems: Vec<Problem>,
    time: String,
    running_for_s: f64,
    settings: SettingsView,
    history: HistoryView,
    /// The refusals that are believed, in the order of the keys.
    parked: Vec<ParkedView>,
    queue: Vec<QueueView>,
    models: Vec<ModelView>,
    models_left_out: usize,
    callers: Vec<CallerView>,
    keys: Vec<KeyView>,
    kept: KeptView,
    store: Option<StoreView>,
    chains: Vec<ChainView>,
    failures: Vec<FailureView>,
}

/// The last hour of all calls.
#[derive(Serialize)]
struct HistoryView {
    minutes: usize,
    #[serde(flatten)]
    hour: HourView,
}

impl Shown {
    fn status(&self, started: Instant) -> Status {
        let now = Instant::now();
        let keys: Vec<_> =
            self.gemini.keys().map(KeyPool::snapshot).unwrap_or_default().iter().map(KeyView::of).collect();
        let (hour, mut models) = self.models(&keys, now);
        let chains = self.gemini.chains().map(|chains| chains.snapshot()).unwrap_or_default();
        let chains: Vec<_> = chains.iter().map(ChainView::of).collect();
        let callers = self.gemini.callers().map(CallerLimits::snapshot).unwrap_or_default();
        let callers = callers.iter().map(CallerView::of).collect();
        let failures: Vec<_> = self.failures.latest().iter().map(|record| FailureView::of(record, now)).collect();
        let kept = KeptView::of(&self.gemini.replay_memory().snapshot());
        let mut problems = problems(&models, &keys, &chains, &failures);
        problems.extend(self.reloads.problem());
        let store = self.store.as_ref().map(|store| StoreView::of(&store.store.report(), store.news.report()));
        problems.extend(kept.problem());
        problems.extend(store.iter().flat_map(StoreView::problems));
        problems.sort_by_key(|problem| problem.level);
        let parked = ParkedView::all(&models, &keys);
        let queue = self.gemini.limiter().map(Limiter::waiting).unwrap_or_default();
        let mut queue: Vec<_> = queue.iter().map(QueueView::of).collect();
        queue.sort_by_key(|each| (Reverse(each.waiting), each.caller.clone(), each.priority));
        let models_left_out = models.len().saturating_sub(MODELS);
        models.truncate(MODELS);
        Status {
            problems,
            time: humantime::format_rfc3339_seconds(clock::wall()).to_string(),
            running_for_s: seconds(now - started),
            settings: self.reloads.view(now),
            history: HistoryView { minutes: MINUTES, hour },
            parked,
            queue,
            models,
            models_left_out,
            callers,
            keys,
            kept,
            store,
            chains,
            failures,
        }
    }

    /// Returns the last hour of all calls, and the models that are in use or in trouble, the latter first.
    fn models(&self, keys: &[KeyView], now: Instant) -> (HourView, Vec<ModelView>) {
        let mut models = BTreeMap::<String, ModelView>::new();
        let name = |name: &str| match name {
            // Lists and counts have breakers, too.
            "" => "(calls to no model)".to_owned(),
            name => self.failures.clean(name),
        };
        let named = |name: &String| ModelView::named(name.clone());
        for (target, state) in self.gemini.breakers().into_iter().flat_map(CircuitBreakers::snapshot) {
            if state != State::Closed {
                let name = name(target.model());
                let model = models.entry(name.clone()).or_insert_with(|| named(&name));
                // Of several endpoints, the worst state is shown.
                if model.breaker.is_none_or(|known| severity(state) > severity_of(known)) {
                    model.breaker = Some(state.as_str());
                }
            }
        }
        for report in self.gemini.limiter().map(Limiter::snapshot).unwrap_or_default() {
            let used = report.dimensions.iter().any(|dimension| dimension.used > 0);
            // A name without any use may be a caller's invention.
            if used || !report.blocks.is_empty() || report.waiting > 0 {
                let name = name(report.scope.model());
                models.entry(name.clone()).or_insert_with(|| named(&name)).limits.push(LimitView::of(&report));
            }
        }
        let (hour, followed) = self.failures.history(now);
        let mut lately = BTreeMap::new();
        for (name, recent, hour) in followed {
            let model = models.entry(name.clone()).or_insert_with(|| named(&name));
            (model.last_5_min, model.history) = (Some(LatelyView::of(&recent)), Some(HourView::of(hour)));
            lately.insert(name, recent);
        }
        let mut models: Vec<_> = models.into_values().collect();
        for model in &mut models {
            if self.gemini.breakers().is_some() {
                model.breaker = model.breaker.or(Some(State::Closed.as_str()));
            }
            model.limits.sort_by(|one, other| place(keys, &one.project).cmp(&place(keys, &other.project)));
            model.derive(keys, lately.get(&model.model));
        }
        models.sort_by_cached_key(|model| (Reverse(model.trouble()), model.model.clone()));
        (HourView::of(hour), models)
    }
}

/// Returns a greater number for a state in which fewer calls pass.
fn severity(state: State) -> usize {
    severity_of(state.as_str())
}

fn severity_of(state: &str) -> usize {
    let states = [State::Closed, State::ForcedClosed, State::Ramping, State::HalfOpen, State::Open, State::ForcedOpen];
    states.iter().position(|each| each.as_str() == state).unwrap_or_default()
}
