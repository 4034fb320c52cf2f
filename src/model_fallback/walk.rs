//! One call on its way along a chain.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header::CONTENT_LENGTH};
use tokio::time::Instant;

use super::{
    ModelUsed, NAME,
    answerer::Answerer,
    chains::{Chain, Lease},
    destination::{Destination, destination, is_for_all_callers},
    features::{Fit, Rejected},
    kept::{KeptFailure, Worth, keep},
    link::ChainLink,
    origins::Origin,
    route::Route,
    sticky::{Answered, Start},
};
use crate::{
    body::{KeptRequest, Resend, in_memory},
    call::{Call, Idempotency, Operation, Shape, Surface},
    context::{BoxError, CallContext, Error, MODEL_HEADER, Outcome, polled_again},
    failure::{Failure, Fault, Kind},
};

/// The state of a call while it is under way.
pub(super) struct Walk<B, R> {
    chain: Arc<Chain>,
    /// The call, as it came.
    shape: Shape,
    /// The request as it came. `None`: it goes to no other model.
    request: Option<KeptRequest<B>>,
    /// The models that it may still go to.
    route: Route,
    /// The model that it is at.
    at: usize,
    /// The models that it was at before.
    before: Vec<usize>,
    attempts: u32,
    sent: bool,
    /// The failure that goes back if no model answers. In a box, because few calls have one, and it is large.
    kept: Option<Box<KeptFailure<R>>>,
    /// The state of the chain when the call began. `None`: the call stays with its model, whatever the chain does.
    start: Option<Start>,
    lease: Option<Lease>,
    /// The failure, for all callers, of the model that the call began with.
    start_failed: Option<Box<Failure>>,
    /// A flag: the first choice has failed for all callers.
    first_failed: bool,
    /// A flag: only one model can answer the call.
    is_pinned: bool,
}

/// The course of a call after an attempt.
pub(super) enum Continuation<B, R> {
    /// The call has ended.
    Done(Result<Response<R>, BoxError>),
    /// The request for another model.
    Send(Request<B>),
}

impl<B: Resend<Data = Bytes> + From<Bytes>, R> Walk<B, R> {
    /// Makes the walk of a call that has not begun.
    #[inline]
    pub(super) fn of(chain: Arc<Chain>, shape: Shape) -> Self {
        Self {
            chain,
            shape,
            request: None,
            route: Route::nowhere(),
            at: 0,
            before: Vec::new(),
            attempts: 0,
            sent: false,
            kept: None,
            start: None,
            lease: None,
            start_failed: None,
            first_failed: false,
            is_pinned: false,
        }
    }

    /// Begins the call. Turns its request to the model that it is sent to first.
    pub(super) fn begin(&mut self, answerer: Answerer, request: &mut Request<B>) {
        self.attempts = CallContext::of(request).map_or(0, CallContext::attempt);
        self.is_pinned = matches!(answerer, Answerer::To(_));
        match answerer {
            Answerer::To(0) => {}
            Answerer::To(at) => self.begin_at(at, request),
            Answerer::Any { names_nothing } => self.begin_anywhere(names_nothing, request),
        }
    }

    /// Begins a call that any of the models may answer.
    fn begin_anywhere(&mut self, names_nothing: bool, request: &mut Request<B>) {
        self.request = KeptRequest::of(request);
        let Some(kept) = &self.request else { return };
        let (start, lease) = self.chain.start(self.shape.tier);
        self.route = Route::from(start.at, self.chain.all());
        (self.start, self.lease) = (Some(start), lease);
        while let Some(at) = self.route.next().filter(|at| *at != 0) {
            if let Some(moved) = self.request_to(at) {
                self.at = at;
                *request = moved;
                return;
            }
        }
        let left = self.route.left();
        if left > 0 {
            let headers = kept.headers().clone();
            CallContext::update(request.extensions_mut(), |context| {
                context.set_models_left(left);
                context.set_names_nothing(names_nothing);
                context.set_kept_headers(Some(headers));
            });
        }
    }

    /// Begins a call that only a model which it does not ask for can answer.
    fn begin_at(&mut self, at: usize, request: &mut Request<B>) {
        self.request = KeptRequest::of(request);
        let moved = self.request_to(at);
        // It goes to no other model.
        self.request = None;
        if let Some(moved) = moved {
            self.at = at;
            *request = moved;
        }
    }

    /// Remembers that another model than the one asked for has given an answer, from which a later call may go on.
    fn note_origin(&self, outcome: Option<&Outcome>) {
        let link = self.chain.model(self.at);
        if let Some(usage) = outcome.and_then(Outcome::usage).filter(|_| link.name != self.chain.model(0).name) {
            let collection = match (self.shape.operation, self.shape.surface) {
                (Operation::CreateInteraction, Surface::OpenAi) => Some("responses"),
                (Operation::CreateInteraction, _) => Some("interactions"),
                _ => None,
            };
            let origin = Origin { model: link.name.clone(), tier: link.for_tier(self.shape.tier).1 };
            self.chain.answered_elsewhere(usage.clone(), collection, origin);
        }
    }

    /// Takes the result of an attempt that has failed. Returns the answer or the last failure, or the request for the next
    /// model.
    #[inline(never)]
    pub(super) fn next(&mut self, result: Result<Response<R>, BoxError>) -> Continuation<B, R> {
        let outcome = Outcome::of(&result);
        let (failure, response) = match (outcome.failure(), result) {
            // A verdict on the content is an answer too.
            (Some(failure), Ok(mut response)) if failure.fault() == Fault::Caller && response.status().is_success() => {
                self.answered(&mut response);
                return Continuation::Done(Ok(response));
            }
            (Some(failure), result) => (failure, result),
            (None, result) => return Continuation::Done(result),
        };
        self.count(outcome.was_sent(), outcome.attempts());
        self.note(failure);
        let is_asked = self.at == 0;
        let destination = destination(self.chain.reasons(), failure, outcome.was_sent(), is_asked);
        let worth = match failure.fault() {
            _ if is_asked => Worth::Asked,
            Fault::Caller => Worth::Unsuited,
            _ => Worth::Other,
        };
        keep(&mut self.kept, self.at, response, worth);
        match destination {
            // It may have been made already, and would be made twice.
            _ if !made_nothing(self.shape, failure, outcome.was_sent()) => self.route = Route::nowhere(),
            Destination::Back => self.route = Route::nowhere(),
            Destination::Next => {}
            Destination::Larger => self.route = Route::only(self.chain.larger()),
            Destination::Requested => self.route = self.route.asked(),
        }
        let from = self.at;
        let Some(request) = self.next_request() else { return Continuation::Done(self.failed()) };
        self.log_fallback(from, failure);
        Continuation::Send(request)
    }

    /// Returns the failure that goes back when no model is left.
    pub(super) fn failed(&mut self) -> Result<Response<R>, BoxError> {
        self.lease = None;
        let Some(kept) = self.kept.take() else { return Err(polled_again(NAME)) };
        let KeptFailure { at, result, .. } = *kept;
        let (name, header) = (self.chain.model(at).name.clone(), self.chain.model(at).header.clone());
        let used = self.used(at);
        let (attempts, sent) = (self.attempts, self.sent);
        let moved = !self.before.is_empty();
        let update = |outcome: Outcome| {
            let outcome = outcome.with_model(name.clone());
            if moved { outcome.with_attempts(attempts).with_sent(sent) } else { outcome }
        };
        match result {
            Ok(mut response) => {
                Outcome::update(&mut response, update);
                response.headers_mut().insert(MODEL_HEADER, header);
                response.extensions_mut().insert(used);
                Ok(response)
            }
            Err(error) => Err(Error::map(error, NAME, update)),
        }
    }

    /// Tells the chain of an answer, and names the model in the response.
    pub(super) fn answered(&mut self, response: &mut Response<R>) {
        let outcome = response.extensions().get::<Outcome>();
        self.count(outcome.is_none_or(Outcome::was_sent), outcome.map_or(0, Outcome::attempts));
        if let Some(start) = self.start {
            let (start_failed, first_failed) = (self.start_failed.is_some(), self.first_failed);
            let answered = Answered { by: self.at, start_failed, first_failed };
            self.chain.answered(self.shape.tier, start, answered, self.start_failed.as_deref());
        }
        self.lease = None;
        self.note_origin(outcome);
        let model = self.chain.model(self.at);
        response.headers_mut().insert(MODEL_HEADER, model.header.clone());
        response.extensions_mut().insert(self.used(self.at));
        if self.at != 0 || !self.before.is_empty() {
            let (moved, attempts) = (!self.before.is_empty(), self.attempts);
            Outcome::update(response, |outcome| {
                let outcome = outcome.with_model(model.name.clone());
                if moved { outcome.with_attempts(attempts) } else { outcome }
            });
        }
    }

    /// Returns the note for an answer of that model.
    fn used(&self, at: usize) -> ModelUsed {
        let [asked, used] = [0, at].map(|at| {
            let link = self.chain.model(at);
            (&link.name, link.for_tier(self.shape.tier).1)
        });
        ModelUsed::new(asked, used)
    }

    /// Counts the attempts: the number that a layer inside reports, or else one for each model.
    fn count(&mut self, was_sent: bool, attempts: u32) {
        self.sent |= was_sent;
        self.attempts = match attempts {
            counted if counted > self.attempts => counted,
            _ => self.attempts.saturating_add(was_sent.into()),
        };
    }

    /// Notes a failure that other calls to the model would have as well.
    fn note(&mut self, failure: &Failure) {
        let Some(start) = self.start.filter(|_| is_for_all_callers(failure)) else { return };
        if self.at == start.at {
            self.start_failed = Some(Box::new(failure.clone()));
        }
        if self.at == 0 {
            self.first_failed = true;
            if let Some(lease) = self.lease.take() {
                lease.failed();
            }
        }
    }

    fn log_fallback(&self, from: usize, failure: &Failure) {
        let [model, from, to] = [0, from, self.at].map(|at| self.chain.model(at).label(self.shape.tier));
        let (model, from, to) = (&*model, &*from, &*to);
        let (reason, attempts) = (failure.kind().as_str(), self.attempts);
        tracing::info!(model, from, to, reason, attempts, "falling back to another model");
    }

    /// Makes the request for the next model that takes it. `None`: no model is left, or the deadline has passed.
    fn next_request(&mut self) -> Option<Request<B>> {
        let deadline = self.request.as_ref()?.context().and_then(CallContext::deadline);
        if deadline.is_some_and(|deadline| deadline.remaining(Instant::now()).is_zero()) {
            return None;
        }
        while let Some(at) = self.route.next() {
            // In the tier of this call, two models of the chain may be the same.
            let met = |at: usize| self.chain.model(at).for_tier(self.shape.tier);
            let is_new = self.before.iter().chain([&self.at]).all(|before| met(*before) != met(at));
            if let Some(request) = is_new.then(|| self.request_to(at)).flatten() {
                self.before.push(std::mem::replace(&mut self.at, at));
                return Some(request);
            }
        }
        None
    }

    /// Makes the request for a model of the chain. `None`: that model does not take it.
    fn request_to(&self, at: usize) -> Option<Request<B>> {
        let original = self.request.as_ref()?;
        if at != 0 && original.context().is_some_and(CallContext::body_is_unread) {
            // Nobody can tell whether another model takes it.
            return None;
        }
        let body = in_memory(original.body())?;
        let call = original.call().to_call_with(&body);
        let link = self.chain.model(at);
        let mut request = original.again()?;
        if at != 0 {
            self.rewrite(&mut request, link, &body, &call)?;
        }
        let tier = link.for_tier(self.shape.tier).1;
        let (call, left) = (call.with_model(link.name.clone()).with_service_tier(tier), self.route.left());
        CallContext::update(request.extensions_mut(), |context| context.turn_to(call, self.attempts, left));
        Some(request)
    }

    /// Rewrites a request for a model of the chain: its path or its body, its tier, and its length. `None`: that model
    /// would reject it.
    fn rewrite(&self, request: &mut Request<B>, link: &ChainLink, body: &Bytes, call: &Call) -> Option<()> {
        let (asked, (name, tier)) = (&self.chain.model(0).name, link.for_tier(self.shape.tier));
        let mut new = match Rejected::between(asked, name).find(body, self.chain.strips()) {
            Fit::AsItIs => None,
            Fit::Without(cuts) => Some(Bytes::from(cuts.apply(body))),
            // The parts may be those of the answer that it goes on from, and no other model could take them either.
            Fit::Rejected(_) if self.is_pinned => None,
            Fit::Rejected(what) => {
                tracing::debug!(model = &**asked, to = name, what, "skipping a model that would reject the request");
                return None;
            }
        };
        if call.speaks_in_body() {
            new = Some(Call::body_with_model(new.as_ref().unwrap_or(body), name)?);
        } else {
            *request.uri_mut() = Call::uri_with_model(request.uri(), name)?;
        }
        if tier != call.service_tier() {
            new = Some(Call::body_with_service_tier(new.as_ref().unwrap_or(body), tier)?);
        }
        if let Some(new) = new {
            if request.headers().contains_key(CONTENT_LENGTH) {
                request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(new.len()));
            }
            *request.body_mut() = B::from(new);
        }
        Some(())
    }
}

/// Returns whether nothing came of a failed call, so that it can be made elsewhere. Only of one that makes something it
/// is to be doubted, unless it was never sent or an error answer says so.
fn made_nothing(shape: Shape, failure: &Failure, sent: bool) -> bool {
    const DOUBTFUL: [StatusCode; 2] = [StatusCode::REQUEST_TIMEOUT, StatusCode::CONFLICT];
    let code = failure.code();
    let is_turned_away = code == StatusCode::SERVICE_UNAVAILABLE || code.is_client_error() && !DOUBTFUL.contains(&code);
    shape.idempotency != Idempotency::Unsafe
        || !sent
        || failure.never_sent()
        || failure.has_error_body()
            && (shape.repeatable_on_error || is_turned_away && failure.kind() != Kind::Cancelled)
}
