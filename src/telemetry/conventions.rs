//! The values of attributes and labels, in the terms of OpenTelemetry's conventions for generative AI where these have
//! one. Pure.

use std::borrow::Cow;

use http::{Method, Uri};

#[cfg(feature = "metrics")]
use crate::call::ServiceTier;
use crate::{
    call::{Call, Operation, Surface, percent_decoded},
    failure::Failure,
    redact::redact,
};

/// The version of OpenTelemetry's conventions for generative AI whose names are used.
///
/// No name of a metric in one is a name in the other, and a layer uses one of them: nothing is counted twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Conventions {
    /// v0.1.0 of the conventions' own repository, `semantic-conventions-genai`: its first release.
    #[default]
    V0_1,
    /// 1.41 of the common `semantic-conventions`, from which those for generative AI were moved. For dashboards that
    /// were made for its names.
    V1_41,
}

/// The kind of a call, as far as the conventions tell calls apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    /// A model or an agent is asked for an answer.
    Inference,
    Embeddings,
    /// An answer that was made before is fetched by its id. The tokens in it are those of the call that made it.
    Fetch {
        id: Box<str>,
    },
    /// Everything else: counting, lists, files, batches.
    Other,
}

impl Activity {
    /// Tells the kind of a call by its operation and its path.
    pub(super) fn of(call: &Call, method: &Method, uri: &Uri) -> Self {
        match call.operation() {
            Operation::GenerateContent | Operation::CreateInteraction | Operation::Predict => Self::Inference,
            Operation::EmbedContent | Operation::BatchEmbedContents => Self::Embeddings,
            Operation::Read if method == Method::GET => fetched(uri).map_or(Self::Other, |id| Self::Fetch { id }),
            _ => Self::Other,
        }
    }

    /// Returns whether the tokens of an answer are this call's.
    pub(super) fn pays_tokens(&self) -> bool {
        matches!(self, Self::Inference | Self::Embeddings)
    }
}

/// Returns whether the upstream keeps the answer, so that it can be fetched by its id and another call can go on from it:
/// that of an interaction, or of `responses` in OpenAI's dialect.
pub(super) fn is_kept(call: &Call, uri: &Uri) -> bool {
    match call.operation() {
        Operation::CreateInteraction => true,
        Operation::GenerateContent => uri.path().trim_end_matches('/').ends_with("/responses"),
        _ => false,
    }
}

/// Returns the id of the answer that a path names: `interactions/{id}`, `responses/{id}`, `chat/completions/{id}`.
fn fetched(uri: &Uri) -> Option<Box<str>> {
    let mut segments = uri.path().trim_end_matches('/').rsplit('/');
    let (id, collection) = (segments.next()?, segments.next()?);
    let is_answer = match collection {
        "interactions" | "interactionsHttp" | "responses" => true,
        "completions" => segments.next() == Some("chat"),
        _ => false,
    };
    (is_answer && !id.is_empty()).then(|| percent_decoded(id).into())
}

/// The longest text of the caller's or the upstream's in a span, in bytes.
const MAX_TEXT: usize = 128;

/// The way in which a call or an attempt has ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum RecordEnd<'a> {
    Ok,
    /// The caller, or a layer outside, does not wait for it any more.
    Cancelled,
    Failed(&'a Failure),
}

impl<'a> RecordEnd<'a> {
    /// Returns the value of `outcome`: `ok`, `cancelled`, or the name of the fault.
    pub(super) fn outcome(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Cancelled => "cancelled",
            Self::Failed(failure) => failure.fault().as_str(),
        }
    }

    /// Returns the value of `error.type`: the failure's kind. A 499 of the service is `cancelled`, so that the caller's
    /// own cancellation has another name.
    pub(super) fn error_type(self) -> Option<&'static str> {
        match self {
            Self::Ok => None,
            Self::Cancelled => Some("cancelled_by_caller"),
            Self::Failed(failure) => Some(failure.kind().as_str()),
        }
    }

    pub(super) fn failure(self) -> Option<&'a Failure> {
        if let Self::Failed(failure) = self { Some(failure) } else { None }
    }
}

/// Returns the value of `gen_ai.operation.name`: the conventions' name, or else the API's in snake case.
pub(super) fn operation(call: &Call, activity: &Activity, conventions: Conventions) -> &'static str {
    if conventions == Conventions::V0_1 && matches!(activity, Activity::Fetch { .. }) {
        return "fetch_response";
    }
    match call.operation() {
        _ if call.agent().is_some() => "invoke_agent",
        Operation::GenerateContent if call.surface() == Surface::OpenAi => "chat",
        Operation::GenerateContent | Operation::CreateInteraction => "generate_content",
        Operation::EmbedContent | Operation::BatchEmbedContents => "embeddings",
        Operation::Predict => "predict",
        Operation::CountTokens => "count_tokens",
        Operation::ComputeTokens => "compute_tokens",
        Operation::ListModels => "list_models",
        Operation::GetModel => "get_model",
        Operation::Upload => "upload",
        Operation::Read => "read",
        Operation::Write => "write",
    }
}

/// Returns the value of `gen_ai.provider.name`.
pub(super) fn provider(call: &Call, uri: &Uri) -> &'static str {
    let is_vertex = uri.host().is_some_and(|host| host.ends_with("aiplatform.googleapis.com"));
    match call.surface() {
        _ if is_vertex => "gcp.vertex_ai",
        Surface::Vertex => "gcp.vertex_ai",
        Surface::OpenAi | Surface::Interactions if is_path_of_vertex(uri.path()) => "gcp.vertex_ai",
        Surface::Developer | Surface::OpenAi | Surface::Interactions => "gcp.gemini",
        Surface::Other => "gcp.gen_ai",
    }
}

/// Returns whether a path of a dialect that both hosts speak is Vertex AI's: only there it names a location.
fn is_path_of_vertex(path: &str) -> bool {
    ["/openapi/", "/locations/", "/publishers/"].iter().any(|part| path.contains(part))
}

/// Returns the label of a service tier: the one that served, else the one that was asked for. Of the tiers that an
/// upstream may name these are the known ones; on Vertex AI they are kinds of traffic.
#[cfg(feature = "metrics")]
pub(super) fn tier(asked: Option<ServiceTier>, served: Option<&str>) -> &'static str {
    let Some(served) = served else { return asked.unwrap_or_default().as_str() };
    let is = |name: &str| served.eq_ignore_ascii_case(name);
    match ServiceTier::from_name(served) {
        Some(tier) => tier.as_str(),
        None if is("ON_DEMAND") => "standard",
        None if is("ON_DEMAND_PRIORITY") => "priority",
        None if is("ON_DEMAND_FLEX") || is("ON_DEMAND_OFFPEAK") => "flex",
        None if is("PROVISIONED_THROUGHPUT") => "provisioned_throughput",
        None => "other",
    }
}

/// Makes a text of the caller's or the upstream's fit to be shown: without keys, and at most [`MAX_TEXT`] bytes long.
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    match redact(text) {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..cut(text)]),
        Cow::Owned(mut text) => {
            text.truncate(cut(&text));
            Cow::Owned(text)
        }
    }
}

/// Finds the position at which a text is cut, between two characters.
fn cut(text: &str) -> usize {
    (0..=MAX_TEXT.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_fetched_by_its_id_alone() {
        for (path, id) in [
            ("/v1beta/interactions/v1_abc", Some("v1_abc")),
            ("/v1beta/interactions/a%2Fb/", Some("a/b")),
            ("/v1/projects/p/locations/l/interactions/i", Some("i")),
            ("/v1beta1/projects/p/locations/l/interactionsHttp/i", Some("i")),
            ("/v1beta/openai/chat/completions/c", Some("c")),
            ("/v1beta/openai/responses/r?stream=true", Some("r")),
            ("/v1beta/interactions", None),
            ("/v1beta/interactions/", None),
            ("/v1beta/interactions/i/files", None),
            ("/v1beta/openai/completions/c", None),
            ("/v1beta/batches/b", None),
            ("/v1beta/files/f", None),
        ] {
            let uri: Uri = path.parse().unwrap();
            let activity = Activity::of(&Call::new(&Method::GET, &uri), &Method::GET, &uri);
            let expected = id.map_or(Activity::Other, |id| Activity::Fetch { id: id.into() });
            assert_eq!(activity, expected, "{path}");
            assert!(!activity.pays_tokens());
            // Cancelling or deleting it fetches nothing.
            let call = Call::new(&Method::DELETE, &uri);
            assert!(!matches!(Activity::of(&call, &Method::DELETE, &uri), Activity::Fetch { .. }));
        }
    }

    #[cfg(feature = "metrics")]
    #[test]
    fn the_tier_that_served_is_the_label_and_else_the_one_that_was_asked_for() {
        let flex = Some(ServiceTier::Flex);
        for (asked, served, label) in [
            (None, None, "standard"),
            (flex, None, "flex"),
            (flex, Some("standard"), "standard"),
            (Some(ServiceTier::Priority), Some("SERVICE_TIER_STANDARD"), "standard"),
            (None, Some("ON_DEMAND"), "standard"),
            (None, Some("ON_DEMAND_PRIORITY"), "priority"),
            (None, Some("ON_DEMAND_FLEX"), "flex"),
            (None, Some("PROVISIONED_THROUGHPUT"), "provisioned_throughput"),
            (flex, Some("invented"), "other"),
        ] {
            assert_eq!(tier(asked, served), label, "{asked:?} {served:?}");
        }
    }

    #[test]
    fn foreign_text_is_redacted_before_it_is_cut() {
        assert_eq!(shown("gemini-2.5-pro"), "gemini-2.5-pro");
        let key = "AIzaSyA-0123456789_abcdefghijklmnopqrst";
        let long = format!("{}{key}", "x".repeat(MAX_TEXT - 15));
        assert_eq!(shown(&long), format!("{}[redacted]", "x".repeat(MAX_TEXT - 15)));
        assert_eq!(shown(&"é".repeat(100)).len(), MAX_TEXT);
        assert_eq!(shown(&format!("x{}", "é".repeat(100))).len(), MAX_TEXT - 1);
        assert_eq!(shown(&format!("{key}{}", "é".repeat(100))).len(), MAX_TEXT);
    }
}
