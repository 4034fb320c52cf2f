//! Remarks on names of models that the library's list does not know. New models come, so that none of them is a mistake.

use tower_gemini::models::ModelTable;

use crate::config::{diagnostics::Place, toml::Section};

/// Remarks on a name that the list does not know.
pub(crate) fn remark_if_unknown(section: &Section<'_>, place: Place, setting: &str, name: &str) {
    remark(section, place, setting, name, true);
}

/// Remarks on a name that is nearly one of the list.
pub(crate) fn remark_if_misspelt(section: &Section<'_>, place: Place, setting: &str, name: &str) {
    remark(section, place, setting, name, false);
}

fn remark(section: &Section<'_>, place: Place, setting: &str, name: &str, whatever: bool) {
    let table = ModelTable::new();
    let known = |name: &str| table.lookup(name).is_some();
    let bare = name.split('@').next().unwrap_or_default();
    if known(name) || known(bare) || name.contains(['/', '*']) {
        return;
    }
    let meant: Vec<_> = table.nearest(bare).iter().map(|meant| format!("{meant:?}")).collect();
    let date = ModelTable::SEED_DATE;
    if !meant.is_empty() {
        let meant = meant.join(" or ");
        section
            .remark_at(place, format!("{setting}: {name:?} is not in the list of models of {date}: is {meant} meant?"));
    } else if whatever {
        section.remark_at(
            place,
            format!("{setting}: {name:?} is not in the list of models of {date}; if there is no such model, each call of it fails"),
        );
    }
}
