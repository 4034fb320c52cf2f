//! The refusals and their messages. Pure: every function is given all that it needs.

use super::settings::MaxOutputPolicy;
use crate::{
    call::{Call, Operation, Surface},
    failure::{Failure, Kind},
    models::Model,
    request::{
        readers::MAX_VALUES,
        scan::{Contents, MaxOutput, RequestFacts},
    },
};

/// The treatment of a request's output limit.
#[derive(Debug)]
pub(super) enum OutputCheck {
    InRange,
    Warn(String),
    /// The limit is replaced by this number.
    Clamp(u64),
    Refuse(Failure),
}

/// Builds the refusal of a body that is not JSON.
pub(super) fn malformed(message: &str, line: usize, column: usize) -> Failure {
    let message = format!("Invalid JSON payload received: {message} at line {line}, column {column}.");
    Failure::local(Kind::InvalidRequest, message)
}

/// Returns the refusal of a request without contents, if its operation needs some.
pub(super) fn contents(findings: &RequestFacts, call: &Call) -> Option<Failure> {
    // Cached content is content, an empty request can be counted (0 tokens), and an empty batch may have an empty
    // answer.
    let may_be_empty = findings.has_cached_content
        || call.operation() == Operation::CountTokens
        || (call.operation() == Operation::BatchEmbedContents && findings.contents == Contents::Missing);
    if may_be_empty {
        return None;
    }
    let state = match findings.contents {
        Contents::Present => return None,
        Contents::Missing => "is not specified",
        Contents::Empty => "is empty",
    };
    let (field, needed) = match (call.surface(), call.operation()) {
        (Surface::OpenAi, Operation::EmbedContent) => ("input", "an embedding needs at least one text"),
        (Surface::OpenAi, _) => ("messages", "a request needs at least one message"),
        (_, Operation::EmbedContent | Operation::BatchEmbedContents) => {
            ("content", "an embedding needs at least one text")
        }
        _ => ("contents", "a request needs at least one content with a part in it"),
    };
    Some(Failure::local(Kind::InvalidRequest, format!("{field} {state}: {needed}.")))
}

/// Builds the refusal of a model that a fresh list lacks.
pub(super) fn no_such_model(model: &str, nearest: &[impl AsRef<str>]) -> Failure {
    let nearest: Vec<_> = nearest.iter().map(AsRef::as_ref).collect();
    let message = format!(
        "models/{model} is not found: it is not among the models that the API lists. Did you mean {}?",
        nearest.join(" or ")
    );
    Failure::local(Kind::ModelNotFound, message)
}

/// Builds the refusal of a method that the model does not have.
pub(super) fn not_supported(model: &str, operation: Operation, supported: &str) -> Failure {
    let method = match operation {
        Operation::EmbedContent | Operation::BatchEmbedContents => "embedContent",
        Operation::CountTokens => "countTokens",
        Operation::CreateInteraction => "interactions",
        _ => "generateContent",
    };
    let message = format!("models/{model} is not supported for {method}; it supports {supported}.");
    Failure::local(Kind::ModelNotFound, message)
}

/// Builds the refusal of a request that is too long, in the API's own words, so that a program that parses the API's
/// refusals can parse this one.
pub(super) fn too_long(model: &str, count: u64, limit: u64, how: &str) -> Failure {
    let message = format!(
        "The input token count ({count}) exceeds the maximum number of tokens allowed ({limit}) for {model} ({how}). \
         Shorten the input, or ask a model with a larger context."
    );
    Failure::local(Kind::ContextTooLong, message).with_token_numbers(count, limit)
}

/// Builds the refusal of a request that may be too long and that nothing could count.
pub(super) fn cannot_be_counted(model: &str, limit: u64) -> Failure {
    let message = format!(
        "The input could not be counted, so that it is unknown whether it fits into the {limit} tokens that {model} takes, \
         and such requests are refused here. Shorten the input, or leave out media that cannot be counted."
    );
    Failure::local(Kind::ContextTooLong, message)
}

/// Builds the refusal of a request whose body has too many values to be read.
pub(super) fn unread() -> Failure {
    let message = format!(
        "The input has more than {MAX_VALUES} values, the most that are read here, so that it is unknown whether the model takes \
         it, and such requests are refused here. Send fewer values."
    );
    Failure::local(Kind::ContextTooLong, message)
}

/// Checks the output limit of a request against the model's range.
pub(super) fn output(policy: MaxOutputPolicy, requested: Option<&MaxOutput>, model: Option<&Model>) -> OutputCheck {
    let Some(requested) = requested.filter(|_| policy != MaxOutputPolicy::Off) else { return OutputCheck::InRange };
    // A model with one limit for input and output together has no range of its own for the output.
    let listed = model.filter(|model| !model.shares_limit()).and_then(Model::output_limit);
    let most = listed.unwrap_or(u64::MAX);
    let in_range = u64::try_from(requested.tokens).is_ok_and(|tokens| (1..=most).contains(&tokens));
    if in_range {
        return OutputCheck::InRange;
    }
    let range = listed.map_or_else(|| "1 or more".to_owned(), |most| format!("1 to {most}"));
    let name = model.map_or("the model", Model::name);
    let message = format!("maxOutputTokens is {}, and {name} takes {range}", requested.tokens);
    match policy {
        MaxOutputPolicy::Refuse => OutputCheck::Refuse(Failure::local(Kind::InvalidRequest, format!("{message}."))),
        MaxOutputPolicy::Clamp => OutputCheck::Clamp(requested.tokens.max(1).unsigned_abs().min(most)),
        MaxOutputPolicy::Off | MaxOutputPolicy::Warn => OutputCheck::Warn(message),
    }
}
