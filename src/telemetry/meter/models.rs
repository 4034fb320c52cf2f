//! The models that metrics know by name.
//!
//! A label is for ever: an exporter keeps each combination that it has ever seen. A caller can invent a model's name with
//! each call, so that a name is a label only once a good answer has confirmed that there is such a model, and only so many.

use std::{collections::HashSet, sync::Arc};

use metrics::SharedString;
use parking_lot::RwLock;

use crate::redact::redact;

/// The most models that are known by name. The API's list has about 50.
const MAX_MODELS: usize = 64;

/// Longer names are none of the API's.
const MAX_NAME: usize = 128;

/// All other models.
const OTHER: &str = "other";

/// A cheap handle: all clones know the same models.
#[derive(Clone, Debug, Default)]
pub(in crate::telemetry) struct Models(Arc<RwLock<HashSet<Arc<str>>>>);

impl Models {
    /// A good answer has come from it.
    pub(in crate::telemetry) fn confirm(&self, model: &str) {
        let fits = |known: &HashSet<Arc<str>>| known.len() < MAX_MODELS && !known.contains(model);
        if model.is_empty() || model.len() > MAX_NAME || !fits(&self.0.read()) || redact(model) != model {
            return;
        }
        let mut known = self.0.write();
        // Somebody else may have been faster.
        if fits(&known) {
            known.insert(model.into());
        }
    }

    /// The name by which metrics know it.
    pub(in crate::telemetry) fn label(&self, model: &str) -> SharedString {
        match self.0.read().get(model) {
            Some(known) => SharedString::from_shared(known.clone()),
            None => SharedString::const_str(OTHER),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_label_once_it_is_confirmed_and_while_there_is_room() {
        let models = Models::default();
        assert_eq!(&*models.label("a"), "other");
        models.confirm("a");
        assert_eq!(&*models.label("a"), "a");
        assert_eq!(&*models.clone().label("a"), "a");
        models.confirm("");
        models.confirm(&"long".repeat(33));
        assert_eq!((&*models.label(""), &*models.label(&"long".repeat(33))), ("other", "other"));
        (0..10_000).for_each(|nth| models.confirm(&format!("invented-{nth}")));
        let known = (0..10_000).filter(|nth| &*models.label(&format!("invented-{nth}")) != "other").count();
        assert_eq!(known, MAX_MODELS - 1);
        assert_eq!(&*models.label("a"), "a");
    }
}
