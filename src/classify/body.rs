//! The body of an answer after its commit: its bytes pass untouched, and a watch follows them.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::watch::{Watch, cut_stream};
use crate::{
    answer::{Modalities, TokenSide},
    body::PrefixedBody,
    context::{BoxError, ByModality, Error, Usage, UsageReport},
    failure::Failure,
};

pin_project! {
    /// The response body of [`Classify`](super::Classify): the upstream's bytes in the upstream's frames.
    ///
    /// It fails where the upstream's body fails, and at the end of a stream that was cut before it had finished.
    pub struct ClassifyBody<R> {
        #[pin]
        body: PrefixedBody<R>,
        watching: Option<Watching>,
        // The error that stopped the reading of the beginning, or that was found at the end.
        pending: Option<BoxError>,
        // Set if an error may follow a last byte that is known already, so that the length must not be.
        open_ended: bool,
        done: bool,
    }
}

struct Watching {
    watch: Box<Watch>,
    usage: Usage,
    /// The version of the findings that were reported last.
    version: u32,
    /// Set if the answer had failed before it was handed over. Its end is then not another failure.
    failed: bool,
}

impl<R> ClassifyBody<R> {
    /// Creates a body that is passed on unwatched.
    pub(super) fn plain(body: PrefixedBody<R>) -> Self {
        Self { body, watching: None, pending: None, open_ended: false, done: false }
    }

    /// Creates a body whose beginning was read up to an error.
    pub(super) fn broken(body: PrefixedBody<R>, error: BoxError) -> Self {
        Self { pending: Some(error), ..Self::plain(body) }
    }

    /// Creates a body that is followed to its end. `failed`: the answer had failed before it was handed over.
    pub(super) fn watched(body: PrefixedBody<R>, watch: Box<Watch>, usage: Usage, failed: bool) -> Self {
        let mut watching = Watching { watch, usage, version: 0, failed };
        watching.report();
        Self { watching: Some(watching), ..Self::plain(body) }
    }

    /// Leaves the length of the body open: it was not known before the body was read.
    pub(super) fn open_ended(mut self, open_ended: bool) -> Self {
        self.open_ended = open_ended;
        self
    }
}

impl Watching {
    /// Copies new findings into the usage cell.
    fn report(&mut self) {
        let found = self.watch.findings();
        if found.version != self.version {
            self.version = found.version;
            self.usage.update(|report| fill(report, &self.watch));
            if let Some(failure) = self.watch.late_failure().filter(|_| !self.failed) {
                self.usage.fail(failure);
            }
        }
    }

    /// Reports the end. Returns the error of a stream that was cut.
    fn end(&mut self) -> Option<BoxError> {
        self.report();
        self.usage.end();
        if self.failed {
            return None;
        }
        if !self.watch.is_cut() {
            // It cannot be asked for again, but it is noted.
            if let Some(failure) = self.watch.late_failure().or_else(|| self.watch.empty_at_end()) {
                self.usage.fail(failure);
            }
            return None;
        }
        let failure = cut_stream(&self.watch);
        self.usage.fail(failure.clone());
        Some(Error::refusal(super::NAME, failure).into())
    }
}

/// Copies what the scan has found so far.
fn fill(report: &mut UsageReport, watch: &Watch) {
    let found = watch.findings();
    let tokens = &found.tokens;
    report.prompt_tokens = tokens.prompt;
    report.initial_prompt_tokens = tokens.initial;
    report.candidates_tokens = tokens.candidates;
    report.thoughts_tokens = tokens.thoughts;
    report.cached_tokens = tokens.cached;
    report.tool_use_prompt_tokens = tokens.tool_use_prompt;
    report.total_tokens = tokens.total;
    report.input_by_modality = by_modality(tokens.of(TokenSide::Input));
    report.output_by_modality = by_modality(tokens.of(TokenSide::Output));
    report.cached_by_modality = by_modality(tokens.of(TokenSide::Cached));
    if report.continuations.len() != found.continuations.len() {
        report.continuations.clone_from(&found.continuations);
    }
    let names = [
        (&mut report.service_tier, &found.service_tier),
        (&mut report.response_id, &found.response_id),
        (&mut report.previous_interaction_id, &found.previous_interaction_id),
        (&mut report.model_version, &found.model_version),
        (&mut report.finish_reason, watch.finish_reason()),
        (&mut report.block_reason, &found.block_reason),
    ];
    for (known, found) in names {
        if known != found {
            known.clone_from(found);
        }
    }
}

fn by_modality(counts: &Modalities) -> ByModality {
    let [text, image, audio, video, document] = *counts;
    ByModality { text, image, audio, video, document }
}

impl<R> Body for ClassifyBody<R>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        if *this.done {
            return Poll::Ready(this.pending.take().map(Err));
        }
        let held = this.body.is_in_prefix();
        if !held && let Some(error) = this.pending.take() {
            *this.done = true;
            return Poll::Ready(Some(Err(error)));
        }
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        match frame {
            Some(Ok(frame)) => {
                if let Some(watching) = this.watching {
                    // The held part has been scanned already.
                    if !held && let Some(data) = frame.data_ref() {
                        watching.watch.push(data);
                        watching.report();
                    }
                    if this.body.is_end_stream() {
                        *this.pending = watching.end();
                        *this.done = true;
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                *this.done = true;
                let error = error.into();
                if Error::find(&*error).is_some() {
                    return Poll::Ready(Some(Err(error)));
                }
                let failure = Failure::from_error(&*error).into_after_commit();
                if let Some(watching) = this.watching {
                    watching.usage.fail(failure.clone());
                }
                Poll::Ready(Some(Err(Error::caused(super::NAME, failure, error).into())))
            }
            None => {
                *this.done = true;
                Poll::Ready(this.watching.as_mut().and_then(Watching::end).map(Err))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match (&self.watching, self.done) {
            (_, true) => self.pending.is_none(),
            // Only at its end is it known that a stream was cut.
            (Some(_), false) => false,
            (None, false) => self.pending.is_none() && self.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.body.size_hint() {
            hint if self.open_ended && !self.done => {
                let mut open = SizeHint::new();
                open.set_lower(hint.lower());
                open
            }
            hint => hint,
        }
    }
}

impl<R> fmt::Debug for ClassifyBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClassifyBody").field("done", &self.done).finish_non_exhaustive()
    }
}
