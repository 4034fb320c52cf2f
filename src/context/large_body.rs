//! The findings of a large body that was read once, on a thread of its own, and that no room reads again.

use crate::resource::Mention;

/// The findings of a large body.
#[derive(Debug)]
pub(crate) enum LargeBody {
    /// The resources that it names, as many as are looked up.
    Read { mentions: Box<[Mention]> },
    /// It has too many values to be read.
    Unread,
}
