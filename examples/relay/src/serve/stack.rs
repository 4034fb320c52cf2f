//! The place where the layers go, and where handles outlive them.

use std::{convert::Infallible, fmt, sync::Arc};

use axum::body::Body;
use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, layer::layer_fn};
use tower_gemini::{
    ConfigError,
    body::ReplayBody,
    caller_limit::CallerLimits,
    circuit_breaker::CircuitBreakers,
    classify::ClassifyLayer,
    error_response::ErrorResponse,
    key_pool::{DisabledReason, Fingerprint, KeyPool, KeyPoolLayer, KeyReport, KeyState},
    model_fallback::ModelFallbackLayer,
    rate_limit::{Limiter, RateLimitLayer},
    replay::ReplayMemory,
    retry::{RetryBudget, RetryLayer, RetryPolicy},
    service_times::ServiceTimes,
    stack::GeminiLayer,
    telemetry::TelemetryLayer,
    timeout::TimeoutLayer,
    token_precheck::TokenPrecheckLayer,
};

use crate::{
    config::{Plan, Settings, Topic, breaker_layer, builder, caller_layer},
    serve::{
        admission::{Admission, admit},
        always_ready::AlwaysReady,
        cors::Cors,
        headers::KnownKeys,
        lift::{Lift, lift},
        owners::Separation,
        refusal,
        reload::Part,
        store::SharedStore,
        transport::{Transport, transport},
        wired::Wired,
    },
    show::{Failures, RecordFailures, Reloads, Shown},
};

/// The relay's layers around its transport, as its settings want them.
pub(crate) struct Stack {
    pub(crate) settings: Settings,
    /// The layers, and through them all handles.
    pub(crate) gemini: GeminiLayer,
    service: Calls,
    /// The rules for pages, which stand outside of the layers.
    pub(crate) cors: Cors,
    remarks: Vec<String>,
    parts: Parts,
    /// Ended when another stack is in force. Calls under way hold this one for longer.
    upkeep: Mutex<JoinSet<Infallible>>,
}

impl Stack {
    /// Builds the layers around the transport. Of the stack `before`, all parts go on whose settings are the same.
    pub(crate) fn new(plan: Plan, before: Option<&Self>) -> Result<Self, BoxError> {
        let parts = Parts::new(&plan, before)?;
        // The pool may have new keys from here on, and no failure that is shown may name one.
        parts.failures.hide(plan.settings.keys.secrets().map(|(key, _)| key));
        parts.known_keys.learn(plan.settings.keys.secrets().map(|(key, _)| key));
        let remarks = plan.remarks().cloned().collect();
        let settings = plan.settings;
        let gemini = parts.gemini(&settings)?;
        // Nothing can fail any more.
        let same_store = before.is_some_and(|before| Part::Store.goes_on(&before.settings, &settings));
        let former_store = before.filter(|_| !same_store).and_then(|before| before.parts.store.as_ref());
        parts.wire(former_store);
        settings.memory.apply(&parts.memory);
        let service = parts.service(&settings, &gemini);
        let upkeep = Mutex::new(upkeep(&gemini, parts.transport.clone()));
        let cors = Cors::new(settings.access.origins.clone());
        Ok(Self { settings, gemini, service, cors, remarks, parts, upkeep })
    }

    /// Returns the handles that are shown.
    pub(crate) fn shown(&self) -> Shown {
        Shown {
            gemini: self.gemini.clone(),
            failures: self.parts.failures.clone(),
            reloads: self.parts.reloads.clone(),
            store: self.parts.store.as_ref().map(SharedStore::shown),
            named_callers: self.settings.access.callers.names().cloned().collect(),
        }
    }

    /// Returns the layer that sees each call.
    pub(crate) fn telemetry(&self) -> &TelemetryLayer {
        &self.parts.telemetry
    }

    /// Ends the beliefs in refusals for quota, for money or for a closed model, as far as `which` says. Returns what was
    /// parked for that.
    pub(crate) fn lift(&self, which: &Lift) -> Vec<String> {
        lift(&self.gemini, which).iter().map(|line| self.clean(line)).collect()
    }

    /// Cleans a text, so that it may be shown: it has no key in it, and is not too long.
    pub(crate) fn clean(&self, text: &str) -> String {
        self.parts.failures.clean(text)
    }

    /// Ends the relay's own calls; the stack that comes in its place has others.
    pub(crate) fn end_upkeep(&self) {
        self.upkeep.lock().abort_all();
    }

    /// Returns what is known of reloads.
    pub(crate) fn reloads(&self) -> &Reloads {
        &self.parts.reloads
    }

    /// Returns the memory of which caller has made what.
    pub(crate) fn separation(&self) -> &Separation {
        self.parts.admission.separation()
    }

    /// Returns the keys that no answer has.
    pub(crate) fn known_keys(&self) -> &KnownKeys {
        &self.parts.known_keys
    }

    /// Answers a call, through all layers. All of them are ready as the innermost is, which is so always.
    pub(crate) fn call(&self, request: Request<Body>) -> Answered {
        self.service.clone().call(request)
    }

    /// Returns everything that is not wrong but may surprise.
    pub(crate) fn remarks(&self) -> &[String] {
        &self.remarks
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack").field("gemini", &self.gemini).finish_non_exhaustive()
    }
}

/// The layers of one stack. A clone shares all that is large.
type Calls = ErrorResponse<RecordFailures<AlwaysReady<Body>>>;

/// The future of an answer of the layers.
pub(crate) type Answered = <Calls as Service<Request<Body>>>::Future;

// === the parts ===

/// The handles and layers that have a state.
struct Parts {
    transport: Transport,
    /// Bodies of calls under way are in it, whatever stack they have.
    memory: ReplayMemory,
    admission: Arc<Admission>,
    callers: CallerLimits,
    precheck: TokenPrecheckLayer,
    fallback: ModelFallbackLayer,
    budget: RetryBudget,
    /// The times that the upstream's answers take: for the clocks of attempts, and for calls that wait for their turn.
    times: ServiceTimes,
    pool: KeyPool,
    limiter: Limiter,
    /// The store that the limiter and the callers' limits ask, if relays share one.
    store: Option<SharedStore>,
    breakers: Option<CircuitBreakers>,
    wiring: Wiring,
    /// It knows the names of models that metrics may have.
    telemetry: TelemetryLayer,
    failures: Failures,
    reloads: Reloads,
    /// The keys that no answer's head may have.
    known_keys: KnownKeys,
}

/// The cells through which the limiter asks the breakers, and the pool asks the limiter, so that each can be replaced
/// without the other.
#[derive(Clone)]
struct Wiring {
    limiter: Wired<Limiter>,
    breakers: Wired<Option<CircuitBreakers>>,
}

impl Parts {
    /// Takes each part from the stack before, if [it goes on](Part::goes_on), or makes it anew.
    fn new(plan: &Plan, before: Option<&Stack>) -> Result<Self, BoxError> {
        let settings = &plan.settings;
        let kept = |part: Part| {
            let before = before.filter(|before| part.goes_on(&before.settings, settings))?;
            Some(&before.parts)
        };

        let transport = match kept(Part::Transport) {
            Some(parts) => parts.transport.clone(),
            None => transport(settings)?,
        };
        let precheck = match kept(Part::Precheck) {
            Some(parts) => parts.precheck.clone(),
            None => {
                let known = before.filter(|before| Part::Models.goes_on(&before.settings, settings));
                let models = known.and_then(|before| before.gemini.models().cloned());
                settings.precheck.layer(models.unwrap_or_default())
            }
        };
        let fallback = kept(Part::Fallback).map_or(&settings.fallback, |parts| &parts.fallback).clone();
        let same_budget = before.is_some_and(|before| before.settings.retry.budget == settings.retry.budget);
        let budget = match kept(Part::Budget).filter(|_| same_budget) {
            Some(parts) => parts.budget.clone(),
            None => RetryBudget::new(settings.retry.budget),
        };
        let times = kept(Part::Times).map(|parts| parts.times.clone()).unwrap_or_default();
        let breakers = match kept(Part::Breakers) {
            Some(parts) => parts.breakers.clone(),
            None => plan.layers.breakers().cloned(),
        };
        let wired_breakers = match kept(Part::Wiring) {
            Some(parts) => parts.wiring.breakers.clone(),
            None => Wired::new(breakers.clone()),
        };
        let store = match kept(Part::Store) {
            Some(parts) => parts.store.clone(),
            None => settings.store.as_ref().map(SharedStore::connect).transpose()?,
        };
        let limiter = match kept(Part::Limiter) {
            Some(parts) => parts.limiter.clone(),
            None => {
                let limits = settings.limits.clone().service_times(times.clone()).gate(wired_breakers.clone());
                let limiter = store.iter().fold(limits, |limits, store| store.of_limiter(limits)).build();
                // Another store is no reason to forget what has gone to the same upstream under the same limits.
                let same = |before: &&Stack| {
                    [Topic::Upstream, Topic::Limits].iter().all(|topic| settings.agree_on(*topic, &before.settings))
                };
                if let Some(before) = before.filter(same) {
                    limiter.restore(&before.parts.limiter.memory());
                }
                limiter
            }
        };
        let wired_limiter = match kept(Part::Wiring) {
            Some(parts) => parts.wiring.limiter.clone(),
            None => Wired::new(limiter.clone()),
        };
        let wiring = Wiring { limiter: wired_limiter, breakers: wired_breakers };
        let by_hand = before.map(|before| disabled_by_hand(&before.parts.pool)).unwrap_or_default();
        let former_pool = before.filter(|before| Part::Keys.goes_on(&before.settings, settings));
        let pool = match former_pool {
            Some(before) if settings.keys.update(&before.settings.keys, &before.parts.pool)? => {
                before.parts.pool.clone()
            }
            _ => settings.keys.builder()?.headroom(wiring.limiter.clone()).build()?,
        };

        // A key that was disabled by hand stays so, whatever is set.
        let again: Vec<_> = disabled_by_hand(&pool);
        for key in by_hand.iter().filter(|key| !again.contains(key)) {
            // It may have gone.
            let _ = pool.disable(key);
        }

        // Usage stays, whatever is set.
        let callers = {
            let limits = settings.access.callers.limits(&settings.prices);
            let limits = store.iter().fold(limits, |limits, store| store.of_callers(limits));
            match before {
                Some(Stack { parts, .. }) => {
                    parts.callers.replace(limits)?;
                    parts.callers.clone()
                }
                None => limits.build()?,
            }
        };

        // These go on whatever changes. The exporter of metrics has the names of this telemetry for good, failures stay
        // on the page, and those who are inside are counted until they leave.
        let memory = before.map_or_else(|| settings.memory.create(), |before| before.parts.memory.clone());
        let admission = {
            let before = before.map(|before| &*before.parts.admission);
            Arc::new(Admission::new(
                settings.access.clone(),
                settings.max_body,
                memory.clone(),
                settings.keys.secrets().map(|(key, _)| key),
                before,
            ))
        };
        let (telemetry, failures, reloads) = match before {
            Some(Stack { parts, .. }) => (parts.telemetry.clone(), parts.failures.clone(), parts.reloads.clone()),
            None => (settings.telemetry.layer(), Failures::new(refusal::NAME), Reloads::new()),
        };
        telemetry.name_models(settings.models());
        if let Some(models) = precheck.models() {
            telemetry.list_models(models);
        }
        Ok(Self {
            transport,
            memory,
            admission,
            callers,
            precheck,
            fallback,
            budget,
            times,
            pool,
            limiter,
            store,
            breakers,
            wiring,
            telemetry,
            failures,
            reloads,
            known_keys: before.map(|before| before.parts.known_keys.clone()).unwrap_or_default(),
        })
    }

    /// Builds the layers between admission and transport.
    fn gemini(&self, settings: &Settings) -> Result<GeminiLayer, ConfigError> {
        builder(settings, self.memory.clone())
            .service_times(self.times.clone())
            .telemetry(self.telemetry.clone(), TelemetryLayer::attempt())
            .fallback_layer(self.fallback.clone())
            .precheck(self.precheck.clone())
            .callers(caller_layer(settings, &self.callers))
            .retry(settings.retry.policy.clone().budget(self.budget.clone()))
            .breaker(breaker_layer(self.breakers.clone()))
            .rate_limit(RateLimitLayer::new(self.limiter.clone()))
            .key_pool(KeyPoolLayer::new(self.pool.clone()))
            .build()
    }

    /// Puts these limits and breakers in force, for former stacks as well, and this store in place of a former one.
    fn wire(&self, former_store: Option<&SharedStore>) {
        self.wiring.breakers.set(self.breakers.clone());
        self.wiring.limiter.set(self.limiter.clone());
        if let Some(former) = former_store {
            former.end();
        }
        if let Some(store) = &self.store {
            store.tell(&self.pool, self.breakers.as_ref());
        }
    }

    /// Stacks all layers, outermost first, around the transport.
    fn service(&self, settings: &Settings, gemini: &GeminiLayer) -> Calls {
        let errors = settings.keys.secrets().fold(settings.errors.layer(), |layer, (key, _)| layer.secret(key));
        ServiceBuilder::new()
            .layer(errors)
            // Inside of it, a failure is still an error and not a response.
            .layer(self.failures.clone())
            .layer(layer_fn(|inner| admit(self.admission.clone(), inner)))
            .layer(gemini.clone())
            .service(self.transport.clone())
    }
}

/// Returns the keys of a pool that an operator has disabled.
fn disabled_by_hand(pool: &KeyPool) -> Vec<Fingerprint> {
    let by_hand = |key: &KeyReport| matches!(key.state, KeyState::Disabled { reason: DisabledReason::ByHand, .. });
    pool.snapshot().iter().filter(|key| by_hand(key)).map(|key| key.fingerprint).collect()
}

// === upkeep ===

/// Spawns the relay's own calls. They pass no queue and no breaker: they pay no quota, and they may find out that the
/// upstream has recovered.
fn upkeep(gemini: &GeminiLayer, transport: Transport) -> JoinSet<Infallible> {
    let mut tasks = JoinSet::new();
    let own = transport.map_request(|request: Request<Empty<Bytes>>| request.map(|_| ReplayBody::from(Bytes::new())));
    let Some(pool) = gemini.keys() else { return tasks };
    // Keys that were refused are tried again after a while, then less and less often.
    let recheck = pool.recheck(ServiceBuilder::new().layer(ClassifyLayer::new()).service(own.clone()));
    tasks.spawn(recheck);
    if let Some(models) = gemini.models() {
        let lists = ServiceBuilder::new()
            // No call waits for a list longer than that.
            .layer(TimeoutLayer::total(TokenPrecheckLayer::ASK_TIMEOUT))
            .layer(RetryLayer::new(RetryPolicy::default().max_attempts(3)))
            .layer(KeyPoolLayer::new(pool.clone()))
            .layer(ClassifyLayer::new())
            .service(own);
        // The list is fetched only when a caller names a model that the table has not.
        tasks.spawn(models.refresh_on_demand(lists));
    }
    tasks
}
