//! The models that metrics know by name.
//!
//! A label is permanent: an exporter keeps each combination that it has ever seen. A caller can invent a model's name
//! with each call, so that a name becomes a label only where somebody else says that there is such a model: the program's
//! own settings, a list of the upstream's, or a good answer; the last for the first [`MAX_CONFIRMED`] names only.

use std::{collections::HashSet, sync::Arc};

use metrics::SharedString;
use parking_lot::RwLock;

use crate::{models::ModelTable, redact::redact};

/// The most models that are known by name because an answer has come from them. The API's list has about 50.
const MAX_CONFIRMED: usize = 64;

/// The most models that are known by name because the program has named them.
const MAX_NAMED: usize = 1_024;

/// The longest name of a model that is known by name, in bytes. The API has none that is longer.
const MAX_NAME: usize = 128;

/// The label of all other models.
const OTHER: &str = "other";

/// The labels of models. A cheap handle: all clones know the same models.
#[derive(Clone, Debug, Default)]
pub(in crate::telemetry) struct ModelLabels(Arc<RwLock<KnownModels>>);

#[derive(Debug, Default)]
struct KnownModels {
    named: HashSet<Arc<str>>,
    confirmed: HashSet<Arc<str>>,
    /// The upstream's list, which is asked anew for each label: it changes.
    listed: Option<ModelTable>,
}

impl KnownModels {
    fn get(&self, model: &str) -> Option<Arc<str>> {
        let known = self.named.get(model).or_else(|| self.confirmed.get(model)).cloned();
        known.or_else(|| {
            let model = self.listed.as_ref()?.lookup(model)?;
            (redact(model.name()) == model.name()).then(|| model.shared_name())
        })
    }
}

/// Returns whether a name can be a model's.
fn is_fit(model: &str) -> bool {
    !model.is_empty() && model.len() <= MAX_NAME && redact(model) == model
}

impl ModelLabels {
    /// Notes that the program has named a model, so that it has a label from its first call on, however that ends.
    pub(in crate::telemetry) fn name(&self, model: &str) {
        if is_fit(model) {
            let mut known = self.0.write();
            if known.named.len() < MAX_NAMED {
                known.named.insert(model.into());
            }
        }
    }

    /// Takes a list whose models have labels, in place of the one before.
    pub(in crate::telemetry) fn list(&self, models: ModelTable) {
        self.0.write().listed = Some(models);
    }

    /// Notes that a good answer has come from `model`, so that there is such a model.
    pub(in crate::telemetry) fn confirm(&self, model: &str) {
        let fits = |known: &KnownModels| known.confirmed.len() < MAX_CONFIRMED && known.get(model).is_none();
        if !fits(&self.0.read()) || !is_fit(model) {
            return;
        }
        let mut known = self.0.write();
        // Another thread may have been faster.
        if fits(&known) {
            known.confirmed.insert(model.into());
        }
    }

    /// Returns the label of `model`.
    pub(in crate::telemetry) fn label(&self, model: &str) -> SharedString {
        match self.0.read().get(model) {
            Some(known) => SharedString::from_shared(known),
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
        assert_eq!(known, MAX_CONFIRMED - 1);
        assert_eq!(&*models.label("a"), "a");
    }

    #[test]
    fn a_model_that_is_named_or_listed_is_a_label_before_any_answer_and_without_room() {
        let models = ModelLabels::default();
        (0..10_000).for_each(|nth| models.confirm(&format!("invented-{nth}")));
        models.name("named");
        models.name("AIzaSyA-0123456789_abcdefghijklmnopqrst");
        assert_eq!((&*models.label("named"), &*models.label("gemini-2.5-pro")), ("named", "other"));
        assert_eq!(&*models.label("AIzaSyA-0123456789_abcdefghijklmnopqrst"), "other");
        let table = ModelTable::new();
        models.list(table.clone());
        table.insert(crate::models::Model::new("listed-later"));
        for (name, label) in [
            ("gemini-2.5-pro", "gemini-2.5-pro"),
            ("models/gemini-2.5-pro", "gemini-2.5-pro"),
            ("listed-later", "listed-later"),
            ("gemini-2.5-prö", "other"),
        ] {
            assert_eq!(&*models.label(name), label, "{name}");
        }
        (0..10_000).for_each(|nth| models.name(&format!("named-{nth}")));
        let named = (0..10_000).filter(|nth| &*models.label(&format!("named-{nth}")) != "other").count();
        assert_eq!(named, MAX_NAMED - 1);
    }
}
