//! What is refused, and in which words. Pure: everything that is known is handed in.

use super::layer::MaxOutputPolicy;
use crate::{
    call::{Call, Operation, Surface},
    failure::{Failure, Kind},
    models::Model,
    request::scan::{Contents, MaxOutput, RequestFacts},
};

/// What becomes of the output limit that a request asks for.
#[derive(Debug)]
pub(super) enum Output {
    Fine,
    Warn(String),
    /// It is replaced by this.
    Clamp(u64),
    Refuse(Failure),
}

pub(super) fn malformed(message: &str, line: usize, column: usize) -> Failure {
    let message = format!("Invalid JSON payload received: {message} at line {line}, column {column}.");
    Failure::local(Kind::InvalidRequest, message)
}

pub(super) fn contents(findings: &RequestFacts, call: &Call) -> Option<Failure> {
    // What is cached is content, nothing has no tokens, and a batch of none may have an answer of none.
    let may_be_empty = findings.has_cached_content
        || call.operation() == Operation::CountTokens
        || (call.operation() == Operation::BatchEmbedContents && findings.contents == Contents::Missing);
    if may_be_empty {
        return None;
    }
    let what = match findings.contents {
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
    Some(Failure::local(Kind::InvalidRequest, format!("{field} {what}: {needed}.")))
}

pub(super) fn no_such_model(model: &str, nearest: &[impl AsRef<str>]) -> Failure {
    let nearest: Vec<_> = nearest.iter().map(AsRef::as_ref).collect();
    let message = format!(
        "models/{model} is not found: it is not among the models that the API lists. Did you mean {}?",
        nearest.join(" or ")
    );
    Failure::local(Kind::ModelNotFound, message)
}

pub(super) fn not_supported(model: &str, operation: Operation, supported: &str) -> Failure {
    let method = match operation {
        Operation::EmbedContent | Operation::BatchEmbedContents => "embedContent",
        Operation::CountTokens => "countTokens",
        _ => "generateContent",
    };
    let message = format!("models/{model} is not supported for {method}; it supports {supported}.");
    Failure::local(Kind::ModelNotFound, message)
}

/// In the API's own words, so that whoever reads its refusals reads this one.
pub(super) fn too_long(model: &str, count: u64, limit: u64, how: &str) -> Failure {
    let message = format!(
        "The input token count ({count}) exceeds the maximum number of tokens allowed ({limit}) for {model} ({how}). \
         Shorten the input, or ask a model with a larger context."
    );
    Failure::local(Kind::ContextTooLong, message).with_token_numbers(count, limit)
}

pub(super) fn cannot_be_counted(model: &str, limit: u64) -> Failure {
    let message = format!(
        "It could not be counted whether the input fits into the {limit} tokens that {model} takes, and what cannot be \
         counted is not sent here."
    );
    Failure::local(Kind::ContextTooLong, message)
}

pub(super) fn output(policy: MaxOutputPolicy, asked: Option<&MaxOutput>, model: Option<&Model>) -> Output {
    let Some(asked) = asked.filter(|_| policy != MaxOutputPolicy::Off) else { return Output::Fine };
    // One budget for input and output: the output alone says nothing.
    let listed = model.filter(|model| !model.shares_limit()).and_then(Model::output_limit);
    let most = listed.unwrap_or(u64::MAX);
    let is_fine = u64::try_from(asked.tokens).is_ok_and(|tokens| (1..=most).contains(&tokens));
    if is_fine {
        return Output::Fine;
    }
    let range = listed.map_or_else(|| "1 or more".to_owned(), |most| format!("1 to {most}"));
    let name = model.map_or("the model", Model::name);
    let message = format!("maxOutputTokens is {}, and {name} takes {range}", asked.tokens);
    match policy {
        MaxOutputPolicy::Refuse => Output::Refuse(Failure::local(Kind::InvalidRequest, format!("{message}."))),
        MaxOutputPolicy::Clamp => Output::Clamp(asked.tokens.max(1).unsigned_abs().min(most)),
        MaxOutputPolicy::Off | MaxOutputPolicy::Warn => Output::Warn(message),
    }
}
