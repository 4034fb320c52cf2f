//! A request whose length in tokens is not yet known, and what each count of it decides. Pure: nothing here waits.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::Request;

use super::{
    count::{self, Counting, MAX_INLINE, Sample},
    later::LaterCost,
    learn::{Learner, Taught},
    settings::{AskUpstream, Settings},
    verdict,
};
use crate::{
    call::{Call, Operation, Surface},
    context::CallContext,
    failure::Failure,
    quota::{Certainty, TokenCost},
    request::{
        media::Media,
        readers::INLINE,
        scan::{self, RequestFacts},
    },
    tokenizer::Count,
};

/// The bytes of text for each token in a guess: natural text has 0.33 tokens a byte in the median.
const BYTES_PER_TOKEN: u64 = 3;

/// A request, and what is known of its length.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) body: Bytes,
    pub(super) call: Call,
    pub(super) model: Arc<str>,
    /// The most input tokens that the model takes, if that is known.
    pub(super) limit: Option<u64>,
    pub(super) findings: RequestFacts,
    /// The bytes of all texts.
    pub(super) bytes: u64,
    /// The bounds of the texts' tokens, as far as they have been counted.
    pub(super) count: Count,
    /// The estimate of the texts' tokens. Computed at most once, because it walks the body.
    pub(super) estimate: OnceLock<u64>,
}

/// The result of comparing what is known of a request with the model's limit.
pub(super) enum LimitCheck {
    Fits(TokenCost),
    TooLong(Failure),
    Unknown,
}

/// The next step after a count.
#[derive(Debug)]
pub(super) enum NextStep {
    CountUpstream,
    Send(TokenCost),
    Refuse(Failure),
}

impl Question {
    /// Returns the next step after the local count. `None`: nothing local could count.
    pub(super) fn after_local_count(&mut self, settings: &Settings, count: Option<Count>) -> NextStep {
        if let Some(count) = count {
            self.count = count;
            match self.check_limit(settings) {
                LimitCheck::Fits(cost) if !self.is_always_counted_upstream(settings) => return NextStep::Send(cost),
                LimitCheck::TooLong(failure) => return NextStep::Refuse(failure),
                LimitCheck::Fits(_) | LimitCheck::Unknown => {}
            }
        }
        if settings.ask != AskUpstream::Never && self.upstream_can_count() {
            NextStep::CountUpstream
        } else {
            self.after_upstream_count(settings, None)
        }
    }

    /// Returns the next step after the upstream's count. `None`: the upstream gave none.
    pub(super) fn after_upstream_count(&self, settings: &Settings, tokens: Option<u64>) -> NextStep {
        match (tokens, self.limit) {
            (Some(tokens), Some(limit)) if tokens > limit => {
                NextStep::Refuse(verdict::too_long(&self.model, tokens, limit, "counted by countTokens"))
            }
            (Some(tokens), _) => NextStep::Send(TokenCost::at_least(tokens)),
            (None, Some(limit))
                if settings.fail_closed && matches!(self.check_limit(settings), LimitCheck::Unknown) =>
            {
                NextStep::Refuse(verdict::cannot_be_counted(&self.model, limit))
            }
            (None, _) => NextStep::Send(self.cost(settings, self.count)),
        }
    }

    /// Returns whether the request fits into the model's limit, as far as its bounds prove it.
    pub(super) fn check_limit(&self, settings: &Settings) -> LimitCheck {
        if let Some(failure) = self.too_long() {
            return LimitCheck::TooLong(failure);
        }
        if !self.fits() {
            return LimitCheck::Unknown;
        }
        LimitCheck::Fits(self.cost(settings, self.count))
    }

    /// Returns whether the upper bound is within the limit.
    pub(super) fn fits(&self) -> bool {
        let besides = count::besides(&self.findings);
        let fits = |limit| besides.is_some_and(|besides| self.count.at_most.saturating_add(besides) <= limit);
        self.limit.is_none_or(fits)
    }

    /// Returns the refusal if the lower bound is above the limit.
    pub(super) fn too_long(&self) -> Option<Failure> {
        let limit = self.limit.filter(|limit| self.count.at_least > *limit)?;
        let how = if self.count.is_exact() { "counted locally" } else { "a lower bound" };
        Some(verdict::too_long(&self.model, self.count.at_least, limit, how))
    }

    /// Returns the cost: exact where the texts are counted and there is no media, else an estimate.
    pub(super) fn cost(&self, settings: &Settings, count: Count) -> TokenCost {
        let media = self.findings.media.estimate;
        match count.exact() {
            Some(tokens) if media == 0 => TokenCost::at_least(tokens),
            Some(tokens) => TokenCost::estimate(tokens.saturating_add(media)),
            None => {
                let Count { at_least, at_most } = count;
                let texts = settings.calibration.correct(&self.model, self.estimate()).min(at_most).max(at_least);
                TokenCost::estimate(texts.saturating_add(media))
            }
        }
    }

    /// Returns the cost as far as it is known without reading the body: an estimate from the number of bytes, where nothing
    /// better is at hand.
    pub(super) fn guess(&self, settings: &Settings) -> TokenCost {
        if self.count.is_exact() || self.estimate.get().is_some() {
            return self.cost(settings, self.count);
        }
        let Count { at_least, at_most } = self.count;
        let texts = (self.bytes / BYTES_PER_TOKEN).min(at_most).max(at_least);
        TokenCost::estimate(texts.saturating_add(self.findings.media.estimate))
    }

    /// Estimates the texts' tokens without a counter and without the model's calibration.
    fn estimate(&self) -> u64 {
        *self.estimate.get_or_init(|| {
            let mut sample = Sample::default();
            let _ = scan::scan(&self.body, &mut sample);
            sample.scaled_to(self.bytes)
        })
    }

    /// Counts the texts inline, if there is a counter and they are short enough. Else returns the bounds that are known.
    pub(super) fn count_inline(&self, settings: &Settings) -> Count {
        match &settings.counter {
            Some(counter) if self.bytes <= MAX_INLINE && self.body.len() <= INLINE => {
                let counting = Counting::all(counter.counter(&self.model), self.bytes);
                counted(&self.body, counting, self.count)
            }
            _ => self.count,
        }
    }

    /// Returns whether the settings want the upstream's count even where the local one decides.
    pub(super) fn is_always_counted_upstream(&self, settings: &Settings) -> bool {
        settings.ask == AskUpstream::Always && self.upstream_can_count()
    }

    /// Returns whether `countTokens` can count this request.
    fn upstream_can_count(&self) -> bool {
        matches!(self.call.surface(), Surface::Developer | Surface::Vertex)
            && self.call.operation() == Operation::GenerateContent
            && !self.call.speaks_in_body()
    }

    /// Writes the cost into the call's context, and returns the learner of the call's answer.
    pub(super) fn publish<B>(&self, settings: &Arc<Settings>, request: &mut Request<B>, cost: TokenCost) -> Learner {
        CallContext::update(request.extensions_mut(), |context| context.set_token_cost(cost));
        let taught = self.taught(cost, self.count).map_or(Taught::Nothing, Taught::Estimate);
        Learner::new(settings.clone(), self.model.clone(), taught)
    }

    /// Leaves the cost to be computed when somebody asks for it, and returns the learner of the call's answer.
    pub(super) fn publish_later<B>(self, settings: &Arc<Settings>, request: &mut Request<B>) -> Learner {
        let model = self.model.clone();
        let later = LaterCost::new(settings.clone(), self);
        let taught = Taught::Later(later.cell());
        CallContext::update(request.extensions_mut(), |context| context.set_count_later(Arc::new(later)));
        Learner::new(settings.clone(), model, taught)
    }

    /// Returns the estimate that the call's answer puts to the test, if its cost is one.
    pub(super) fn taught(&self, cost: TokenCost, count: Count) -> Option<u64> {
        // A counted request teaches nothing of estimates, and the upstream's total says nothing of the texts where it
        // also includes media or cached content.
        let is_text = self.findings.media == Media::default() && !self.findings.has_cached_content;
        let is_estimated = cost.certainty == Certainty::Estimate && !count.is_exact();
        (is_text && is_estimated).then(|| self.estimate())
    }
}

/// Walks a body for a counter, and returns the count narrowed by the bounds that are `known` already.
pub(super) fn counted(body: &[u8], mut counting: Counting, known: Count) -> Count {
    // The body was read once without an error, so that only a counter that needs no more text stops the walk.
    let _ = scan::scan(body, &mut counting);
    count::narrowed(counting.total(), known)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{Method, Uri};

    use super::*;
    use crate::models::ModelTable;

    const MODEL: &str = "gemini-2.5-flash";

    fn settings(ask: AskUpstream, fail_closed: bool) -> Settings {
        Settings { ask, fail_closed, ..Settings::new(ModelTable::new(), Duration::ZERO) }
    }

    /// A request of 100 to 1,000 tokens to a model that takes 500.
    fn question(path: &'static str) -> Question {
        let body = Bytes::from_static(br#"{"contents": [{"parts": [{"text": "Hello!"}]}]}"#);
        let findings = scan::scan(&body, &mut Sample::default()).unwrap();
        Question {
            body,
            call: Call::new(&Method::POST, &Uri::from_static(path)),
            model: MODEL.into(),
            limit: Some(500),
            findings,
            bytes: 1_000,
            count: Count::between(100, 1_000),
            estimate: OnceLock::from(300),
        }
    }

    fn generate() -> Question {
        question("/v1beta/models/gemini-2.5-flash:generateContent")
    }

    /// Spells a step: `ask`, `refuse`, or the tokens of what is sent.
    fn spelt(step: &NextStep) -> String {
        match step {
            NextStep::CountUpstream => "ask".into(),
            NextStep::Refuse(_) => "refuse".into(),
            NextStep::Send(cost) => cost.tokens.to_string(),
        }
    }

    #[test]
    fn a_local_count_decides_unless_it_is_too_near_to_the_limit() {
        for (count, ask, closed, expected) in [
            (Some(Count::exactly(200)), AskUpstream::NearLimit, false, "200"),
            (Some(Count::exactly(200)), AskUpstream::Always, false, "ask"),
            (Some(Count::exactly(501)), AskUpstream::Always, false, "refuse"),
            (Some(Count::exactly(499)), AskUpstream::NearLimit, false, "ask"),
            (Some(Count::exactly(499)), AskUpstream::Never, false, "499"),
            (Some(Count::exactly(499)), AskUpstream::Never, true, "refuse"),
            (None, AskUpstream::NearLimit, true, "ask"),
            (None, AskUpstream::Never, true, "refuse"),
            (None, AskUpstream::Never, false, "300"),
        ] {
            let step = generate().after_local_count(&settings(ask, closed), count);
            assert_eq!(spelt(&step), expected, "{count:?} {ask:?} {closed}");
        }
    }

    #[test]
    fn the_upstream_is_not_asked_where_it_cannot_count() {
        let mut chat = question("/v1beta/openai/chat/completions");
        assert_eq!(spelt(&chat.after_local_count(&settings(AskUpstream::Always, false), None)), "300");
    }

    #[test]
    fn the_upstreams_count_decides_and_without_one_the_policy_does() {
        for (tokens, closed, expected) in
            [(Some(500), true, "500"), (Some(501), false, "refuse"), (None, false, "300"), (None, true, "refuse")]
        {
            let step = generate().after_upstream_count(&settings(AskUpstream::NearLimit, closed), tokens);
            assert_eq!(spelt(&step), expected, "{tokens:?} {closed}");
        }
        let unlimited = Question { limit: None, ..generate() };
        let step = unlimited.after_upstream_count(&settings(AskUpstream::NearLimit, true), None);
        assert_eq!(spelt(&step), "300");
    }
}
