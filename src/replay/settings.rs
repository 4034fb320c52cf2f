//! The settings that a layer hands to its services, and the policy among them.

use super::memory::ReplayMemory;
use crate::request::readers::Readers;

/// The settings of one layer. Clones share the memory.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) max_body: usize,
    pub(super) oversize: Oversize,
    pub(super) memory: ReplayMemory,
    pub(super) readers: Readers,
}

/// The treatment of a body that is larger than [`max_body`](super::ReplayLayer::max_body).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Oversize {
    /// The body streams on to the upstream, which judges it. The request cannot be sent again. The default.
    #[default]
    Stream,
    /// The body is refused with an error that names the cap, answered with 413. An upload (`/upload/…`) streams on all
    /// the same.
    Refuse,
}
