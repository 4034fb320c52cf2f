//! The settings that a layer hands to its services.

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) enabled: bool,
    /// Whether a 200 is held until its first content.
    pub(super) hold_answers: bool,
}
