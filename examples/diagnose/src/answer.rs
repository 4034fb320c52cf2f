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
        let generated =
            ["candidates", "choices", "promptFeedback", "usageMetadata", "usage", "modelVersion", "responseId"];
        let members = chunk.as_object().into_iter().flatten();
        self.something_else |=
            candidates.is_none() && members.into_iter().any(|(name, _)| !generated.contains(&&**name));
        self
    }
}

/// Returns whether a content, in either shape, has a part that is not empty.
fn has_content(content: &Value) -> bool {
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    };
    let parts = content["parts"].as_array();
    let in_parts = parts.into_iter().flatten().filter_map(Value::as_object).any(|part| {
        part.iter().any(|(name, value)| !matches!(name.as_str(), "thought" | "thoughtSignature") && says(value))
    });
    in_parts || ["content", "tool_calls", "refusal"].iter().any(|name| says(&content[name]))
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
