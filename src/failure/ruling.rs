//! The verdict on a body, from which a failure is made.

use super::{Kind, Quota, kind::Help};

/// The verdict on a body.
pub(super) struct Ruling {
    pub(super) kind: Kind,
    pub(super) help: Help,
    pub(super) quota: Option<Quota>,
    pub(super) ignore_hint: bool,
}

impl Ruling {
    /// Makes the verdict that follows from the kind alone.
    pub(super) fn of(kind: Kind) -> Self {
        Self { kind, help: kind.facts().help, quota: None, ignore_hint: false }
    }
}
