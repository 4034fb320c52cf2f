//! The kinds of troubles, as a script keeps them.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::emulator::wire::answer::EmptyAnswer;

/// The kind of a trouble.
#[derive(Clone, Debug)]
pub(crate) enum TroubleKind {
    None,
    Error {
        error: ScriptedError,
        hint: Option<Duration>,
        place: ErrorPlace,
    },
    Response(Arc<CannedResponse>),
    Hang,
    Reset,
    SlowFirstToken(Duration),
    Break {
        after: usize,
        how: StreamBreak,
    },
    Empty(EmptyAnswer),
    /// The answer comes from the standard tier, whichever was asked for.
    Downgraded,
}

/// An error of the API that a script asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ScriptedError {
    Overloaded,
    HighDemand,
    Internal,
    DeadlineExceeded,
    MinuteQuota(Duration),
    TokenQuota(Duration),
    DayQuota,
    ZeroQuota,
    BareQuota,
    VertexCapacity,
    InvalidKey,
    ExpiredKey,
    SuspendedKey,
    LeakedKey,
    ServiceDisabled,
    GroundingQuota,
    SpendLimit,
    SpendingCap,
    ModelClosed,
    Prohibited,
}

/// The place of an API error: the response's status, or a 200 stream after some chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorPlace {
    Status,
    Event { after: usize },
    RawTail { after: usize },
}

/// The way in which an answer breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamBreak {
    Stall,
    Reset,
    Cut,
}

/// A response that the script's author wrote.
pub(crate) struct CannedResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) name: &'static str,
}

// === impl ScriptedError ===

impl ScriptedError {
    /// Returns the name that the journal has for the error.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::HighDemand => "high_demand",
            Self::Internal => "internal",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::MinuteQuota(_) => "minute_quota",
            Self::TokenQuota(_) => "token_quota",
            Self::DayQuota => "day_quota",
            Self::ZeroQuota => "zero_quota",
            Self::BareQuota => "bare_quota",
            Self::VertexCapacity => "vertex_capacity",
            Self::InvalidKey => "invalid_key",
            Self::ExpiredKey => "expired_key",
            Self::SuspendedKey => "suspended_key",
            Self::LeakedKey => "leaked_key",
            Self::ServiceDisabled => "service_disabled",
            Self::GroundingQuota => "grounding_quota",
            Self::SpendLimit => "spend_limit",
            Self::SpendingCap => "spending_cap",
            Self::ModelClosed => "model_closed",
            Self::Prohibited => "prohibited",
        }
    }
}

impl fmt::Debug for CannedResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CannedResponse").field("status", &self.status).field("bytes", &self.body.len()).finish()
    }
}
