//! The place where the layers go, and what is known outlives them.

use std::{convert::Infallible, fmt, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use parking_lot::RwLock;
use tokio::task::JoinSet;
use tower::{BoxError, ServiceBuilder, ServiceExt, layer::layer_fn, service_fn, util::BoxCloneSyncService};
use tower_gemini::{
    ConfigError,
    body::ReplayBody,
    circuit_breaker::{CircuitBreakerLayer, CircuitBreakers},
    classify::ClassifyLayer,
    emulator::Emulator,
    error_response::ErrorResponseLayer,
    key_pool::KeyPoolLayer,
    model_fallback::ModelFallbackLayer,
    models::ModelTable,
    quota::{Gate, Headroom, Scope},
    rate_limit::{Limiter, RateLimitLayer},
    replay::{Oversize, ReplayLayer},
    retry::{RetryBudget, RetryLayer, RetryPolicy},
    stack::{Gemini, GeminiBuilder, GeminiLayer},
    telemetry::TelemetryLayer,
    timeout::TimeoutLayer,
    token_precheck::TokenPrecheckLayer,
};

use crate::{
    door::Door,
    failures::Failures,
    settings::{Settings, Upstream},
};

/// A relay's layers, as its settings want them.
pub(crate) struct Stack {
    pub(crate) settings: Settings,
    /// The layers, and through them all handles.
    pub(crate) gemini: GeminiLayer,
    pub(crate) service: Router,
    warnings: Vec<String>,
    parts: Parts,
    /// Ended when the stack is dropped; the calls under way go on.
    _upkeep: JoinSet<Infallible>,
}

/// What is known, and what it is kept in.
#[derive(Clone)]
struct Parts {
    transport: Transport,
    precheck: TokenPrecheckLayer,
    door: Door,
    fallback: ModelFallbackLayer,
    budget: RetryBudget,
    limiter: Wired<Limiter>,
    breakers: Wired<Option<CircuitBreakers>>,
    /// It knows the names of models that metrics may have.
    telemetry: TelemetryLayer,
    failures: Failures,
}

/// The layers that come of settings alone, to see whether they fit together.
pub(crate) fn plan(settings: &Settings) -> Result<GeminiLayer, ConfigError> {
    builder(settings)
        .fallback_layer(settings.fallback.clone())
        .precheck(settings.precheck.layer(ModelTable::new()))
        .retry(settings.retry.clone())
        .breaker(breaker(settings.breaker.clone()))
        .limiter(settings.limits.clone())
        .keys(settings.keys.builder()?)
        .build()
}

/// Plain settings; nothing that has a state.
fn builder(settings: &Settings) -> GeminiBuilder {
    let clocks = &settings.timeout;
    GeminiLayer::relay()
        .total(clocks.total)
        .attempt(clocks.attempt)
        .first_content(clocks.first_event)
        .idle(clocks.idle)
        .replay(ReplayLayer::new().max_body(settings.max_body).oversize(Oversize::Refuse))
}

fn breaker(breakers: Option<CircuitBreakers>) -> CircuitBreakerLayer {
    breakers.map_or_else(CircuitBreakerLayer::disabled, CircuitBreakerLayer::new)
}

impl Stack {
    /// The layers, outermost first, around the transport. What `before` has learned is kept, where the settings are the same
    /// under which it was learned.
    pub(crate) fn new(settings: Settings, before: Option<&Self>) -> Result<Self, BoxError> {
        let planned = plan(&settings)?;
        let door = Door::new(settings.door.clone(), before.map(|before| &before.parts.door));
        // What was shown is shown on, whoever is asked: the exporter has the names of this telemetry for good.
        let known = before.map(|before| (before.parts.telemetry.clone(), before.parts.failures.clone()));
        let (telemetry, failures) = known.unwrap_or_else(|| (TelemetryLayer::call(), Failures::new()));
        // Another upstream knows nothing of what the one before has said.
        let before = before.filter(|before| before.is_as(&settings, "upstream"));
        let kept = |section| Some(&before.filter(|before| before.is_as(&settings, section))?.parts);

        let transport =
            match before.filter(|before| !settings.upstream.is_emulator() || before.is_as(&settings, "keys")) {
                Some(before) => before.parts.transport.clone(),
                None => transport(&settings)?,
            };
        let models = before.and_then(|before| before.gemini.models().cloned());
        let precheck = match kept("precheck") {
            Some(parts) => parts.precheck.clone(),
            None => settings.precheck.layer(models.unwrap_or_default()),
        };
        let fallback = kept("fallback").map_or_else(|| settings.fallback.clone(), |parts| parts.fallback.clone());
        let budget = before.map(|before| before.parts.budget.clone()).unwrap_or_default();

        // They ask each other, and each can be replaced without the other.
        let breakers = match kept("breaker") {
            Some(parts) => parts.breakers.get(),
            None => planned.breakers().cloned(),
        };
        let (wired_breakers, wired_limiter) = match before.map(|before| &before.parts) {
            Some(Parts { breakers, limiter, .. }) => (breakers.clone(), Some(limiter.clone())),
            None => (Wired::new(breakers.clone()), None),
        };
        let limiter = match kept("limits") {
            Some(parts) => parts.limiter.get(),
            None => settings.limits.clone().gate(wired_breakers.clone()).build(),
        };
        let wired_limiter = wired_limiter.unwrap_or_else(|| Wired::new(limiter.clone()));
        let pool = match before.and_then(|before| Some((before, before.gemini.keys()?))) {
            Some((before, pool)) if settings.keys.take_over(&before.settings.keys, pool)? => pool.clone(),
            _ => settings.keys.builder()?.headroom(wired_limiter.clone()).build()?,
        };

        failures.hide(settings.keys.each().map(|(key, _)| key));

        let gemini = builder(&settings)
            .telemetry(telemetry.clone(), TelemetryLayer::attempt())
            .fallback_layer(fallback.clone())
            .precheck(precheck.clone())
            .retry(settings.retry.clone().budget(budget.clone()))
            .breaker(breaker(breakers.clone()))
            .rate_limit(RateLimitLayer::new(limiter.clone()))
            .key_pool(KeyPoolLayer::new(pool.clone()))
            .build()?;
        // Nothing can fail any more.
        wired_breakers.set(breakers);
        wired_limiter.set(limiter);

        let errors = settings.keys.each().fold(ErrorResponseLayer::new(), |layer, (key, _)| layer.secret(key));
        let at_door = door.clone();
        let service = ServiceBuilder::new()
            .layer(errors)
            // Where a failure is still what it was.
            .layer(failures.clone())
            .layer(layer_fn(move |inner: Gemini<Transport>| {
                let door = at_door.clone();
                service_fn(move |request| door.clone().pass(request, inner.clone()))
            }))
            .layer(gemini.clone())
            .service(transport.clone());
        let service = Router::new().fallback_service(service);
        let upkeep = upkeep(&gemini, transport.clone());
        let (limiter, breakers) = (wired_limiter, wired_breakers);
        let parts = Parts { transport, door, precheck, fallback, budget, limiter, breakers, telemetry, failures };
        let warnings = planned.warnings().to_vec();
        Ok(Self { settings, gemini, service, warnings, parts, _upkeep: upkeep })
    }

    /// The last failures that callers have seen.
    pub(crate) fn failures(&self) -> &Failures {
        &self.parts.failures
    }

    /// The layer that sees each call.
    pub(crate) fn telemetry(&self) -> &TelemetryLayer {
        &self.parts.telemetry
    }

    /// What is not wrong, but may surprise.
    pub(crate) fn remarks(&self) -> impl Iterator<Item = &String> {
        self.settings.remarks.iter().chain(&self.warnings)
    }

    /// Whether its settings say the same in that section.
    fn is_as(&self, settings: &Settings, section: &str) -> bool {
        self.settings.file.get(section) == settings.file.get(section)
    }
}

/// What the relay asks for itself pays no quota, and may find out that all is well again: no queue, no breaker.
fn upkeep(gemini: &GeminiLayer, transport: Transport) -> JoinSet<Infallible> {
    let mut tasks = JoinSet::new();
    let own = transport.map_request(|request: Request<Empty<Bytes>>| request.map(|_| ReplayBody::from(Bytes::new())));
    let Some(pool) = gemini.keys() else { return tasks };
    // Keys that were refused are tried again by and by.
    let again = pool.recheck(ServiceBuilder::new().layer(ClassifyLayer::new()).service(own.clone()));
    tasks.spawn(again);
    if let Some(models) = gemini.models() {
        let lists = ServiceBuilder::new()
            // Nobody waits for it for longer.
            .layer(TimeoutLayer::total(TokenPrecheckLayer::ASK_TIMEOUT))
            .layer(RetryLayer::new(RetryPolicy::default().max_attempts(3)))
            .layer(KeyPoolLayer::new(pool.clone()))
            .layer(ClassifyLayer::new())
            .service(own);
        // Asked for only when a caller names a model that nobody knows.
        tasks.spawn(models.refresh_on_demand(lists));
    }
    tasks
}

// === Wired ===

/// The handle that is in use just now, for others who ask it, and who may outlive it.
#[derive(Clone, Debug)]
struct Wired<T>(Arc<RwLock<T>>);

impl<T: Clone> Wired<T> {
    fn new(handle: T) -> Self {
        Self(Arc::new(RwLock::new(handle)))
    }

    fn get(&self) -> T {
        self.0.read().clone()
    }

    fn set(&self, handle: T) {
        *self.0.write() = handle;
    }
}

/// Nobody queues for a model that is down.
impl Gate for Wired<Option<CircuitBreakers>> {
    fn closed_for(&self, scope: &Scope) -> Option<Duration> {
        self.get()?.closed_for(scope)
    }
}

/// A call goes to the project where it waits least.
impl Headroom for Wired<Limiter> {
    fn headroom(&self, scope: &Scope, tokens: u64) -> Duration {
        self.get().headroom(scope, tokens)
    }
}

// === the transport ===

/// What the innermost layer sends, and gets.
type Transport = BoxCloneSyncService<Request<ReplayBody<Body>>, Response<Body>, BoxError>;

fn transport(settings: &Settings) -> Result<Transport, BoxError> {
    match &settings.upstream {
        Upstream::Emulator => {
            let emulator =
                settings.keys.each().fold(Emulator::builder(), |emulator, (key, project)| emulator.key(key, project));
            Ok(boxed(emulator.build()))
        }
        Upstream::Address(client) => Ok(boxed(client.clone().build()?)),
    }
}

/// The emulator and the client differ in type only.
fn boxed<S, R>(service: S) -> Transport
where
    S: tower::Service<Request<ReplayBody<Body>>, Response = Response<R>, Error = BoxError, Future: Send>,
    S: Clone + Send + Sync + 'static,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    BoxCloneSyncService::new(service.map_response(|response: Response<R>| response.map(Body::new)))
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack").field("gemini", &self.gemini).finish_non_exhaustive()
    }
}
