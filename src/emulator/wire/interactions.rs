//! The shapes of interactions: in one piece, and as the events of a stream.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{
    answer::{AnswerFrames, EmptyAnswer, GeneratedAnswer, THOUGHT},
    errors::ApiError,
    interaction_call::Called,
    json::line,
};

/// An interaction, as it is to be written.
#[derive(Debug)]
pub(crate) struct InteractionView<'a> {
    pub(crate) answer: &'a GeneratedAnswer,
    pub(crate) called: &'a Called,
    pub(crate) previous: Option<&'a str>,
    /// The input, if it is to be shown.
    pub(crate) input: Option<&'a str>,
    pub(crate) progress: Progress,
    pub(crate) created: String,
    pub(crate) updated: String,
    /// The interaction is kept, so that its events can be read again from any of them on.
    pub(crate) stored: bool,
}

/// The progress of an interaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Running,
    Cancelled,
    /// The answer says how it ended.
    Ended,
}

/// The base64 of "emulated".
const SIGNATURE: &str = "ZW11bGF0ZWQ=";

/// Writes an interaction in one piece.
pub(crate) fn interaction(view: &InteractionView<'_>) -> Bytes {
    line(&view.json(view.progress == Progress::Ended)).into()
}

/// Writes an interaction as a stream of events, from the one behind the event number `after` on.
pub(crate) fn frames(view: &InteractionView<'_>, after: u64) -> AnswerFrames {
    let mut events = vec![
        json!({ "event_type": "interaction.created", "interaction": view.head("in_progress") }),
        json!({
            "event_type": "interaction.status_update",
            "interaction_id": view.answer.id,
            "status": "in_progress",
        }),
    ];
    if view.progress != Progress::Cancelled {
        view.add_steps(&mut events);
    }
    events.push(json!({ "event_type": "interaction.completed", "interaction": view.json(false) }));
    let skipped = usize::try_from(after).unwrap_or(usize::MAX).min(events.len());
    let frames = events.iter_mut().enumerate().skip(skipped).map(|(at, data)| {
        if view.stored {
            data["event_id"] = format!("event_{}", at + 1).into();
        }
        event(data)
    });
    let mut frames: Vec<Bytes> = frames.collect();
    let finish = frames.len().saturating_sub(1);
    frames.push(Bytes::from_static(b"event: done\ndata: [DONE]\n\n"));
    AnswerFrames { frames, finish }
}

/// Writes the body of an error.
pub(crate) fn error(error: &ApiError) -> Bytes {
    line(&json!({ "error": error.coded() })).into()
}

/// Writes an error as an event.
pub(crate) fn error_event(error: &ApiError) -> Bytes {
    event(&mut json!({ "error": error.coded(), "event_type": "error" }))
}

/// Writes an event: a line with its type, and one with its data, whose last member is the type again.
fn event(data: &mut Value) -> Bytes {
    let kind = data.as_object_mut().and_then(|data| data.remove("event_type")).unwrap_or_default();
    let (name, rest) = (kind.as_str().unwrap_or_default(), line(data));
    let members = rest.strip_suffix('}').unwrap_or(&rest);
    format!("event: {name}\ndata: {members},\"event_type\":{kind}}}\n\n").into()
}

// === impl InteractionView ===

impl InteractionView<'_> {
    /// Returns the whole interaction, with its steps if they are to be shown.
    fn json(&self, with_steps: bool) -> Value {
        let mut json = self.head(self.status());
        let mut add = |name: &str, value: Value| {
            if let Some(members) = json.as_object_mut() {
                members.insert(name.to_owned(), value);
            }
        };
        if let Some(previous) = self.previous {
            add("previous_interaction_id", previous.into());
        }
        if with_steps {
            add("steps", self.steps().into());
        }
        if self.progress == Progress::Ended {
            add("usage", usage(self.answer));
            match &self.answer.empty {
                Some(EmptyAnswer::Continuation(token)) => add("continuation_token", token.as_str().into()),
                Some(EmptyAnswer::Blocked(_) | EmptyAnswer::PromptBlocked(_)) => {
                    add("errors", json!([{ "code": "prohibited_content", "message": PROHIBITED }]));
                }
                Some(EmptyAnswer::Unfinished(status)) if status == "failed" => {
                    add("errors", json!([{ "code": "internal_error", "message": "The interaction failed." }]));
                }
                _ => {}
            }
        }
        json
    }

    /// Returns the members that every event about the interaction has.
    fn head(&self, status: &str) -> Value {
        let mut json = json!({
            "id": self.answer.id,
            "object": "interaction",
            "status": status,
            "created": self.created,
            "updated": self.updated,
        });
        match self.called {
            Called::Model(model) => json["model"] = model.as_str().into(),
            Called::Agent(agent) => json["agent"] = agent.as_str().into(),
        }
        if let Some(tier) = self.answer.tier {
            json["service_tier"] = tier.as_str().into();
        }
        json
    }

    fn status(&self) -> &str {
        match (self.progress, &self.answer.empty) {
            (Progress::Running, _) => "in_progress",
            (Progress::Cancelled, _) => "cancelled",
            (Progress::Ended, None | Some(EmptyAnswer::NoParts)) => "completed",
            (Progress::Ended, Some(EmptyAnswer::Unfinished(status))) => status,
            (Progress::Ended, Some(EmptyAnswer::Continuation(_))) => "requires_continuation",
            (Progress::Ended, Some(EmptyAnswer::MalformedFunctionCall | EmptyAnswer::ThoughtsOnly)) => "incomplete",
            (Progress::Ended, Some(EmptyAnswer::Blocked(_) | EmptyAnswer::PromptBlocked(_))) => "failed",
        }
    }

    fn steps(&self) -> Vec<Value> {
        let text = |text: &str| json!([{ "type": "text", "text": text }]);
        let input = self.input.map(|input| json!({ "type": "user_input", "content": text(input) }));
        let thought = self.thought().map(|shown| {
            let mut step = json!({ "type": "thought", "signature": SIGNATURE });
            if let Some(shown) = shown {
                step["summary"] = text(shown);
            }
            step
        });
        let output = self.answer.empty.is_none();
        let output = output.then(|| json!({ "type": "model_output", "content": text(&self.answer.pieces.concat()) }));
        [input, thought, output].into_iter().flatten().collect()
    }

    /// Returns the thought, if there is one, and its text, if it is shown.
    fn thought(&self) -> Option<Option<&'static str>> {
        match self.answer.empty {
            Some(EmptyAnswer::ThoughtsOnly) => Some(Some(THOUGHT)),
            _ => (self.answer.thought_tokens > 0).then_some(self.answer.thought),
        }
    }

    fn add_steps(&self, events: &mut Vec<Value>) {
        let mut index = 0;
        let mut add_step = |kind: &str, deltas: Vec<Value>| {
            events.push(json!({ "event_type": "step.start", "index": index, "step": { "type": kind } }));
            let deltas = deltas.into_iter();
            events.extend(deltas.map(|delta| json!({ "event_type": "step.delta", "index": index, "delta": delta })));
            events.push(json!({ "event_type": "step.stop", "index": index }));
            index += 1;
        };
        if let Some(shown) = self.thought() {
            let content = shown.map(|shown| json!({ "type": "text", "text": shown }));
            let summary = content.map(|content| json!({ "type": "thought_summary", "content": content }));
            let signature = json!({ "type": "thought_signature", "signature": SIGNATURE });
            add_step("thought", summary.into_iter().chain([signature]).collect());
        }
        if self.answer.empty.is_none() {
            let pieces = self.answer.pieces.iter();
            add_step("model_output", pieces.map(|piece| json!({ "type": "text", "text": piece })).collect());
        }
    }
}

/// The words of the content filter.
pub(crate) const PROHIBITED: &str = "The request was blocked because it contains prohibited content.";

/// Returns the tokens by the names that interactions and decisions have for them.
pub(super) fn usage(answer: &GeneratedAnswer) -> Value {
    let output = if answer.empty.is_some() { 0 } else { answer.tokens_until(answer.pieces.len()) };
    let by_modality = |tokens: u64| json!([{ "modality": "text", "tokens": tokens }]);
    let mut usage = Map::new();
    for (name, tokens) in [
        ("total_input_tokens", answer.prompt_tokens),
        ("total_output_tokens", output),
        ("total_thought_tokens", answer.thought_tokens),
        ("total_cached_tokens", 0),
        ("total_tool_use_tokens", 0),
        ("total_tokens", answer.prompt_tokens + output + answer.thought_tokens),
    ] {
        usage.insert(name.to_owned(), tokens.into());
    }
    usage.insert("input_tokens_by_modality".to_owned(), by_modality(answer.prompt_tokens));
    if output > 0 {
        usage.insert("output_tokens_by_modality".to_owned(), by_modality(output));
    }
    Value::Object(usage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::wire::prompt::Prompt;

    fn view<'a>(answer: &'a GeneratedAnswer, called: &'a Called) -> InteractionView<'a> {
        let now = String::from("2026-11-28T12:00:00Z");
        InteractionView {
            answer,
            called,
            previous: None,
            input: None,
            progress: Progress::Ended,
            created: now.clone(),
            updated: now,
            stored: true,
        }
    }

    #[test]
    fn a_stream_goes_on_behind_any_of_its_events() {
        let answer = GeneratedAnswer::new("one two three", 3, &Prompt::default(), "m", "m");
        let called = Called::Model("m".to_owned());
        let all = frames(&view(&answer, &called), 0);
        assert_eq!((all.frames.len(), all.finish), (9, 7));
        for after in 0..=8 {
            let rest = frames(&view(&answer, &called), after);
            assert_eq!(rest.frames, all.frames[usize::try_from(after).unwrap()..]);
        }
        assert_eq!(frames(&view(&answer, &called), 99).frames.len(), 1);
    }

    #[test]
    fn the_tokens_of_an_empty_answer_are_those_of_its_prompt() {
        let mut answer = GeneratedAnswer::new("12345678", 1, &Prompt::of_text("1234"), "m", "m");
        assert_eq!(usage(&answer)["total_tokens"], 3);
        answer.empty = Some(EmptyAnswer::NoParts);
        assert_eq!(usage(&answer)["total_tokens"], 1);
    }
}
