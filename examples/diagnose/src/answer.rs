//! Judges a 200: a good answer, an empty one, a verdict on the content, or an error that came too late.

use serde_json::Value;
use tower_gemini::{
    failure::{Failure, Kind},
    status::Status,
};

/// Finds the failure in a body that came with a 200. Returns `None` for a good answer.
///
/// An error in such a body came after parts of it had been forwarded, so that nothing can be sent again.
pub(crate) fn failure_in(body: &[u8]) -> Option<Failure> {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches('\u{feff}').trim();
    let (values, rest) = values(text);
    if let Some(error) = values.iter().find(|value| is_error(value)) {
        return Some(Failure::from_event(error.to_string().as_bytes()).into_after_commit());
    }
    // A raw tail may be cut or malformed, so the crate's lenient reader gets it.
    if !rest.is_empty() && Status::parse(rest.as_bytes()).is_google() {
        return Some(Failure::from_event(rest.as_bytes()).into_after_commit());
    }

    let seen = values.iter().fold(Seen::default(), Seen::and);
    if seen.interaction {
        return seen.interaction_failure(is_event_stream(text) || !rest.is_empty());
    }
    if seen.something_else {
        return None;
    }
    let unfinished = seen.content && is_event_stream(text) && seen.finish.is_none() && !seen.done;
    if unfinished || rest.starts_with('{') {
        let message = "the answer was cut: it ended without a finishReason";
        return Some(Failure::local(Kind::StreamCut, message).into_after_commit());
    }
    Failure::from_answer(seen.finish.as_deref(), seen.block.as_deref(), seen.content)
}

/// The findings in the chunks of an answer.
#[derive(Default)]
struct Seen {
    content: bool,
    finish: Option<String>,
    block: Option<String>,
    /// `[DONE]`, the end of a stream in OpenAI's shape.
    done: bool,
    /// An interaction, or events of one.
    interaction: bool,
    /// The end of an interaction's stream.
    completed: bool,
    /// The last status of an interaction, and what is on record of its faults.
    status: Option<String>,
    faults: Option<Value>,
    /// Not a generated answer: a list of models, a count of tokens, an embedding, which may be empty.
    something_else: bool,
}

impl Seen {
    fn and(mut self, chunk: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let candidates = chunk["candidates"].as_array().or(chunk["choices"].as_array());
        for candidate in candidates.into_iter().flatten() {
            let message = [&candidate["content"], &candidate["message"], &candidate["delta"]];
            self.content |= message.into_iter().any(has_content);
            self.finish = text(&candidate["finishReason"]).or(text(&candidate["finish_reason"])).or(self.finish);
        }
        self.block = text(&chunk["promptFeedback"]["blockReason"]).or(self.block);
        self.done |= chunk == "[DONE]";
        let event = chunk["event_type"].as_str();
        let interaction = if chunk["interaction"].is_object() { &chunk["interaction"] } else { chunk };
        self.interaction |= event.is_some() || chunk["object"] == "interaction" || chunk["steps"].is_array();
        self.completed |= matches!(event, Some("interaction.completed" | "interaction.complete"));
        self.status = text(&interaction["status"]).or(self.status);
        self.faults = interaction["errors"].get(0).cloned().or(self.faults);
        let generated =
            ["candidates", "choices", "promptFeedback", "usageMetadata", "usage", "modelVersion", "responseId"];
        let members = chunk.as_object().into_iter().flatten();
        self.something_else |=
            candidates.is_none() && members.into_iter().any(|(name, _)| !generated.contains(&&**name));
        self
    }
}

impl Seen {
    /// Finds the failure of an interaction: by its status, or because its stream has no end.
    fn interaction_failure(self, is_stream: bool) -> Option<Failure> {
        match (self.status.as_deref(), self.faults) {
            (Some("failed"), Some(fault)) => {
                let event = serde_json::json!({ "error": fault }).to_string();
                Some(Failure::from_event(event.as_bytes()).into_after_commit())
            }
            (Some("failed"), None) => {
                Some(Failure::local(Kind::ServerError, "the interaction failed, and its answer says no more"))
            }
            (Some("cancelled"), _) => Some(Failure::local(Kind::Cancelled, "the interaction was cancelled")),
            _ if is_stream && !self.completed && !self.done => {
                let message = "the stream was cut: it ended without interaction.completed";
                Some(Failure::local(Kind::StreamCut, message).into_after_commit())
            }
            _ => None,
        }
    }
}

/// Returns whether a content, in either shape, has a part that is not empty and not a thought.
fn has_content(content: &Value) -> bool {
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    };
    let parts = content["parts"].as_array();
    let says_more = |part: &&serde_json::Map<String, Value>| part.get("thought") != Some(&Value::Bool(true));
    let in_parts = parts.into_iter().flatten().filter_map(Value::as_object).filter(says_more).any(|part| {
        part.iter().any(|(name, value)| !matches!(name.as_str(), "thought" | "thoughtSignature") && says(value))
    });
    let is_thought = content["extra_content"]["google"]["thought"] == true;
    in_parts || !is_thought && ["content", "tool_calls", "refusal"].iter().any(|name| says(&content[name]))
}

fn is_error(value: &Value) -> bool {
    value["error"].is_object() || value["event_type"] == "error"
}

fn is_event_stream(text: &str) -> bool {
    ["data:", "event:", "id:", ":"].iter().any(|field| text.starts_with(field))
}

/// Reads the values of a body, whatever its framing, and returns them with the rest that could not be read.
fn values(text: &str) -> (Vec<Value>, String) {
    let mut values = Vec::new();
    let mut rest = String::new();
    if is_event_stream(text) {
        let mut data = String::new();
        for line in text.lines().chain([""]) {
            match line.strip_prefix("data:") {
                Some(more) => data += more,
                // A raw tail has no framing.
                None if line.starts_with(['{', '[', '}', ']', ' ', '\t']) => rest += line,
                None if line.is_empty() && !data.is_empty() => {
                    match serde_json::from_str(data.trim()) {
                        Ok(Value::Array(list)) => values.extend(list),
                        Ok(value) => values.push(value),
                        Err(_) if data.trim() == "[DONE]" => values.push("[DONE]".into()),
                        Err(_) => rest += &data,
                    }
                    data.clear();
                }
                None => {}
            }
        }
    } else {
        rest = text.to_owned();
    }
    // There may be several values, one after the other. An array's elements are chunks, and an array may be cut.
    let mut left = rest.as_str();
    loop {
        left = left.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '[' | ',' | ']'));
        let mut stream = serde_json::Deserializer::from_str(left).into_iter::<Value>();
        let Some(Ok(value)) = stream.next() else { break };
        left = &left[stream.byte_offset()..];
        values.push(value);
    }
    let rest = left.to_owned();
    (values, rest)
}
