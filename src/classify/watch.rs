//! The policy of the room: when an answer commits, and the verdict on an answer that ends before.
//!
//! An attempt can fail until its first content has been seen. Until then the answer is held, because an error event, a
//! bare JSON tail or an end without content may still come. [`Watch`] is told the bytes as they come, and keeps none of
//! them.
//!
//! | answer | held until | whole |
//! |---|---|---|
//! | a stream | its first content, thoughts included | with a finish reason, a block reason, or `[DONE]` |
//! | in one piece | its first part that is more than a thought | where its JSON ends |
//! | the stream of an interaction | the first event that says more than that it begins | with `interaction.completed`, or `[DONE]` |
//! | an interaction in one piece | its end, because its status may say that it failed | where its JSON ends |
//! | an interaction in the background, or one that is read again | not at all: it exists already | as above |
//! | an embedding, a prediction | not at all: only its cost is read | not judged |
//! | of a shape that is not known here | not at all, once that is seen | not judged |

use http::{
    HeaderMap, HeaderName,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body::SizeHint;

use super::{
    events::Events,
    form::{AnswerForm, Opening, may_be_read},
};
use crate::{
    answer::{
        ErrorFound, Findings,
        media::{coding, is_event_stream},
        scan::Scanner,
    },
    call::{Operation, Shape, Streaming, Surface},
    context::ShortText,
    failure::{Failure, Kind},
};

/// The header that names the service tier that served.
const TIER_HEADER: HeaderName = HeaderName::from_static("x-gemini-service-tier");

/// A watch over one answer, from its first byte to its end.
#[derive(Debug)]
pub(super) struct Watch {
    surface: Surface,
    duty: Duty,
    /// Set if the answer only repeats something that another call has made.
    is_read: bool,
    streams: bool,
    /// Set if the length of the answer was known before its first byte.
    has_length: bool,
    scanner: Scanner,
    form: AnswerForm,
}

/// The purpose of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Duty {
    /// The answer was generated for this call: it is held, and its end is judged.
    Judge,
    /// The answer tells of something that goes on without this call: it is not held, but its end is judged.
    Follow,
    /// The answer is not generated: only its cost is read.
    Count,
}

/// The verdict on a held answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is decided, and the answer stays held.
    Undecided,
    /// Content has been seen: the answer is handed over, and the request is never sent again.
    Commit,
    /// The upstream reports a failure.
    Failed,
}

impl Watch {
    /// Creates a watch for this call's answer. `None`: nothing is read of the answer.
    ///
    /// An answer that says that it is a stream of events is read as one, whatever the URI said; of any other, its first
    /// bytes say it.
    pub(super) fn new(shape: Shape, headers: &HeaderMap, size: &SizeHint) -> Option<Box<Self>> {
        use Operation::{BatchEmbedContents, CreateInteraction, EmbedContent, GenerateContent, Predict, Read};
        let has_a_cost = match shape.operation {
            GenerateContent | CreateInteraction | EmbedContent | BatchEmbedContents | Predict => true,
            operation => operation == Read && shape.surface == Surface::Interactions,
        };
        if !has_a_cost || coding(headers).is_some() {
            return None;
        }
        let content_type = text(headers, CONTENT_TYPE).trim_start();
        let is =
            |essence: &str| content_type.get(..essence.len()).is_some_and(|start| start.eq_ignore_ascii_case(essence));
        let is_typed_sse = is_event_stream(headers);
        let is_sse = is_typed_sse || content_type.is_empty() && shape.streaming == Streaming::Sse;
        let duty = match shape.operation {
            GenerateContent | CreateInteraction if shape.background => Duty::Follow,
            GenerateContent | CreateInteraction => Duty::Judge,
            Predict if is_sse => Duty::Judge,
            Read => Duty::Follow,
            _ => Duty::Count,
        };
        let is_typed = is_sse || content_type.is_empty() || is("application/json");
        let is_readable = is_typed || duty == Duty::Judge && may_be_read(content_type);
        if !is_readable {
            return None;
        }
        // There are no arrays of an interaction's events.
        let streams = is_sse || shape.streaming != Streaming::No && shape.surface != Surface::Interactions;
        let form = match shape.operation {
            // Events may have a bare JSON line among them, the first one, too.
            _ if is_typed_sse => AnswerForm::Events(Events::new(shape.surface == Surface::Interactions).into()),
            GenerateContent | CreateInteraction | Read => AnswerForm::Unknown(Opening::default()),
            _ if is_sse => AnswerForm::Events(Events::new(false).into()),
            _ => AnswerForm::Json,
        };
        let is_read = shape.operation == Read;
        let has_length = size.exact().is_some() || headers.contains_key(CONTENT_LENGTH);
        let surface = shape.surface;
        let mut watch = Box::new(Self { surface, duty, is_read, streams, has_length, scanner: Scanner::new(), form });
        let tier = text(headers, TIER_HEADER);
        if !tier.is_empty() {
            watch.scanner.found.service_tier = Some(tier.into());
            watch.scanner.found.version += 1;
        }
        Some(watch)
    }

    /// Returns whether the answer is held until its first content.
    pub(super) fn holds(&self) -> bool {
        self.duty == Duty::Judge
    }

    /// Returns whether the answer has room for words of this side behind its last byte.
    pub(super) fn is_open_ended(&self) -> bool {
        self.streams && self.duty != Duty::Count && !self.has_length
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.form.push(bytes, &mut self.scanner, self.surface == Surface::Interactions);
        self.streams |= self.form.are_events();
    }

    /// Returns the verdict on an answer that has not ended.
    pub(super) fn verdict(&self) -> Verdict {
        if self.form.is_text() {
            return Verdict::Failed;
        }
        let found = &self.scanner.found;
        let commits = match self.is_interaction() {
            true => self.streams && found.content,
            // In one piece, a thought may be followed by nothing else, and can be asked for again.
            false => found.answer || self.streams && found.content,
        };
        if commits {
            return Verdict::Commit;
        }
        let decided = match &found.error {
            Some(_) => Verdict::Failed,
            None if self.is_interaction() && self.streams && found.completed => match self.interaction_failure() {
                Some(_) => Verdict::Failed,
                None => Verdict::Commit,
            },
            None if self.is_foreign() => Verdict::Commit,
            None => Verdict::Undecided,
        };
        // A finding has to be read to its end first.
        if self.is_read_to_its_end() { decided } else { Verdict::Undecided }
    }

    /// Returns the failure of an answer that ended before its commit. `held` is all of the answer.
    pub(super) fn judge_end(&self, held: &[u8]) -> Option<Failure> {
        if self.form.is_text() {
            return Some(Failure::of_unreadable_answer());
        }
        if self.scanner.found.error.is_some() {
            return Some(Failure::from_event(held));
        }
        if self.is_interaction() {
            let without_answer = || match self.says_nothing() {
                true => self.empty_failure(),
                // That it began is no answer: there is nothing to hand over before the error.
                false => (self.streams && !self.scanner.found.content && self.is_cut()).then(|| self.unfinished()),
            };
            return self.interaction_failure().or_else(without_answer);
        }
        if !self.streams && self.scanner.is_open() {
            return Some(cut("the answer ended in the middle of its JSON"));
        }
        self.empty_failure()
    }

    /// Returns whether an answer that was handed over ended before it had finished.
    pub(super) fn is_cut(&self) -> bool {
        let found = &self.scanner.found;
        if let Some(error) = &found.error {
            return !error.whole;
        }
        if self.duty == Duty::Count || self.form.is_text() {
            return false;
        }
        let done = self.form.is_done();
        match self.streams {
            true if self.is_interaction() => !done && (!found.completed || self.scanner.is_open()),
            true if self.is_foreign() => false,
            true => found.finish_reason.is_none() && found.block_reason.is_none() && !done,
            false => self.scanner.is_open(),
        }
    }

    /// Returns the failure that the upstream reports in an answer that was handed over already.
    pub(super) fn late_failure(&self) -> Option<Failure> {
        let failure = match &self.scanner.found.error {
            Some(error) => error.whole.then(|| said(error))?,
            // A failed interaction that is read again is not a failure to read it.
            None if self.is_read => return None,
            None => self.interaction_failure()?,
        };
        Some(failure.into_after_commit())
    }

    /// Returns the failure of an answer that was handed over and has ended without being one: it had thoughts only, or was
    /// handed over unread.
    pub(super) fn empty_at_end(&self) -> Option<Failure> {
        let failure = match self.duty {
            Duty::Judge if self.form.is_text() => Some(Failure::of_unreadable_answer()),
            Duty::Judge if !self.is_interaction() && !self.scanner.found.answer => self.empty_failure(),
            _ => None,
        };
        failure.map(Failure::into_after_commit)
    }

    /// Returns the reason for which the answer ended. An interaction has a status, which is the reason once nothing
    /// follows it.
    pub(super) fn finish_reason(&self) -> &Option<ShortText> {
        let found = &self.scanner.found;
        let is_last = self.is_interaction() && (found.completed || !self.streams);
        if is_last { &found.status } else { &found.finish_reason }
    }

    pub(super) fn findings(&self) -> &Findings {
        &self.scanner.found
    }

    fn is_interaction(&self) -> bool {
        self.surface == Surface::Interactions
    }

    fn is_foreign(&self) -> bool {
        !self.is_interaction() && self.scanner.found.is_foreign()
    }

    /// Returns whether all that has been found has also been read to its end.
    fn is_read_to_its_end(&self) -> bool {
        self.scanner.is_between_values() || !self.scanner.is_open()
    }

    /// Returns whether no interaction was told of: an empty body, `{}`, or a stream without an event that says more.
    fn says_nothing(&self) -> bool {
        let found = &self.scanner.found;
        let is_told = found.status.is_some() || found.response_id.is_some() || found.content || found.completed;
        !is_told && !found.is_foreign()
    }

    fn unfinished(&self) -> Failure {
        let awaited = if self.is_interaction() { "interaction.completed" } else { "a finishReason" };
        cut(&format!("the stream ended without {awaited}: the answer is not complete"))
    }

    fn empty_failure(&self) -> Option<Failure> {
        let found = &self.scanner.found;
        if self.is_foreign() {
            return None;
        }
        Failure::from_answer(found.finish_reason.as_deref(), found.block_reason.as_deref(), found.answer)
    }

    /// Returns the failure of an interaction whose status says that it came to nothing. All other statuses are answers:
    /// also one that is not complete, waits for a tool, goes on in the background, or has spent its budget.
    fn interaction_failure(&self) -> Option<Failure> {
        let found = &self.scanner.found;
        if !self.is_interaction() || !self.is_read_to_its_end() {
            return None;
        }
        match (found.status.as_deref()?, &found.fault) {
            ("failed", Some(fault)) if fault.code.is_some() || fault.status.is_some() => Some(said(fault)),
            ("failed", fault) => {
                let words = fault.as_ref().and_then(|fault| fault.message.as_deref());
                let message = format!("the interaction failed: {}", words.unwrap_or("its answer says no more"));
                Some(Failure::local(Kind::ServerError, message))
            }
            ("cancelled", _) => Some(Failure::local(Kind::Cancelled, "the interaction was cancelled")),
            _ => None,
        }
    }
}

/// Judges an error whose members were kept. It is rebuilt from them, so that one parser judges all errors.
fn said(error: &ErrorFound) -> Failure {
    let object = serde_json::json!({ "error": { "code": error.code, "status": error.status.as_deref(), "message": error.message } });
    Failure::from_event(object.to_string().as_bytes())
}

fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Returns the failure of a stream that ended before it had finished.
pub(super) fn cut_stream(watch: &Watch) -> Failure {
    watch.unfinished().into_after_commit()
}

fn cut(message: &str) -> Failure {
    Failure::local(Kind::StreamCut, message)
}

#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    use super::*;

    /// Shows all that a watch returns at the end of an answer that came in these pieces.
    pub fn watch(uri: &http::Uri, content_type: http::HeaderValue, pieces: &[&[u8]]) -> String {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type)]);
        let Some(mut watch) = Watch::new(Shape::new(&http::Method::POST, uri), &headers, &SizeHint::new()) else {
            return String::new();
        };
        pieces.iter().for_each(|piece| watch.push(piece));
        let failure = watch.judge_end(&pieces.concat());
        format!(
            "{:?}, cut: {}, late: {:?}, end: {failure:?}, {}",
            watch.verdict(),
            watch.is_cut(),
            watch.late_failure(),
            crate::fuzzing::shown(&watch.scanner)
        )
    }
}

#[cfg(test)]
mod tests;
