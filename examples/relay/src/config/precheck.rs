//! `[precheck]`: which requests are refused before they are sent.

use tower_gemini::{
    models::ModelTable,
    token_precheck::{AskUpstream, MaxOutputPolicy, TokenPrecheckLayer, UnknownModel},
};

use crate::config::{
    toml::{Section, Value},
    values::{boolean, one_of},
};

pub(crate) const NAMES: &[&str] = &["enabled", "on_unknown_model", "max_output", "count_tokens"];

/// The checks, without a table of models: the stack has one that may know some already.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Precheck {
    disabled: bool,
    unknown_model: UnknownModel,
    max_output: MaxOutputPolicy,
    count_tokens: AskUpstream,
}

impl Precheck {
    pub(crate) fn layer(self, models: ModelTable) -> TokenPrecheckLayer {
        let Self { disabled, unknown_model, max_output, count_tokens } = self;
        if disabled {
            return TokenPrecheckLayer::disabled();
        }
        TokenPrecheckLayer::new(models).unknown_model(unknown_model).max_output(max_output).ask_upstream(count_tokens)
    }
}

/// Reads `[precheck]`.
pub(crate) fn read(mut section: Section<'_>) -> Precheck {
    let disabled = !section.get("enabled", boolean).unwrap_or(true);
    if disabled {
        section.remark_on_effect(&["on_unknown_model", "max_output", "count_tokens"], "enabled is false");
    }
    let precheck = Precheck {
        disabled,
        unknown_model: section.get("on_unknown_model", unknown_model).unwrap_or_default(),
        max_output: section.get("max_output", max_output).unwrap_or_default(),
        count_tokens: section.get("count_tokens", count_tokens).unwrap_or_default(),
    };
    section.finish();
    precheck
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
