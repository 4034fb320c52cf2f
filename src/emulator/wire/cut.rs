//! The bound on texts that callers choose.

use crate::bounded::start_of;

/// Returns the text up to `bytes` bytes, cut between characters.
pub(crate) fn cut(text: &str, bytes: usize) -> String {
    start_of(text, bytes).to_owned()
}
