//! The additions to a failure that is judged: what only a layer knows, or a later look shows.

use std::{sync::Arc, time::Duration};

use http::StatusCode;

use super::{Details, Failure, Hint, Kind, TokenNumbers, kind::Help};

impl Failure {
    /// Adds the wait that would help. It is exact, unlike some of the upstream's.
    #[must_use]
    pub fn with_hint(mut self, delay: Duration) -> Self {
        self.hint = Some(Hint::exact(delay));
        self
    }

    /// Adds the number of input tokens and the limit that they exceed.
    #[must_use]
    pub(crate) fn with_token_numbers(mut self, count: u64, limit: u64) -> Self {
        self.details_mut().tokens = TokenNumbers { count: Some(count), limit: Some(limit) };
        self
    }

    /// Sets the status to answer with, where the kind alone does not decide it.
    #[must_use]
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    pub(super) fn details_mut(&mut self) -> &mut Details {
        Arc::make_mut(self.details.get_or_insert_default())
    }

    /// Names the grounding quota in a refusal that names none. The call must have asked for a search of the web or maps:
    /// only such calls are refused so while the model still answers others.
    #[must_use]
    pub(crate) fn of_grounded_call(mut self) -> Self {
        if self.flags.unnamed {
            self.kind = Kind::QuotaGrounding;
            self.help = self.kind.facts().help;
        }
        self
    }

    /// Marks a local refusal that lasts longer than anybody waits, so that the hint is only the time at which one call
    /// may look.
    #[must_use]
    pub(crate) fn into_lasting(mut self) -> Self {
        self.flags.lasting = true;
        self
    }

    /// Marks a local refusal that is about grounded calls only.
    #[must_use]
    pub(crate) fn into_grounded(mut self) -> Self {
        self.flags.grounded = true;
        self
    }

    /// Marks a failure of a call that one project alone could take: of the quota of others it says nothing.
    #[must_use]
    pub(crate) fn into_bound(mut self) -> Self {
        self.flags.bound = true;
        self
    }

    /// Marks a failure that came after bytes of the answer were forwarded: nothing may be sent again, so that nothing
    /// helps.
    #[must_use]
    pub fn into_after_commit(mut self) -> Self {
        self.flags.after_commit = true;
        self.help = Help::NONE;
        self
    }

    /// Marks that the same 500 came twice for the same request, so that the request's content is the likely cause.
    pub fn mark_content_suspected(&mut self) {
        self.flags.content_suspected = true;
    }
}
