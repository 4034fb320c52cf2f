//! The script of the emulator: the text of its answers, the troubles that strike, and the plan of one response.

pub(super) mod plan;
pub(super) mod reply;
pub(super) mod rules;
pub(super) mod trouble;
pub(super) mod trouble_kind;
pub(super) mod when;
