//! `[precheck]`: what is refused before it is sent.

use tower_gemini::{
    models::ModelTable,
    token_precheck::{AskUpstream, MaxOutputPolicy, TokenPrecheckLayer, UnknownModel},
};

use crate::{
    settings::boolean,
    toml_file::{Mistakes, Section, Value},
};

/// What is checked: with which models is for the stack to say, which may know some already.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Precheck {
    disabled: bool,
    unknown: UnknownModel,
    output: MaxOutputPolicy,
    ask: AskUpstream,
}

impl Precheck {
    pub(crate) fn layer(self, models: ModelTable) -> TokenPrecheckLayer {
        let Self { disabled, unknown, output, ask } = self;
        if disabled {
            return TokenPrecheckLayer::disabled();
        }
        TokenPrecheckLayer::new(models).unknown_model(unknown).max_output(output).ask_upstream(ask)
    }
}

/// Reads `[precheck]`.
pub(crate) fn read(mut section: Section<'_>, mistakes: &mut Mistakes) -> Precheck {
    let disabled = !section.get("enabled", boolean, mistakes).unwrap_or(true);
    let unknown = section.get("on_unknown_model", unknown_model, mistakes).unwrap_or_default();
    let output = section.get("max_output", max_output, mistakes).unwrap_or_default();
    let ask = section.get("count_tokens", count_tokens, mistakes).unwrap_or_default();
    section.finish(mistakes);
    Precheck { disabled, unknown, output, ask }
}

fn unknown_model(value: &Value<'_>) -> Result<UnknownModel, String> {
    one_of(value, &[("refuse", UnknownModel::Refuse), ("forward", UnknownModel::Forward)])
}

fn max_output(value: &Value<'_>) -> Result<MaxOutputPolicy, String> {
    let policies = [
        ("off", MaxOutputPolicy::Off),
        ("warn", MaxOutputPolicy::Warn),
        ("clamp", MaxOutputPolicy::Clamp),
        ("refuse", MaxOutputPolicy::Refuse),
    ];
    one_of(value, &policies)
}

fn count_tokens(value: &Value<'_>) -> Result<AskUpstream, String> {
    let when = [("near_limit", AskUpstream::NearLimit), ("never", AskUpstream::Never), ("always", AskUpstream::Always)];
    one_of(value, &when)
}

fn one_of<T: Copy>(value: &Value<'_>, words: &[(&str, T)]) -> Result<T, String> {
    let right: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
    let right = right.join(", ");
    let text = value.text(&right)?;
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, meaning)| *meaning).ok_or_else(|| format!("is {text:?}; it is one of {right}"))
}
