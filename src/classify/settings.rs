//! The settings that a layer hands to its services.

/// The settings of one layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) enabled: bool,
    /// Set if a 200 is held until its first content.
    pub(super) hold_answers: bool,
}
