//! The reading of a body for the check. Pure, so that it can be done on any thread.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    count::{Counted, Counting, Lengths, MAX_INLINE, Sample},
    question::counted,
};
use crate::{
    call::Call,
    request::{
        readers::{INLINE, has_too_many_values},
        scan::{self, RequestFacts, Unread},
    },
    tokenizer::{Count, CountTokens},
};

/// The facts of a body that the check judges.
pub(super) struct BodyFacts {
    pub(super) body: Bytes,
    pub(super) call: Call,
    /// `None`: it has too many values to be read.
    pub(super) findings: Option<Result<RequestFacts, Unread>>,
    pub(super) lengths: Lengths,
    /// The count of the texts, if they are few and somebody will ask for it, or the body is large.
    pub(super) counted: Option<Count>,
}

impl BodyFacts {
    /// Reads a body. A large one is read to the last that may be asked of it, because nobody waits for that now. The texts of
    /// one that is not large are counted in the same walk if `is_asked`: somebody will ask for their number.
    pub(super) fn read(body: Bytes, mut call: Call, counter: Option<&Arc<dyn CountTokens>>, is_asked: bool) -> Self {
        let is_large = body.len() > INLINE;
        let mut lengths = Lengths::default();
        if has_too_many_values(&body) {
            return Self { body, call, findings: None, lengths, counted: None };
        }
        if call.quota_name().is_none() {
            call = call.read_body(&body);
        }
        lengths.sample = (counter.is_none() || is_large).then(Sample::default);
        let countable = counter.zip(call.quota_name());
        let counter = countable.filter(|_| is_asked && !is_large).map(|(counter, name)| counter.counter(name));
        let mut sink = Counted { lengths, counter };
        let findings = scan::scan(&body, &mut sink);
        let (counted_at_once, lengths) = (sink.count(), sink.lengths);
        let counted = match countable {
            Some((counter, name)) if is_large && findings.is_ok() && lengths.bytes <= MAX_INLINE => {
                let counting = Counting::all(counter.counter(name), lengths.bytes);
                Some(counted(&body, counting, lengths.count))
            }
            _ => counted_at_once,
        };
        Self { body, call, findings: Some(findings), lengths, counted }
    }
}
