//! The service: assigns a key to a call, and signs it.

use std::{
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower_service::Service;

use super::{
    KeyPool, KeyPoolBody, ResponseFuture,
    affinity::{Teaches, required_project, searched_body, teaches},
    health::TrialId,
    marks::{Needs, ProjectLooks},
    pool::Shared,
    refusal,
    registry::{PooledKey, ProjectCandidate, ProjectRef, Query, Tested},
    strip::strip,
};
use crate::{
    body::Resend,
    call::Shape,
    context::{BoxError, CallContext, CallRef, Choice, Claimant, Priority, TokenCount, Tried},
    quota::{Scope, TokenCost},
};

/// The service of [`KeyPoolLayer`](super::KeyPoolLayer).
#[derive(Clone, Debug)]
pub struct KeyPoolService<S> {
    inner: S,
    pool: Option<KeyPool>,
    /// The model of the last call: most callers ask for the same one again.
    model: Option<Arc<str>>,
}

crate::macros::accessors!(KeyPoolService);

impl<S> KeyPoolService<S> {
    pub(super) fn new(inner: S, pool: Option<KeyPool>) -> Self {
        Self { inner, pool, model: None }
    }
}

impl<S, B, R> Service<Request<B>> for KeyPoolService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    B: Resend<Data = Bytes>,
    R: Body,
{
    type Response = Response<KeyPoolBody<R>>;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Some(pool) = &self.pool else { return ResponseFuture::direct(self.inner.call(request)) };
        match assign(&pool.shared, &mut self.model, &mut request) {
            // At once, so that the limiter reserves the turn before another call chooses.
            Ok(assigned) => ResponseFuture::calling(self.inner.call(request), assigned),
            Err(refusal) => ResponseFuture::refused(refusal),
        }
    }
}

/// A call with the key that it was given.
pub(super) struct Assigned {
    pub(super) shared: Arc<Shared>,
    pub(super) key: Arc<PooledKey>,
    pub(super) facts: CallFacts,
    /// In a box, as the trial is: few calls have one, and all others are smaller for it.
    pub(super) looking: Option<Box<Looking>>,
    _trial: Option<Box<Trial>>,
}

/// The properties of a call that its key depends on.
pub(super) struct CallFacts {
    pub(super) shape: Shape,
    pub(super) model: Arc<str>,
    tokens: TokenCount,
    caller: Option<Arc<str>>,
    priority: Priority,
    deadline: Option<Instant>,
    /// The one project that the call has to go to.
    pub(super) pinned: Option<Arc<str>>,
    /// True if it goes there only to be with others of its kind, so that it can go elsewhere for a good reason.
    pub(super) may_leave: bool,
    pub(super) tried: Vec<Tried>,
    pub(super) teaches: Teaches,
}

/// The right to test a key, which one call at a time has. It is given back when it is dropped.
struct Trial {
    shared: Arc<Shared>,
    key: Arc<PooledKey>,
    id: TrialId,
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(entry) = self.shared.registry.lock().entry(&self.key) {
            entry.health.end_trial(self.id);
        }
    }
}

/// The looks of a call whether blocks of its project still hold. They end with it, whatever becomes of it.
pub(super) struct Looking {
    shared: Arc<Shared>,
    project: Arc<ProjectRef>,
    model: Arc<str>,
    pub(super) looks: ProjectLooks,
}

impl Drop for Looking {
    fn drop(&mut self) {
        if let Some(project) = self.shared.registry.lock().project(&self.project) {
            project.marks.end_looks(&self.model, self.looks);
        }
    }
}

impl CallFacts {
    /// Returns the call's needs, as far as blocks deny them.
    pub(super) fn needs(&self) -> Needs<'_> {
        Needs::of(self.shape, &self.model)
    }

    /// Returns what decides on the call's turn in a queue.
    fn claimant(&self) -> Claimant<'_> {
        Claimant { caller: self.caller.as_ref(), priority: self.priority, deadline: self.deadline }
    }

    /// Returns the call's query to the registry.
    pub(super) fn query<'a>(&'a self, tried: &'a [Tried], passed_over: &'a [Arc<str>]) -> Query<'a> {
        let pinned = self.pinned.as_deref();
        Query { now: Instant::now(), needs: self.needs(), pinned, tried, passed_over }
    }
}

/// Chooses a key for a request, and signs it.
fn assign<B>(shared: &Arc<Shared>, last: &mut Option<Arc<str>>, request: &mut Request<B>) -> Result<Assigned, BoxError>
where
    B: Resend<Data = Bytes>,
{
    let (facts, beginning) = facts(shared, last, request);
    let mut passed_over = Vec::new();
    loop {
        let query = facts.query(&facts.tried, &passed_over);
        let Some(Chosen { key, trial, looking, may_move }) = choose(shared, &facts, beginning, &query) else {
            return Err(refusal::nothing_left(shared, &query));
        };
        // This may be foreign code: no lock is held.
        let Some((name, value)) = key.signer.header(facts.shape.surface) else {
            passed_over.push(key.shown.clone());
            continue;
        };
        let choice: Arc<dyn Choice> = match &trial {
            Some(_) => Arc::new(Tested(key.clone())),
            None => key.clone(),
        };
        strip(request);
        request.headers_mut().insert(name, value);
        CallContext::update(request.extensions_mut(), |context| {
            context.set_project(key.project.name.clone());
            context.set_may_move(may_move);
            context.set_choice(choice);
        });
        return Ok(Assigned { shared: shared.clone(), key, facts, looking, _trial: trial });
    }
}

/// Reads a call's properties from its context, or else from the request. The second result is the number of its beginning,
/// where that makes a difference.
fn facts<B>(shared: &Shared, last: &mut Option<Arc<str>>, request: &Request<B>) -> (CallFacts, Option<u64>)
where
    B: Resend<Data = Bytes>,
{
    let context = CallContext::of(request);
    let call = CallRef::with(context, request);
    let (shape, model) = (call.shape(), call.shared_quota_name(last.take()));
    *last = model.clone();
    let model = model.unwrap_or_default();
    let tokens = context.and_then(CallContext::token_count).cloned();
    let tokens = tokens.unwrap_or_else(|| TokenCount::Known(TokenCost::of(request.body())));
    let tried = context.map(|context| context.tried().to_vec()).unwrap_or_default();
    let body = searched_body(shared, request);
    let place = required_project(shared, request, shape, &model, &tried, body.as_deref().map(|body| &**body));
    let is_free = place.is_none() && shared.projects.load(Ordering::Relaxed) > 1;
    let alike = shared.alike.as_ref().filter(|_| is_free);
    let beginning =
        alike.and_then(|alike| alike.beginning(shape, &model, request.headers(), body.as_deref().map(|body| &**body)));
    let teaches = teaches(shared, request, shape, place.as_ref());
    let may_leave = place.as_ref().is_some_and(|place| place.may_leave);
    let pinned = place.map(|place| place.project);
    let Claimant { caller, priority, deadline } = context.map_or(Claimant::default(), CallContext::claimant);
    let caller = caller.cloned();
    let facts = CallFacts { shape, model, tokens, caller, priority, deadline, pinned, may_leave, tried, teaches };
    (facts, beginning)
}

/// The key that was chosen for a call.
struct Chosen {
    key: Arc<PooledKey>,
    trial: Option<Box<Trial>>,
    looking: Option<Box<Looking>>,
    /// True if another project could take the call.
    may_move: bool,
}

/// Chooses the project in which the call waits least, and its next key. `None`: there is none.
fn choose(shared: &Arc<Shared>, facts: &CallFacts, began: Option<u64>, query: &Query<'_>) -> Option<Chosen> {
    // A call that loses the key to another one between choosing and taking it chooses again.
    for nth in 0..8 {
        let mut registry = shared.registry.lock();
        let draw = registry.draw(query, query.now, fastrand::f64);
        let (first, second) = (draw.first?, draw.second);
        // Somebody has to look, or a project that is good again would not be asked.
        let beginning = began.filter(|_| nth == 0 && !draw.looks);
        let waits_nowhere = draw.candidates <= 1 || !query.needs.pays || shared.headroom.is_none();
        let (project, taken) = if waits_nowhere && beginning.is_none() {
            let taken = registry.take(&first, query);
            drop(registry);
            (first, taken)
        } else {
            // The wait may be told by foreign code: no lock is held.
            drop(registry);
            let waits = |project: &ProjectRef| shared.wait(project, facts);
            let last = beginning.and_then(|beginning| alike(shared, facts, beginning, query, draw.weights));
            let project = match second {
                _ if last.is_some() => last?,
                _ if waits_nowhere || waits(&first).is_zero() => first,
                Some(second) if waits(&second).is_zero() => second,
                _ => least_wait(shared, facts, query).map_or(first, |(_, project)| project),
            };
            let taken = shared.registry.lock().take(&project, query);
            (project, taken)
        };
        if let Some((key, on_trial, looks)) = taken {
            if let (Some(alike), Some(beginning), true) = (&shared.alike, began, looks.is_empty()) {
                alike.sent(beginning, &project, query.now);
            }
            let trial = on_trial.map(|id| Box::new(Trial { shared: shared.clone(), key: key.clone(), id }));
            let looking = (!looks.is_empty()).then(|| {
                let (shared, project, model) = (shared.clone(), project.clone(), facts.model.clone());
                Box::new(Looking { shared, project, model, looks })
            });
            return Some(Chosen { key, trial, looking, may_move: draw.untried > 1 && facts.pinned.is_none() });
        }
    }
    None
}

/// Finds the project that had the last call which began alike, unless the call would wait for too long there or has been
/// there, or the project takes more than its share of calls.
fn alike(
    shared: &Shared,
    facts: &CallFacts,
    beginning: u64,
    query: &Query<'_>,
    weights: u64,
) -> Option<Arc<ProjectRef>> {
    let alike = shared.alike.as_ref()?;
    let last = alike.last(beginning, query.now)?;
    if !shared.registry.lock().is_preferable(&last, weights, query) {
        return None;
    }
    let wait = shared.wait(&last, facts);
    let is_near = |(least, _): (Duration, _)| wait <= least.saturating_add(alike.longest);
    (wait.is_zero() || least_wait(shared, facts, query).is_some_and(is_near)).then_some(last)
}

/// Finds the project with the least wait, and of equals the one of the lower rank.
fn least_wait(shared: &Shared, facts: &CallFacts, query: &Query<'_>) -> Option<(Duration, Arc<ProjectRef>)> {
    let candidates = shared.registry.lock().all_candidates(query, query.now, fastrand::usize(..));
    let free = candidates.into_iter().filter(|candidate| candidate.cooling.is_zero());
    let waits = free.map(|ProjectCandidate { project, rank, .. }| ((shared.wait(&project, facts), rank), project));
    waits.min_by_key(|(wait, _)| *wait).map(|((wait, _), project)| (wait, project))
}

impl Shared {
    /// Returns how long a call would wait for its turn in a project.
    pub(super) fn wait(&self, project: &ProjectRef, facts: &CallFacts) -> Duration {
        let Some(headroom) = self.headroom.as_ref().filter(|_| facts.shape.pays_quota()) else {
            return Duration::ZERO;
        };
        let scope = Scope::new(project.name.clone(), facts.model.clone());
        let tokens = facts.tokens.cost_if(|| headroom.depends_on_tokens(&scope)).tokens;
        headroom.headroom(&scope, facts.shape.requests, tokens, facts.claimant())
    }
}
