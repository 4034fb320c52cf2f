//! The models that a caller of `[[callers]]` may use.

use std::fmt;

use tower_gemini::call::Call;

use crate::config::{diagnostics::Place, model_names::remark_if_misspelt, toml::Section, values::ModelName};

pub(crate) const RIGHT: &str = "a list of models, like [\"gemini-2.5-flash\", \"gemini-3*\"]";

/// Models by name; a `*` at the end of one stands for anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Models(Vec<String>);

impl Models {
    /// Returns whether the models of a call may be used. A call that uses none may always be made.
    pub(crate) fn admit(&self, call: &Call) -> bool {
        use tower_gemini::call::Operation::{GetModel, ListModels, Read, Upload, Write};
        match (call.operation(), call.quota_name()) {
            (ListModels | GetModel | Read | Upload, _) | (Write, None) => true,
            (_, Some(name)) => self.include(name),
            // It generates, and nobody knows by which model.
            (_, None) => false,
        }
    }

    /// Returns whether a model is among them.
    pub(crate) fn include(&self, name: &str) -> bool {
        self.0.iter().any(|allowed| match allowed.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == allowed,
        })
    }

    /// Returns the names without a `*`.
    pub(crate) fn exact(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str).filter(|name| !name.ends_with('*'))
    }
}

impl fmt::Display for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

/// Reads a list of them.
pub(crate) fn read(section: &Section<'_>, list: Vec<(Result<String, String>, Place)>, place: Place) -> Option<Models> {
    if list.is_empty() {
        section.mistake(place, format!("models: is empty, and so the caller could use none; it is {RIGHT}"));
    }
    let mut models = Vec::new();
    for (name, place) in list {
        match name.and_then(model) {
            Ok(name) => {
                remark_if_misspelt(section, place, "models", &name);
                models.push(name);
            }
            Err(mistake) => section.mistake(place, format!("models: {mistake}")),
        }
    }
    Some(Models(models))
}

fn model(name: String) -> Result<String, String> {
    match &*name {
        "*" => Err("\"*\" stands for every model; take the line out instead".to_owned()),
        _ => ModelName::or_beginning(&name).map(|()| name),
    }
}
