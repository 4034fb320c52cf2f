//! The verdict on a body, before it becomes a failure.

use super::{Kind, Quota, kind::Help};

/// What a body comes to.
pub(super) struct Ruling {
    pub(super) kind: Kind,
    pub(super) help: Help,
    pub(super) quota: Option<Quota>,
    pub(super) ignore_hint: bool,
}

impl Ruling {
    /// What follows from the kind alone.
    pub(super) fn of(kind: Kind) -> Self {
        Self { kind, help: kind.facts().help, quota: None, ignore_hint: false }
    }
}
