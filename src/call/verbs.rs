//! The verbs of the APIs: each method behind a colon, and its operation.

use super::{Idempotency, Operation, Shape, Streaming, Surface};

/// Returns the operation of a verb on a model, an endpoint or a tuned model. `None`: the verb is not about computing.
pub(super) fn computes(verb: &str) -> Option<Operation> {
    let operation = match verb {
        "generateContent" | "streamGenerateContent" => Operation::GenerateContent,
        "embedContent" => Operation::EmbedContent,
        "batchEmbedContents" => Operation::BatchEmbedContents,
        "countTokens" => Operation::CountTokens,
        "computeTokens" => Operation::ComputeTokens,
        "predict"
        | "rawPredict"
        | "streamRawPredict"
        | "serverStreamingPredict"
        | "directPredict"
        | "directRawPredict"
        | "streamDirectPredict"
        | "streamDirectRawPredict"
        | "streamingPredict"
        | "streamingRawPredict" => Operation::Predict,
        // Retired, and still described.
        "generateMessage" | "generateText" | "generateAnswer" => Operation::GenerateContent,
        "embedText" => Operation::EmbedContent,
        "batchEmbedText" => Operation::BatchEmbedContents,
        "countMessageTokens" | "countTextTokens" => Operation::CountTokens,
        _ => return None,
    };
    Some(operation)
}

/// Reads any other verb of a POST: most change something, and many only read.
pub(super) fn posted(surface: Surface, path: &str, verb: &str) -> Shape {
    let reads = only_reads(verb)
        && match verb {
            // An agent that is asked runs.
            "query" => !has_segment(path, "reasoningEngines"),
            // Of the Developer API, only models have it.
            "fetchPredictOperation" => surface != Surface::Developer || has_segment(path, "models"),
            _ => true,
        };
    let mut shape = Shape::of(surface, if reads { Operation::Read } else { Operation::Write });
    shape.streaming = streaming(verb);
    if is_billed(path, verb) {
        shape.idempotency = Idempotency::Billed;
    }
    shape
}

/// Returns whether a verb reads, and changes nothing, by its first word. A word counts only where a capital letter or
/// the end follows: `readFeatureValues` and `wait`, not `waitlist`.
fn only_reads(verb: &str) -> bool {
    const WORDS: [&str; 25] = [
        "ask",
        "check",
        "compute",
        "count",
        "fetch",
        "find",
        "get",
        "list",
        "lookup",
        "match",
        "poll",
        "preview",
        "query",
        "read",
        "recommend",
        "retrieve",
        "search",
        "show",
        "streamingFetch",
        "streamingRead",
        "test",
        "validate",
        "verify",
        "view",
        "wait",
    ];
    match verb {
        // Its answer is kept, and may end the trial.
        "checkTrialEarlyStoppingState" => return false,
        // It answers with the values, where other exports write them somewhere.
        "exportTensorboardTimeSeries" => return true,
        _ => {}
    }
    WORDS.iter().any(|word| {
        verb.strip_prefix(word).is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_lowercase()))
    })
}

/// Returns whether a GET changes something all the same: `datasetVersions/{version}:restore`.
pub(super) fn changes(verb: &str) -> bool {
    const WORDS: [&str; 9] =
        ["activate", "cancel", "deactivate", "delete", "pause", "reset", "restore", "resume", "undelete"];
    WORDS.contains(&verb)
}

/// Returns whether a verb computes with a model of the service's own choice, is billed, and keeps nothing.
fn is_billed(path: &str, verb: &str) -> bool {
    match verb {
        "augmentPrompt" | "corroborateContent" | "explain" | "generateSyntheticData" | "generateUserScenarios" => true,
        // Without a location there is nobody to bill.
        "evaluateInstances" | "generateInstanceRubrics" => has_segment(path, "locations"),
        _ => false,
    }
}

/// Returns the form of the answer to a verb, where the query does not say it.
pub(super) fn streaming(verb: &str) -> Streaming {
    match verb {
        "streamRawPredict" | "stream" => Streaming::Sse,
        verb if verb.starts_with("streamingRead") || verb.starts_with("streamingFetch") => Streaming::Sse,
        verb if verb.starts_with("stream") || verb.starts_with("serverStreaming") => Streaming::Array,
        _ => Streaming::No,
    }
}

fn has_segment(path: &str, segment: &str) -> bool {
    path.split('/').any(|part| part.split(':').next() == Some(segment))
}
