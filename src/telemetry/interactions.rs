//! The interactions that were seen lately: the conversations that they belong to, and those whose tokens nobody has
//! reported yet.
//!
//! The API names no conversation: an interaction names the one before it. The first one that is known of a chain stands
//! for the conversation.
//!
//! An interaction in the background answers at once, without tokens, and is fetched later, as often as its caller likes.
//! Its tokens are counted with the first answer that has them, once.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;

use crate::bounded::ByAge;

/// The most interactions that are remembered.
const MOST: usize = 4_096;

/// The longest id that is remembered, in bytes. The API's are about 90.
const MAX_ID: usize = 256;

/// The interactions that a layer has seen lately. A cheap handle: all clones know the same ones.
#[derive(Clone)]
pub(super) struct Interactions(Arc<Mutex<ByAge<Arc<str>, SeenInteraction>>>);

#[derive(Debug)]
struct SeenInteraction {
    conversation: Arc<str>,
    /// The call that has made it, while its tokens are not known.
    unreported: Option<Creator>,
}

/// The call that has made an interaction, as metrics name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Creator {
    pub(super) operation: &'static str,
    pub(super) provider: &'static str,
    pub(super) model: Option<Arc<str>>,
}

impl Default for Interactions {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(ByAge::new(MOST))))
    }
}

impl Interactions {
    /// Notes a new interaction, and returns its conversation. `unreported`: the call that has made it, if the answer had
    /// no tokens.
    pub(super) fn created(&self, id: &str, previous: Option<&str>, unreported: Option<Creator>) -> Option<Arc<str>> {
        if id.is_empty() || id.len() > MAX_ID {
            return None;
        }
        let mut seen = self.0.lock();
        // The same answer comes again where a caller repeats its call with the same id.
        if let Some(known) = seen.get(id) {
            return Some(known.conversation.clone());
        }
        let id = Arc::<str>::from(id);
        let previous = previous.filter(|previous| !previous.is_empty() && previous.len() <= MAX_ID);
        let conversation = match previous {
            Some(previous) => seen.get(previous).map_or_else(|| previous.into(), |seen| seen.conversation.clone()),
            None => id.clone(),
        };
        seen.insert(id, SeenInteraction { conversation: conversation.clone(), unreported });
        Some(conversation)
    }

    /// Returns the conversation of an interaction.
    pub(super) fn conversation_of(&self, id: &str) -> Option<Arc<str>> {
        self.0.lock().get(id).map(|seen| seen.conversation.clone())
    }

    /// Takes the call that has made an interaction, if its tokens were never reported: they have come now. Once.
    pub(super) fn reported(&self, id: &str) -> Option<Creator> {
        self.0.lock().get_mut(id)?.unreported.take()
    }
}

impl fmt::Debug for Interactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interactions").field("len", &self.0.lock().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn creator() -> Creator {
        Creator { operation: "generate_content", provider: "gcp.gemini", model: Some("m".into()) }
    }

    #[test]
    fn a_conversation_is_its_first_interaction_that_is_known() {
        let interactions = Interactions::default();
        let created = |id, previous| interactions.created(id, previous, None);
        assert_eq!(created("a", None).as_deref(), Some("a"));
        assert_eq!(created("b", Some("a")).as_deref(), Some("a"));
        assert_eq!(created("c", Some("b")).as_deref(), Some("a"));
        // Another branch of the same conversation.
        assert_eq!(created("d", Some("a")).as_deref(), Some("a"));
        // The one before was made elsewhere.
        assert_eq!(created("f", Some("e")).as_deref(), Some("e"));
        assert_eq!(created("g", Some("f")).as_deref(), Some("e"));
        assert_eq!(created("h", Some("")).as_deref(), Some("h"));
        assert_eq!(interactions.conversation_of("g").as_deref(), Some("e"));
        assert_eq!(interactions.conversation_of("e"), None);
    }

    #[test]
    fn tokens_are_reported_once() {
        let interactions = Interactions::default();
        interactions.created("foreground", None, None);
        interactions.created("background", None, Some(creator()));
        interactions.created("background", None, Some(creator()));
        assert_eq!(interactions.reported("foreground"), None);
        assert_eq!(interactions.reported("elsewhere"), None);
        assert_eq!(interactions.clone().reported("background"), Some(creator()));
        assert_eq!(interactions.reported("background"), None);
    }

    #[test]
    fn law_10_the_number_and_length_of_ids_are_bounded() {
        let interactions = Interactions::default();
        assert_eq!(interactions.created(&"x".repeat(MAX_ID + 1), None, None), None);
        let long = "x".repeat(MAX_ID + 1);
        assert_eq!(interactions.created("short", Some(&long), None).as_deref(), Some("short"));
        (0..2 * MOST).for_each(|nth| drop(interactions.created(&format!("i-{nth}"), None, None)));
        assert_eq!(interactions.0.lock().len(), MOST);
        assert_eq!(interactions.conversation_of("short"), None);
    }
}
