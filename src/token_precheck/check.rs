//! The check that every request passes through first: everything that can be decided without waiting.

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock, atomic::Ordering},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use tokio::sync::futures::OwnedNotified;

use super::{
    learn::Learner,
    question::{LimitCheck, Question},
    read::BodyFacts,
    settings::{Settings, UnknownModel},
    verdict::{self, OutputCheck},
};
use crate::{
    body::{Resend, in_memory},
    call::{Call, Operation, Shape, Surface},
    context::{CallContext, CallRef},
    failure::Failure,
    models::{Model, ModelVerdict},
    quota::TokenCost,
    request::{
        readers::{BodyRead, INLINE, Readers},
        scan::Unread,
    },
    tokenizer::Count,
};

/// The result of the check.
pub(super) enum Checked {
    /// The request is sent, and the learner follows its answer.
    Send(Option<Learner>),
    Refuse(Failure),
    /// The request has to be counted first.
    Count(Box<Question>),
    /// The model is unknown, and the list that may name it is being fetched.
    AwaitList(OwnedNotified),
    /// The body is large, and another thread reads it.
    Read(BodyRead<BodyFacts>),
}

/// Checks a request, and writes its token cost into its [`CallContext`](crate::CallContext). `may_wait`: the caller can
/// wait for a list of models.
pub(super) fn check<B>(settings: &Arc<Settings>, request: &mut Request<B>, may_wait: bool) -> Checked
where
    B: Resend<Data = Bytes> + From<Bytes>,
{
    let call = CallRef::of(request);
    // A browser asks with OPTIONS before it calls, and has neither a body nor a key then.
    let is_call = *request.method() == Method::POST;
    if !is_call || !is_checked(call.shape()) || request.headers().contains_key(header::CONTENT_ENCODING) {
        return Checked::Send(None);
    }
    let Some(body) = in_memory(request.body()).map(Cow::into_owned) else { return Checked::Send(None) };
    let call = call.to_call();
    if Readers::are_needed(body.len()) {
        let counter = settings.counter.clone();
        return Checked::Read(settings.readers.read(move || BodyFacts::read(body, call, counter.as_ref(), true)));
    }
    let is_asked = settings.asked.load(Ordering::Relaxed);
    judge(settings, request, BodyFacts::read(body, call, settings.counter.as_ref(), is_asked), may_wait)
}

/// Judges a request whose body was read.
pub(super) fn judge<B>(
    settings: &Arc<Settings>,
    request: &mut Request<B>,
    BodyFacts { body, call, findings, lengths, counted }: BodyFacts,
    may_wait: bool,
) -> Checked
where
    B: Resend<Data = Bytes> + From<Bytes>,
{
    let claims_json = claims_json(request.headers());
    let findings = match findings {
        Some(Ok(findings)) => findings,
        Some(Err(Unread::Malformed { message, line, column })) if claims_json => {
            return Checked::Refuse(verdict::malformed(&message, line, column));
        }
        Some(Err(_)) => return Checked::Send(None),
        None if settings.fail_closed && has_limit(call.operation()) => return Checked::Refuse(verdict::unread()),
        None => {
            // Nobody knows its texts, but no text has more tokens than bytes.
            let cost = TokenCost::estimate(body.len() as u64);
            CallContext::update(request.extensions_mut(), |context| context.set_token_cost(cost));
            return Checked::Send(None);
        }
    };
    let says_what_it_needs = claims_json && !has_other_contents(&call, request.uri());
    if says_what_it_needs && let Some(failure) = verdict::contents(&findings, &call) {
        return Checked::Refuse(failure);
    }
    let Some(name) = call.shared_quota_name().filter(|_| call.agent().is_none()) else { return Checked::Send(None) };
    let on_vertex = is_vertex(&call, request.uri());
    let model = match known_model(settings, &call, &name, on_vertex) {
        Ok(model) => model,
        Err(failure) => return Checked::Refuse(failure),
    };
    if may_wait
        && model.is_none()
        && !on_vertex
        && settings.unknown_model == UnknownModel::Refuse
        && let Some(list) = settings.models.want_list(&name)
    {
        return Checked::AwaitList(list);
    }
    if !call.pays_quota() {
        return Checked::Send(None);
    }
    let question = Question {
        limit: None,
        bytes: lengths.bytes,
        count: lengths.count,
        estimate: lengths.sample.map_or_else(OnceLock::new, |sample| OnceLock::from(sample.scaled_to(lengths.bytes))),
        body,
        call,
        model: name,
        findings,
    };
    check_length(settings, request, question, model.as_deref(), counted)
}

/// Checks the output limit and the length of a request to a model that is known or cannot be checked. `counted` is the
/// count of its texts, if it was made with the reading.
fn check_length<B: From<Bytes>>(
    settings: &Arc<Settings>,
    request: &mut Request<B>,
    mut question: Question,
    model: Option<&Model>,
    counted: Option<Count>,
) -> Checked {
    if has_limit(question.call.operation()) {
        match check_output(settings, request, &question, model) {
            Ok(Some(body)) => question.body = body,
            Ok(None) => {}
            Err(failure) => return Checked::Refuse(failure),
        }
        question.limit = settings.models.effective_input_limit(&question.model).map(|limit| limit.tokens);
    }
    let is_always_counted = question.is_always_counted_upstream(settings);
    if let Some(counted) = counted {
        question.count = counted;
    } else if !is_always_counted && question.body.len() <= INLINE && question.too_long().is_none() && question.fits() {
        // By its length alone it fits, so that its tokens are counted only if somebody asks for their number.
        return Checked::Send(Some(question.publish_later(settings, request)));
    } else if question.too_long().is_none() {
        question.count = question.count_inline(settings);
    }
    match question.check_limit(settings) {
        LimitCheck::TooLong(failure) => Checked::Refuse(failure),
        LimitCheck::Fits(cost) if !is_always_counted => Checked::Send(Some(question.publish(settings, request, cost))),
        LimitCheck::Fits(_) | LimitCheck::Unknown => Checked::Count(Box::new(question)),
    }
}

/// Returns whether calls of this kind have a limit of input tokens beyond which the upstream refuses them.
fn has_limit(operation: Operation) -> bool {
    matches!(operation, Operation::GenerateContent | Operation::CreateInteraction)
}

/// Returns whether this room understands the call: one that carries contents.
fn is_checked(call: Shape) -> bool {
    use Operation::{BatchEmbedContents, CountTokens, CreateInteraction, EmbedContent, GenerateContent};
    let has_contents =
        matches!(call.operation, GenerateContent | EmbedContent | BatchEmbedContents | CountTokens | CreateInteraction);
    call.surface != Surface::Other && has_contents
}

/// Returns whether the call may do without the contents that others need: an interaction, a decision, and OpenAI's
/// responses, which may name a prompt that is kept upstream.
fn has_other_contents(call: &Call, uri: &Uri) -> bool {
    let is_by_path = |name| uri.path().trim_end_matches('/').ends_with(name);
    call.surface() == Surface::Interactions || is_by_path("/decisions") || is_by_path("/responses")
}

/// Returns whether Vertex serves the call, be it on its compatible surface,
/// `…/projects/{p}/locations/{l}/endpoints/openapi/…`, or as an interaction.
fn is_vertex(call: &Call, uri: &Uri) -> bool {
    match call.surface() {
        Surface::Vertex => true,
        Surface::OpenAi => uri.path().contains("/openapi/"),
        Surface::Interactions => uri.path().contains("/projects/"),
        _ => false,
    }
}

/// Looks a model up, and refuses one that is misspelt or lacks the method.
fn known_model(settings: &Settings, call: &Call, name: &str, on_vertex: bool) -> Result<Option<Arc<Model>>, Failure> {
    let operation = call.operation();
    match settings.models.verdict(name, operation) {
        ModelVerdict::Known(model) => Ok(Some(model)),
        // The list is the Developer API's; Vertex serves other models.
        _ if on_vertex => Ok(settings.models.lookup(name)),
        ModelVerdict::MethodUnsupported { model, supported } => {
            let supported: Vec<_> = supported.names().collect();
            Err(verdict::not_supported(model.name(), operation, &supported.join(", ")))
        }
        ModelVerdict::Missing { nearest } if settings.unknown_model == UnknownModel::Refuse => {
            Err(verdict::no_such_model(name, &nearest))
        }
        _ => Ok(None),
    }
}

/// Checks the output limit. Returns the new body if the limit had to be changed.
fn check_output<B: From<Bytes>>(
    settings: &Settings,
    request: &mut Request<B>,
    question: &Question,
    model: Option<&Model>,
) -> Result<Option<Bytes>, Failure> {
    let requested = question.findings.max_output.as_ref();
    match (verdict::output(settings.max_output, requested, model), requested) {
        (OutputCheck::Refuse(failure), _) => Err(failure),
        (OutputCheck::Warn(message), _) => {
            // The name only of a known model: callers may invent long ones.
            tracing::warn!(model = model.map(Model::name), "{message}");
            Ok(None)
        }
        (OutputCheck::Clamp(tokens), Some(requested)) => {
            let (body, number) = (&question.body, tokens.to_string());
            let at = &requested.at;
            let body = Bytes::from([&body[..at.start], number.as_bytes(), &body[at.end..]].concat());
            if request.headers().contains_key(header::CONTENT_LENGTH) {
                request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
            }
            *request.body_mut() = B::from(body.clone());
            Ok(Some(body))
        }
        _ => Ok(None),
    }
}

/// Returns whether the headers declare JSON in UTF-8. Any other body is left to the upstream.
fn claims_json(headers: &HeaderMap) -> bool {
    if headers.get(header::CONTENT_TYPE).is_some_and(|value| value == "application/json") {
        return true;
    }
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let mut parts = value.split(';').map(str::trim);
    let is = |text: &str, name: &str| text.eq_ignore_ascii_case(name);
    let is_json = parts.next().and_then(|kind| kind.split_once('/')).is_some_and(|(kind, format)| {
        let suffix = format.rfind('+').map_or("", |at| &format[at..]);
        is(kind, "application") && (is(format, "json") || is(suffix, "+json"))
    });
    let charset = parts.filter_map(|part| part.split_once('=')).find(|(name, _)| is(name, "charset"));
    let charset = charset.map_or("utf-8", |(_, value)| value.trim_matches('"'));
    is_json && ["utf-8", "utf8", "us-ascii"].into_iter().any(|known| is(charset, known))
}
