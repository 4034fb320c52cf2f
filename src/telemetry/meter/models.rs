//! The models that metrics know by name.
//!
//! A label is permanent: an exporter keeps each combination that it has ever seen. A caller can invent a model's name
//! with each call, so that a name becomes a label only once a good answer has confirmed that there is such a model, and
//! only for the first [`MAX_MODELS`] of them.

use std::{collections::HashSet, sync::Arc};

use metrics::SharedString;
use parking_lot::RwLock;

use crate::redact::redact;

/// The most models that are known by name. The API's list has about 50.
const MAX_MODELS: usize = 64;

/// The longest name of a model that is known by name, in bytes. The API has none that is longer.
const MAX_NAME: usize = 128;

/// The label of all other models.
const OTHER: &str = "other";

/// The labels of models. A cheap handle: all clones know the same models.
#[derive(Clone, Debug, Default)]
pub(in crate::telemetry) struct ModelLabels(Arc<RwLock<HashSet<Arc<str>>>>);

impl ModelLabels {
    /// Notes that a good answer has come from `model`, so that there is such a model.
    pub(in crate::telemetry) fn confirm(&self, model: &str) {
        let fits = |known: &HashSet<Arc<str>>| known.len() < MAX_MODELS && !known.contains(model);
        if model.is_empty() || model.len() > MAX_NAME || !fits(&self.0.read()) || redact(model) != model {
            return;
        }
        let mut known = self.0.write();
        // Another thread may have been faster.
        if fits(&known) {
            known.insert(model.into());
        }
    }

    /// Returns the label of `model`.
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
        let models = ModelLabels::default();
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
