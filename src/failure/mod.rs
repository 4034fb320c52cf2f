//! Failures: the party at fault, and what may help.
//!
//! One status has a dozen meanings: a 429 is a minute's quota that comes back in 26 seconds, a day's that comes back at
//! midnight Pacific, a quota of zero that never does, an unpaid bill, or a model that is at capacity for all callers. A
//! client that reads only the status waits when waiting is useless, gives up when a second would do, disables good keys
//! for a model's fault, and opens a circuit breaker on callers' mistakes. And if each layer reads by itself, each reads
//! differently.
//!
//! So a failure is judged once, here, and [`Failure`] is all that any layer looks at. It answers four questions:
//!
//! 1. Whose [`Fault`] is it? Each layer acts on one fault only.
//! 2. What may help: the same request later, another project's key, another model?
//! 3. How long is the wait that the upstream asked for ([`Hint`]), where it can be believed?
//! 4. Is it a sign of the upstream's health?
//!
//! It changes nothing: it sends, waits and retries nothing, and it forgets each failure once it is judged.
//!
//! # Files
//!
//! `kind` has the names, and the table of what follows from a name; `advice` says what each means and what to do about
//! it. `judge` finds the kind of a response, with `exhausted` for the hardest status, `wording` and `money` for what
//! only an English sentence says, and `tokens` for the numbers in one. `finish` judges a 200 without content, `transport`
//! reads the errors of hyper and h2. `marks` adds what only a layer knows. `message` and `words` have the messages. The body was read by
//! [`Status`](crate::status::Status) before.

mod advice;
mod exhausted;
mod finish;
mod judge;
mod kind;
mod marks;
mod message;
mod money;
mod quota;
mod ruling;
mod tokens;
mod transport;
mod wording;
mod words;

use std::{error::Error as StdError, sync::Arc, time::Duration};

use http::{HeaderMap, StatusCode};

pub use self::{
    advice::Advice,
    kind::{Fault, Kind, TimeoutKind},
    quota::Quota,
};
pub(crate) use self::{
    judge::drop_bad_retry_after,
    message::{Reader, Words},
    words::OWN_KEYS_REFUSED,
};
use self::{kind::Help, message::Message, tokens::TokenNumbers};
use crate::clock;
pub use crate::status::Hint;

/// One failure, judged once: the party at fault, and what may help.
///
/// It is cheap to clone, because its texts are shared. Everything in it is redacted, so that it can be logged.
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use tower_gemini::{
///     failure::{Failure, Fault},
///     quota::Dimension,
/// };
///
/// let body = br#"{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "You exceeded your current
/// quota.",
///     "details": [{"violations": [{
///         "quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier",
///         "quotaDimensions": {"model": "gemini-2.5-flash"},
///         "quotaValue": "250"
///     }]}, {"retryDelay": "5s"}]}}"#;
/// let failure = Failure::from_response(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), body);
///
/// assert_eq!(failure.fault(), Fault::Quota);
/// let quota = failure.quota().unwrap();
/// assert_eq!((quota.dimension(), quota.limit()), (Some(Dimension::RequestsPerDay), Some(250)));
/// // A day's quota comes back at midnight, whatever RetryInfo says.
/// assert_eq!(failure.hint(), None);
/// assert!(!failure.same_key_may_help());
/// assert!(failure.other_key_may_help() && failure.other_model_may_help());
/// assert!(!failure.counts_against_upstream());
/// ```
#[derive(Clone, Debug)]
pub struct Failure {
    kind: Kind,
    help: Help,
    status: Option<StatusCode>,
    /// One pointer, so that a `Result` with a failure in it stays small.
    google_status: Option<&'static &'static str>,
    hint: Option<Hint>,
    message: Message,
    details: Option<Arc<Details>>,
    flags: Flags,
}

/// The parts that only some failures have, kept apart so that a `Result` with a failure in it stays small.
#[derive(Clone, Debug, Default)]
struct Details {
    quota: Option<Quota>,
    reason: Option<Box<str>>,
    tokens: TokenNumbers,
    /// The message for callers, where the other one tells an operator more.
    caller_message: Option<Box<str>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    error_body: bool,
    content_suspected: bool,
    after_commit: bool,
    /// A refusal for quota that names no quota at all.
    unnamed: bool,
    /// A local refusal that lasts longer than anybody waits, whatever the hint: that is the time of the next look.
    lasting: bool,
    /// A local refusal of grounded calls only.
    grounded: bool,
    /// A failure of a call that one project alone could take.
    bound: bool,
}

impl Failure {
    // === constructors ===

    /// Judges a response that is not a success.
    ///
    /// A code in the body goes before the status, because relays answer 500 with a 429 inside. The wait is taken from
    /// the body, or else from `Retry-After` (seconds, or a date).
    pub fn from_response(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        judge::response(Some(status), headers, body, clock::wall())
    }

    /// Judges a response by its status and headers, where the body is not known.
    pub fn from_status(status: StatusCode, headers: &HeaderMap) -> Self {
        judge::status(status, headers, clock::wall())
    }

    /// Judges an error inside a 200 stream by the error's own code.
    ///
    /// `error` is the error, its event, or the stream so far. It is judged as if nothing of the stream had been
    /// forwarded; after the commit, add [`into_after_commit`](Self::into_after_commit).
    pub fn from_event(error: &[u8]) -> Self {
        judge::response(None, &HeaderMap::new(), error, clock::wall())
    }

    /// Judges a transport error: one of hyper, hyper-util, h2 or `std::io`, or tokio's `Elapsed`, anywhere in the chain
    /// of sources. An [`Error`](crate::Error) in the chain has been judged already: look for it first.
    pub fn from_error(error: &(dyn StdError + 'static)) -> Self {
        let kind = transport::kind(error);
        let failure = Self::local(kind, words::of_chain(error));
        match kind {
            // Addresses and the system's words for them tell a caller nothing that it could use.
            Kind::Connect => failure.with_caller_message("the upstream cannot be reached"),
            _ => failure,
        }
    }

    /// Judges a 200 by its content: the `finishReason`, the `promptFeedback.blockReason`, and whether any part of any
    /// content came that is more than a thought. Returns `None` for a good answer.
    pub fn from_answer(finish_reason: Option<&str>, block_reason: Option<&str>, has_content: bool) -> Option<Self> {
        let (kind, message) = finish::judge(finish_reason, block_reason, has_content)?;
        Some(Self { status: Some(StatusCode::OK), ..Self::local(kind, message) })
    }

    /// Makes a refusal by a layer of this crate. The fault follows from the kind, and the message is redacted.
    pub fn local(kind: Kind, message: impl Into<String>) -> Self {
        let message: String = message.into();
        let mut failure = Self::of_kind(kind, kind.facts().help);
        failure.message = Message::Text(crate::redact::redact(&message).into());
        failure
    }

    /// Makes a refusal by a layer whose message is written, and redacted, when somebody reads it.
    pub(crate) fn in_words(kind: Kind, words: impl Words + 'static) -> Self {
        Self { message: Message::of_words(words), ..Self::of_kind(kind, kind.facts().help) }
    }

    /// Makes a time-out after `limit`. The total one is this crate's own; the others blame the transport.
    pub fn timeout(clock: TimeoutKind, limit: Duration) -> Self {
        let waited_for = match clock {
            TimeoutKind::Total => "an answer, queueing and retries included",
            TimeoutKind::Attempt => "the answer to one attempt",
            TimeoutKind::FirstContent => "the first content of the stream",
            TimeoutKind::Idle => "the next event of the stream",
        };
        Self::local(Kind::Timeout(clock), format!("the {clock} clock ran out: waited {limit:?} for {waited_for}"))
    }

    fn of_kind(kind: Kind, help: Help) -> Self {
        Self {
            kind,
            help,
            status: None,
            google_status: None,
            hint: None,
            message: Message::default(),
            details: None,
            flags: Flags::default(),
        }
    }

    // === queries ===

    /// Returns the party at fault.
    pub fn fault(&self) -> Fault {
        self.kind.fault()
    }

    /// Returns the kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the status that came over the wire; of an event the one that it names, and of a local refusal the one
    /// that its kind maps to.
    pub fn status(&self) -> Option<StatusCode> {
        self.status.or_else(|| (self.fault() == Fault::Local).then(|| self.kind.status_code()))
    }

    /// Returns the status to answer with: the upstream's where it is an error, else the one that the kind maps to
    /// (time-outs 504, no connection 503, empty answers 502).
    pub fn code(&self) -> StatusCode {
        self.status.filter(|status| status.as_u16() >= 400).unwrap_or_else(|| self.kind.status_code())
    }

    /// Returns the canonical `google.rpc` name to answer with, such as `UNAVAILABLE`: the upstream's, or the one of
    /// [`code`](Self::code).
    pub fn google_status(&self) -> &'static str {
        self.google_status.copied().unwrap_or_else(|| judge::name_of_code(self.code().as_u16()))
    }

    /// Returns the hint: the wait to observe, at most a week; of a minute's quota and of a model at capacity at most two
    /// minutes.
    ///
    /// `None` where the upstream asked for no wait, and where its wait has to be ignored: a day's quota comes back at
    /// midnight Pacific, a quota of zero never.
    pub fn hint(&self) -> Option<Hint> {
        self.hint
    }

    /// Returns the quota that was used up, if it was one.
    pub fn quota(&self) -> Option<&Quota> {
        self.details.as_ref()?.quota.as_ref()
    }

    /// Returns whether the same bytes with the same key have a real chance within minutes.
    pub fn same_key_may_help(&self) -> bool {
        self.help.same_key
    }

    /// Returns whether a key of another project has a chance. Keys of one project share their quota.
    pub fn other_key_may_help(&self) -> bool {
        self.help.other_key
    }

    /// Returns whether another model of the same project has a chance.
    pub fn other_model_may_help(&self) -> bool {
        self.help.other_model
    }

    /// Returns whether the failure is a sign of the upstream's health: true for faults of the model, the transport and
    /// the service, except for empty answers; false for callers, keys, quotas and local refusals.
    pub fn counts_against_upstream(&self) -> bool {
        match self.fault() {
            Fault::Model | Fault::Transport => true,
            Fault::Service => !matches!(self.kind, Kind::EmptyResponse | Kind::EmptyMalformedFunctionCall),
            _ => false,
        }
    }

    /// Returns `ErrorInfo.reason`, such as `API_KEY_INVALID`.
    pub fn reason(&self) -> Option<&str> {
        self.details.as_ref()?.reason.as_deref()
    }

    /// Returns the most input tokens that the model takes, where a refusal names it. It can be lower than the published
    /// limit.
    pub fn token_limit(&self) -> Option<u64> {
        self.details.as_ref()?.tokens.limit
    }

    /// Returns the number of input tokens in the request, where a refusal names it.
    pub fn token_count(&self) -> Option<u64> {
        self.details.as_ref()?.tokens.count
    }

    /// Returns whether it is proven that the upstream did not get the request, so that even a call that must not run
    /// twice can be sent again.
    pub fn never_sent(&self) -> bool {
        matches!(self.kind, Kind::Connect | Kind::NotSent)
    }

    /// Returns whether the upstream sent an error body of its own: it read the request and refused it.
    pub fn has_error_body(&self) -> bool {
        self.flags.error_body
    }

    /// Returns whether the same 500 came twice for the same request, so that the request's content is the likely cause.
    pub fn is_content_suspected(&self) -> bool {
        self.flags.content_suspected
    }

    /// Returns whether only calls that search the web or maps fail so.
    pub(crate) fn is_of_grounded_calls(&self) -> bool {
        self.kind == Kind::QuotaGrounding || self.flags.grounded
    }

    /// Returns whether the call was bound to one project, so that other calls may be served by another one.
    pub(crate) fn is_of_bound_call(&self) -> bool {
        self.flags.bound
    }

    /// Returns whether a layer refused the call for longer than anybody waits. Its hint is the time at which one call may
    /// look whether it still holds.
    pub(crate) fn is_lasting(&self) -> bool {
        self.flags.lasting
    }

    /// Returns whether the failure is about the credential alone, so that no caller can have caused it.
    pub(crate) fn is_about_the_key(&self) -> bool {
        matches!(
            self.kind,
            Kind::AuthKeyInvalid
                | Kind::AuthUnauthenticated
                | Kind::KeyRestricted
                | Kind::KeyLeaked
                | Kind::KeySuspended
                | Kind::AccountBanned
                | Kind::ConsumerInvalid
                | Kind::ServiceDisabled
                | Kind::BillingRequired
        )
    }

    /// Returns whether bytes of the answer had been forwarded before it failed.
    pub fn is_after_commit(&self) -> bool {
        self.flags.after_commit
    }

    /// Returns whether both failures have the same kind, status and message, which is how "the same 500 twice" is
    /// recognised.
    pub fn same_as(&self, other: &Self) -> bool {
        self.kind == other.kind && self.status == other.status && self.message() == other.message()
    }
}

#[cfg(test)]
mod tests;
