//! Calls on interactions, parsed from their requests. The Developer API has one form of their paths, Vertex four.

use http::{Method, request::Parts};
use serde_json::Value;

use super::{
    cut::cut,
    errors::ApiError,
    json::{json_object, member},
    path::around_version,
    prompt::Prompt,
    upload_call::NAME,
};

/// A call on interactions.
#[derive(Debug)]
pub(crate) enum InteractionCall {
    Create(NewInteraction),
    Get { id: String, stream: bool, after: u64, with_input: bool },
    Delete { id: String },
    Cancel { id: String },
}

/// An interaction that is to be made.
#[derive(Debug)]
pub(crate) struct NewInteraction {
    pub(crate) called: Called,
    pub(crate) prompt: Prompt,
    pub(crate) stream: bool,
    /// The interaction is kept, and can be read and continued.
    pub(crate) store: bool,
    /// The answer comes at once, and the work goes on behind it.
    pub(crate) background: bool,
    pub(crate) previous: Option<String>,
    /// The request goes on with an answer that was not finished.
    pub(crate) continues: bool,
}

/// The model or the agent that an interaction calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Called {
    Model(String),
    Agent(String),
}

/// The path of all interactions, or of one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InteractionPath<'a> {
    pub(crate) id: Option<&'a str>,
    /// The method behind a colon, or behind a slash.
    pub(crate) method: Option<&'a str>,
}

// === impl InteractionCall ===

impl InteractionCall {
    /// Parses a call. `None` is a path that is not one of interactions.
    pub(crate) fn read(head: &Parts, body: &[u8]) -> Option<Result<Self, ApiError>> {
        let InteractionPath { id, method } = InteractionPath::parse(head.uri.path())?;
        let query = |name: &str| {
            let mut pairs = head.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        Some(match (&head.method, id.map(|id| cut(id, NAME)), method) {
            (&Method::POST, None, None | Some("create" | "createStream")) => {
                let created = json_object(body).and_then(|body| NewInteraction::of(&body));
                created.map(|new| {
                    Self::Create(NewInteraction { stream: new.stream || method == Some("createStream"), ..new })
                })
            }
            (&Method::GET, Some(id), None | Some("poll")) => Ok(Self::Get {
                id,
                stream: query("stream") == Some("true"),
                after: query("last_event_id").and_then(event_number).unwrap_or(0),
                with_input: query("include_input") == Some("true"),
            }),
            (&Method::DELETE, Some(id), None) => Ok(Self::Delete { id }),
            (&Method::POST, Some(id), Some("cancel")) => Ok(Self::Cancel { id }),
            _ => return None,
        })
    }

    /// Returns whether the answer is a stream of events.
    pub(crate) fn streams(&self) -> bool {
        matches!(self, Self::Create(NewInteraction { stream: true, .. }) | Self::Get { stream: true, .. })
    }
}

// === impl NewInteraction ===

impl NewInteraction {
    fn of(body: &Value) -> Result<Self, ApiError> {
        let text = |camel, snake| {
            let text = member(body, camel, snake).and_then(Value::as_str);
            text.filter(|text| !text.is_empty()).map(|text| cut(text, NAME))
        };
        let flag = |name: &str| body.get(name).and_then(Value::as_bool);
        let called = match (text("model", "model"), text("agent", "agent")) {
            (Some(model), None) => Called::Model(bare(&model).to_owned()),
            (None, Some(agent)) => Called::Agent(bare(&agent).to_owned()),
            (Some(_), Some(_)) => return Err(ApiError::invalid_argument("Only one of model and agent can be set.")),
            (None, None) => return Err(ApiError::invalid_argument("One of model and agent must be set.")),
        };
        let new = Self {
            called,
            prompt: Prompt::for_interaction(body)?,
            stream: flag("stream").unwrap_or(false),
            store: flag("store").unwrap_or(true),
            background: flag("background").unwrap_or(false),
            previous: text("previousInteractionId", "previous_interaction_id"),
            continues: text("continuationToken", "continuation_token").is_some(),
        };
        if new.background && !new.store {
            return Err(ApiError::invalid_argument("background=true requires store=true."));
        }
        if new.prompt.tokens == 0 && !new.continues {
            return Err(ApiError::invalid_argument("The input of the interaction must not be empty."));
        }
        Ok(new)
    }
}

// === impl Called ===

impl Called {
    /// Returns the name under which quota and the journal know it: the model's, or `agents/{name}`.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Model(model) => model.clone(),
            Self::Agent(agent) => format!("agents/{agent}"),
        }
    }
}

// === impl InteractionPath ===

impl<'a> InteractionPath<'a> {
    /// Parses a path of the Developer API or of Vertex.
    pub(crate) fn parse(path: &'a str) -> Option<Self> {
        let (_, mut rest) = around_version(path)?;
        if rest.starts_with("projects/") {
            rest = rest.splitn(5, '/').nth(4).filter(|_| rest.split('/').nth(2) == Some("locations"))?;
        }
        let mut segments = rest.trim_end_matches('/').split('/');
        let (collection, method) = split_method(segments.next()?);
        if !matches!(collection, "interactions" | "interactionsHttp") {
            return None;
        }
        let (id, last) = (segments.next(), segments.next());
        if segments.next().is_some() || (id.is_some() && method.is_some()) {
            return None;
        }
        match id.map(split_method) {
            None => Some(Self { id: None, method }),
            Some((id, None)) if !id.is_empty() => Some(Self { id: Some(id), method: last }),
            Some((id, method)) if last.is_none() && !id.is_empty() => Some(Self { id: Some(id), method }),
            Some(_) => None,
        }
    }
}

fn split_method(segment: &str) -> (&str, Option<&str>) {
    segment.split_once(':').map_or((segment, None), |(before, method)| (before, Some(method)))
}

/// Returns the number of an event by its id.
fn event_number(id: &str) -> Option<u64> {
    id.strip_prefix("event_")?.parse().ok()
}

fn bare(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_of_the_path_are_read() {
        for (path, expected) in [
            ("/v1/interactions", Some((None, None))),
            ("/relay/v1beta/interactions/v1_x", Some((Some("v1_x"), None))),
            ("/v1/interactions/v1_x/cancel", Some((Some("v1_x"), Some("cancel")))),
            ("/v1/interactions/v1_x:cancel", Some((Some("v1_x"), Some("cancel")))),
            ("/v1beta1/projects/p/locations/l/interactions", Some((None, None))),
            ("/v1/projects/p/locations/l/interactions:create", Some((None, Some("create")))),
            ("/v1/projects/p/locations/l/interactions:createStream", Some((None, Some("createStream")))),
            ("/v1/projects/p/locations/l/interactionsHttp", Some((None, None))),
            ("/v1/projects/p/locations/l/interactionsHttp/i/cancel", Some((Some("i"), Some("cancel")))),
            ("/v1/interactions/i/a/b", None),
            ("/v1/interactions:create/i", None),
            ("/v1/models/interactions", None),
            ("/interactions", None),
        ] {
            let parsed = InteractionPath::parse(path).map(|InteractionPath { id, method }| (id, method));
            assert_eq!(parsed, expected, "{path}");
        }
    }
}
