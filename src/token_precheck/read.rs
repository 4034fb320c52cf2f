//! The reading of a body for the check. Pure, so that it can be done on any thread.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    count::{Counting, Lengths, Sample},
    question::{MAX_INLINE, counted},
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
    /// The count of a large body's texts, if they are few.
    pub(super) counted: Option<Count>,
}

impl BodyFacts {
    /// Reads a body. A large one is read to the last that may be asked of it, because nobody waits for that now.
    pub(super) fn read(body: Bytes, mut call: Call, counter: Option<&Arc<dyn CountTokens>>) -> Self {
        let is_large = body.len() > INLINE;
        let mut lengths = Lengths::default();
        if has_too_many_values(&body) {
            return Self { body, call, findings: None, lengths, counted: None };
        }
        if call.quota_name().is_none() {
            call = call.read_body(&body);
        }
        lengths.sample = (counter.is_none() || is_large).then(Sample::default);
        let findings = scan::scan(&body, &mut lengths);
        let name = call.quota_name().filter(|_| is_large && findings.is_ok() && lengths.bytes <= MAX_INLINE);
        let counted = counter.zip(name).map(|(counter, name)| {
            let counting = Counting::all(counter.counter(name), lengths.bytes);
            counted(&body, counting, lengths.count)
        });
        Self { body, call, findings: Some(findings), lengths, counted }
    }
}
