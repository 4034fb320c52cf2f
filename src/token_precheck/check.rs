//! What can be said of a request without waiting for anybody.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Uri, header};
use tokio::sync::futures::OwnedNotified;

use super::{
    count::{self, Counting, Lengths, Sample},
    layer::{AskUpstream, Settings, UnknownModel},
    learn::Watch,
    verdict::{self, Output},
};
use crate::{
    body::{Resend, in_memory},
    call::{Call, Operation, Surface},
    context,
    failure::Failure,
    models::{Model, ModelVerdict},
    quota::{Certainty, TokenCost},
    request::{
        media::Media,
        scan::{self, RequestFacts, Unread},
    },
    tokenizer::Count,
};

/// Up to so many bytes of text are counted where they are: at a hundred million bytes a second, half a millisecond.
pub(super) const INLINE: u64 = 64 * 1024;

/// What the check came to.
pub(super) enum Checked {
    /// It is sent.
    Passes(Option<Watch>),
    Refused(Failure),
    /// It has to be counted first.
    Undecided(Box<Question>),
    /// Nobody knows the model, and somebody is about to find out.
    Unlisted(OwnedNotified),
}

/// A request of which it is not known whether it is too long.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) body: Bytes,
    pub(super) call: Call,
    pub(super) model: Arc<str>,
    pub(super) limit: Option<u64>,
    pub(super) findings: RequestFacts,
    pub(super) bytes: u64,
    /// Its texts, as far as they are counted.
    pub(super) count: Count,
    /// What its texts have, as guessed: read at most once.
    pub(super) guess: OnceLock<u64>,
}

/// What a count decides.
pub(super) enum Decision {
    Fits(TokenCost),
    TooLong(Failure),
    Unknown,
}

/// Checks a request, and says in its [`CallContext`](context::CallContext) what it costs. `waits`: for a list of models, where one
/// is needed.
pub(super) fn check<B>(settings: &Arc<Settings>, request: &mut Request<B>, waits: bool) -> Checked
where
    B: Resend<Data = Bytes> + From<Bytes>,
{
    let mut call = match context::CallContext::of(request).and_then(context::CallContext::call) {
        Some(call) => call.clone(),
        None => Call::new(request.method(), request.uri()),
    };
    if !is_checked(&call) || request.headers().contains_key(header::CONTENT_ENCODING) {
        return Checked::Passes(None);
    }
    let Some(body) = in_memory(request.body()) else { return Checked::Passes(None) };
    if call.model().is_none() {
        call = call.read_body(&body);
    }
    let claims_json = claims_json(request.headers());
    let sample = settings.counter.is_none().then(Sample::default);
    let mut lengths = Lengths { sample, ..Lengths::default() };
    let findings = match scan::scan(&body, &mut lengths) {
        Ok(findings) => findings,
        Err(Unread::Malformed { message, line, column }) if claims_json => {
            return Checked::Refused(verdict::malformed(&message, line, column));
        }
        Err(_) => return Checked::Passes(None),
    };
    if claims_json && let Some(failure) = verdict::contents(&findings, &call) {
        return Checked::Refused(failure);
    }
    let Some(model) = call.shared_model() else { return Checked::Passes(None) };
    let on_vertex = is_vertex(&call, request.uri());
    let known = match known(settings, &call, &model, on_vertex) {
        Ok(known) => known,
        Err(failure) => return Checked::Refused(failure),
    };
    if waits
        && known.is_none()
        && !on_vertex
        && settings.unknown_model == UnknownModel::Refuse
        && let Some(listed) = settings.models.want_list(&model)
    {
        return Checked::Unlisted(listed);
    }
    if !call.pays_quota() {
        return Checked::Passes(None);
    }
    let mut question = Question {
        limit: None,
        bytes: lengths.bytes,
        count: lengths.count,
        guess: lengths.sample.map_or_else(OnceLock::new, |sample| OnceLock::from(sample.of(lengths.bytes))),
        body,
        call,
        model,
        findings,
    };
    if question.call.operation() == Operation::GenerateContent {
        match output(settings, request, &question, known.as_deref()) {
            Ok(Some(body)) => question.body = body,
            Ok(None) => {}
            Err(failure) => return Checked::Refused(failure),
        }
        question.limit = settings.models.effective_input_limit(&question.model).map(|limit| limit.tokens);
    }
    let asks = settings.ask == AskUpstream::Always && question.can_be_asked();
    // Whoever is too long by its length alone is not counted.
    if question.too_long().is_none() {
        question.count_inline(settings);
    }
    match question.decide(settings) {
        Decision::TooLong(failure) => Checked::Refused(failure),
        Decision::Fits(cost) if !asks => Checked::Passes(Some(question.publish(settings, request, cost))),
        Decision::Fits(_) | Decision::Unknown => Checked::Undecided(Box::new(question)),
    }
}

/// What this room understands: calls that carry contents.
fn is_checked(call: &Call) -> bool {
    let is_ours = matches!(call.surface(), Surface::Developer | Surface::Vertex | Surface::OpenAi);
    let has_contents = matches!(
        call.operation(),
        Operation::GenerateContent | Operation::EmbedContent | Operation::BatchEmbedContents | Operation::CountTokens
    );
    is_ours && has_contents
}

/// Vertex has a compatible surface of its own: `…/projects/{p}/locations/{l}/endpoints/openapi/…`.
fn is_vertex(call: &Call, uri: &Uri) -> bool {
    call.surface() == Surface::Vertex || (call.surface() == Surface::OpenAi && uri.path().contains("/openapi/"))
}

fn known(settings: &Settings, call: &Call, model: &str, on_vertex: bool) -> Result<Option<Arc<Model>>, Failure> {
    let operation = call.operation();
    match settings.models.verdict(model, operation) {
        ModelVerdict::Known(model) => Ok(Some(model)),
        // The list is the Developer API's; Vertex serves others.
        _ if on_vertex => Ok(settings.models.lookup(model)),
        ModelVerdict::MethodUnsupported { model, supported } => {
            let supported: Vec<_> = supported.names().collect();
            Err(verdict::not_supported(model.name(), operation, &supported.join(", ")))
        }
        ModelVerdict::Missing { nearest } if settings.unknown_model == UnknownModel::Refuse => {
            Err(verdict::no_such_model(model, &nearest))
        }
        _ => Ok(None),
    }
}

/// Looks at the output limit. Gives back another body where it had to be changed.
fn output<B: From<Bytes>>(
    settings: &Settings,
    request: &mut Request<B>,
    question: &Question,
    known: Option<&Model>,
) -> Result<Option<Bytes>, Failure> {
    let asked = question.findings.max_output.as_ref();
    match (verdict::output(settings.max_output, asked, known), asked) {
        (Output::Refuse(failure), _) => Err(failure),
        (Output::Warn(message), _) => {
            // Not a name that nobody knows: a caller may invent long ones.
            tracing::warn!(model = known.map(Model::name), "{message}");
            Ok(None)
        }
        (Output::Clamp(tokens), Some(asked)) => {
            let (body, number) = (&question.body, tokens.to_string());
            let body = Bytes::from([&body[..asked.at.start], number.as_bytes(), &body[asked.at.end..]].concat());
            if request.headers().contains_key(header::CONTENT_LENGTH) {
                request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
            }
            *request.body_mut() = B::from(body.clone());
            Ok(Some(body))
        }
        _ => Ok(None),
    }
}

impl Question {
    /// Counts at once, where there is somebody to count and little to be counted.
    fn count_inline(&mut self, settings: &Settings) {
        if let Some(counter) = &settings.counter
            && self.bytes <= INLINE
        {
            let counting = Counting::all(counter.counter(&self.model), self.bytes);
            self.count = counted(&self.body, counting, self.count);
        }
    }

    /// What follows from what is known.
    pub(super) fn decide(&self, settings: &Settings) -> Decision {
        if let Some(failure) = self.too_long() {
            return Decision::TooLong(failure);
        }
        let besides = count::besides(&self.findings);
        let fits = |limit| besides.is_some_and(|besides| self.count.at_most.saturating_add(besides) <= limit);
        if !self.limit.is_none_or(fits) {
            return Decision::Unknown;
        }
        Decision::Fits(self.cost(settings))
    }

    fn too_long(&self) -> Option<Failure> {
        let limit = self.limit.filter(|limit| self.count.at_least > *limit)?;
        let how = if self.count.is_exact() { "counted here" } else { "at least so many" };
        Some(verdict::too_long(&self.model, self.count.at_least, limit, how))
    }

    /// What it costs, as well as can be said.
    pub(super) fn cost(&self, settings: &Settings) -> TokenCost {
        let media = self.findings.media.estimate;
        match self.count.exact() {
            Some(tokens) if media == 0 => TokenCost::at_least(tokens),
            Some(tokens) => TokenCost::estimate(tokens.saturating_add(media)),
            None => {
                let Count { at_least, at_most } = self.count;
                let texts = settings.calibration.correct(&self.model, self.guess()).min(at_most).max(at_least);
                TokenCost::estimate(texts.saturating_add(media))
            }
        }
    }

    /// What its texts have, without a counter and without what was learned of this model.
    fn guess(&self) -> u64 {
        *self.guess.get_or_init(|| {
            let mut sample = Sample::default();
            let _ = scan::scan(&self.body, &mut sample);
            sample.of(self.bytes)
        })
    }

    /// Whether the upstream can be asked to count it.
    pub(super) fn can_be_asked(&self) -> bool {
        matches!(self.call.surface(), Surface::Developer | Surface::Vertex)
            && self.call.operation() == Operation::GenerateContent
    }

    /// Says what it costs, and what to learn from its answer.
    pub(super) fn publish<B>(&self, settings: &Arc<Settings>, request: &mut Request<B>, cost: TokenCost) -> Watch {
        context::CallContext::update(request.extensions_mut(), |context| context.set_token_cost(cost));
        // Of what was counted there is nothing to learn, and nothing of texts from what else the upstream has counted.
        let is_text = self.findings.media == Media::default() && !self.findings.has_cached_content;
        let guessed = cost.certainty == Certainty::Estimate && !self.count.is_exact();
        let estimate = (is_text && guessed).then(|| self.guess());
        Watch::new(settings.clone(), self.model.clone(), estimate)
    }
}

/// Walks a body again for a counter, and adds what it finds to what is known.
pub(super) fn counted(body: &[u8], mut counting: Counting, known: Count) -> Count {
    // What was read once can be read again, and whoever has heard enough stops.
    let _ = scan::scan(body, &mut counting);
    let counted = counting.total();
    let both = Count::between(counted.at_least.max(known.at_least), counted.at_most.min(known.at_most));
    // The lengths prove something of Gemini's vocabulary only; whoever counts may have another.
    if both.at_least > both.at_most { counted } else { both }
}

/// Whether the body is said to be JSON in UTF-8: what is not, the upstream judges.
fn claims_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let value = value.to_ascii_lowercase();
    let mut parts = value.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    let charset = parts.find_map(|part| part.strip_prefix("charset=")).unwrap_or("utf-8").trim_matches('"');
    let is_json = kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"));
    is_json && matches!(charset, "utf-8" | "utf8" | "us-ascii")
}
