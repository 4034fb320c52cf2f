//! The parts of a request that one model takes and the next one rejects.
//!
//! The table is at the [module](super); in code it is [`Rejected::between`].

use super::members::{Cuts, ObjectMembers};

/// A model's generation, major and minor: 2.5, 3.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Generation(u8, u8);

impl Generation {
    const THINKS: Self = Self(2, 5);
    const HAS_LEVELS: Self = Self(3, 0);

    fn of(model: &str) -> Option<Self> {
        let version = model.strip_prefix("gemini-")?.split('-').next()?;
        let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

/// The parts to look for in a request that goes from one model to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rejected {
    signatures: bool,
    levels: bool,
    zero_budgets: bool,
    unsigned_calls: bool,
}

/// The way in which the next model can be asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// The next model takes the request as it is.
    AsItIs,
    /// The next model takes the request without these parts.
    Without(Cuts),
    /// The next model rejects the request, because of this part.
    Rejected(&'static str),
}

impl Rejected {
    /// Returns the parts that `next` rejects of a request that was made for `asked`.
    pub(super) fn between(asked: &str, next: &str) -> Self {
        let from = Generation::of(asked);
        let Some(to) = Generation::of(next) else {
            // A name like gemini-flash-latest may be of any generation. What is no Gemini, as Gemma, takes no signature.
            let [from, to] = [asked, next].map(|name| name.starts_with("gemini-"));
            return Self { signatures: from && !to, ..Self::default() };
        };
        Self {
            signatures: from.is_some_and(|from| from != to),
            levels: to < Generation::HAS_LEVELS,
            zero_budgets: to >= Generation::THINKS && next.split('-').any(|word| word == "pro"),
            // Models of one generation take the same.
            unsigned_calls: to >= Generation::HAS_LEVELS && from != Some(to),
        }
    }

    /// Looks for these parts in a request's JSON body, in Gemini's dialect or in OpenAI's. A body that is not JSON has
    /// none.
    pub(super) fn find(self, body: &[u8], strip: bool) -> Fit {
        if self == Self::default() {
            return Fit::AsItIs;
        }
        let Some(members) = ObjectMembers::of_body(body) else { return Fit::AsItIs };
        let mut search = Search { rejected: self, cuts: Cuts::of(body), first: None, unsigned_call: false };
        search.request(&members);
        if search.unsigned_call {
            return Fit::Rejected("a function call without thoughtSignature");
        }
        match search.first {
            None => Fit::AsItIs,
            Some(_) if strip => Fit::Without(search.cuts),
            Some(part) => Fit::Rejected(part),
        }
    }
}

/// A search through a body.
struct Search {
    rejected: Rejected,
    cuts: Cuts,
    /// The first part found that can be cut out.
    first: Option<&'static str>,
    unsigned_call: bool,
}

impl Search {
    fn request(&mut self, body: &ObjectMembers<'_>) {
        for content in body.elements(&["contents"]) {
            self.content(content);
        }
        for message in body.elements(&["messages"]) {
            self.message(&ObjectMembers::of(message));
        }
        for step in body.elements(&["input"]) {
            self.step(&ObjectMembers::of(step));
        }
        let config = body.inner(&["generationConfig", "generation_config"]);
        self.thinking(&config.inner(&["thinkingConfig", "thinking_config"]));
        let extra = body.inner(&["extra_body"]).inner(&["google"]);
        self.thinking(&extra.inner(&["thinkingConfig", "thinking_config"]));
        if self.rejected.zero_budgets {
            let none = |name: &str, value: &str| name == "reasoning_effort" && value == "\"none\"";
            self.reject(body, "reasoning_effort none", none);
        }
    }

    /// Searches one turn in Gemini's dialect. Of parallel calls the first one is signed.
    fn content(&mut self, content: &str) {
        let mut calls = 0;
        for part in ObjectMembers::of(content).elements(&["parts"]) {
            let part = ObjectMembers::of(part);
            let is_call = part.value(&["functionCall", "function_call"]).is_some();
            calls += usize::from(is_call);
            self.signature(&part, is_call && calls == 1);
        }
    }

    /// Searches one turn in OpenAI's dialect.
    fn message(&mut self, message: &ObjectMembers<'_>) {
        self.signature(&message.inner(&["extra_content"]).inner(&["google"]), false);
        for (nth, call) in message.elements(&["tool_calls"]).into_iter().enumerate() {
            self.signature(&ObjectMembers::of(call).inner(&["extra_content"]).inner(&["google"]), nth == 0);
        }
    }

    /// Searches a step of an interaction's history, or an item of OpenAI's responses. In an interaction the signature of a
    /// function call stands in the thought before it.
    fn step(&mut self, step: &ObjectMembers<'_>) {
        self.step_signature(step);
        for content in step.elements(&["content", "parts"]) {
            self.step_signature(&ObjectMembers::of(content));
        }
        self.signature(&step.inner(&["extra_content"]).inner(&["google"]), false);
    }

    fn step_signature(&mut self, members: &ObjectMembers<'_>) {
        if self.rejected.signatures {
            let is_signature =
                |name: &str, _: &str| matches!(name, "signature" | "thoughtSignature" | "thought_signature");
            self.reject(members, "a thoughtSignature of another generation", is_signature);
        }
    }

    /// Searches an object that may have a signature, or has to (`is_required`).
    fn signature(&mut self, members: &ObjectMembers<'_>, is_required: bool) {
        const NAMES: [&str; 2] = ["thoughtSignature", "thought_signature"];
        let is_foreign = self.rejected.signatures;
        if is_foreign {
            self.reject(members, "a thoughtSignature of another generation", |name, _| NAMES.contains(&name));
        }
        let stays = !is_foreign && members.value(&NAMES).is_some();
        self.unsigned_call |= self.rejected.unsigned_calls && is_required && !stays;
    }

    fn thinking(&mut self, config: &ObjectMembers<'_>) {
        let Rejected { levels, zero_budgets, .. } = self.rejected;
        let is_level = |name: &str| levels && matches!(name, "thinkingLevel" | "thinking_level");
        let is_none = |name: &str, value: &str| {
            let is_budget = zero_budgets && matches!(name, "thinkingBudget" | "thinking_budget");
            is_budget && matches!(value, "0" | "\"0\"")
        };
        let has_level = config.iter().any(|(name, _)| is_level(name));
        let part = if has_level { "thinkingLevel" } else { "thinkingBudget 0" };
        // In one go: two separate cuts of one object would leave a comma behind.
        self.reject(config, part, |name, value| is_level(name) || is_none(name, value));
    }

    fn reject(&mut self, members: &ObjectMembers<'_>, part: &'static str, is_cut: impl Fn(&str, &str) -> bool) {
        if self.cuts.cut(members, is_cut) {
            self.first.get_or_insert(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: &str = "gemini-2.5-pro";

    fn between(asked: &str, next: &str, body: &str, strip: bool) -> Result<String, &'static str> {
        match Rejected::between(asked, next).find(body.as_bytes(), strip) {
            Fit::AsItIs => Ok(body.into()),
            Fit::Without(cuts) => Ok(String::from_utf8(cuts.apply(body.as_bytes())).unwrap()),
            Fit::Rejected(what) => Err(what),
        }
    }

    #[test]
    fn generations_are_read_from_names() {
        let generations = [
            ("gemini-2.5-flash-lite-preview-06-17", Some(Generation(2, 5))),
            ("gemini-2.0-flash", Some(Generation(2, 0))),
            ("gemini-3-pro-preview", Some(Generation(3, 0))),
            ("gemini-3.1-flash-lite", Some(Generation(3, 1))),
            ("gemini-4-argon", Some(Generation(4, 0))),
            ("gemini-10.12", Some(Generation(10, 12))),
            ("gemini-flash-latest", None),
            ("gemini-embedding-001", None),
            ("gemini-2.5.1-flash", None),
            ("gemini-", None),
            ("gemma-3-27b-it", None),
            ("learnlm-2.0-flash", None),
        ];
        for (model, generation) in generations {
            assert_eq!(Generation::of(model), generation, "{model}");
        }
    }

    #[test]
    fn the_table() {
        const SIGNED: &str = r#"{"contents":[{"role":"model","parts":[{"text":"a"},{"thoughtSignature":"c2ln","functionCall":{"name":"f"}},{"functionCall":{"name":"g"}}]}]}"#;
        const UNSIGNED_LEFT: &str = r#"{"contents":[{"role":"model","parts":[{"text":"a"},{"functionCall":{"name":"f"}},{"functionCall":{"name":"g"}}]}]}"#;
        const THOUGHT: &str = r#"{"contents":[{"parts":[{"text":"a","thought_signature":"c2ln"}]}]}"#;
        const THOUGHT_LEFT: &str = r#"{"contents":[{"parts":[{"text":"a"}]}]}"#;
        const CALL: &str = r#"{"contents":[{"parts":[{"function_call":{"name":"f"}}]}]}"#;
        const LEVEL: &str = r#"{"generationConfig":{"topK":1,"thinkingConfig":{"thinkingLevel":"low"}},"contents":[]}"#;
        const LEVEL_LEFT: &str = r#"{"generationConfig":{"topK":1,"thinkingConfig":{}},"contents":[]}"#;
        const ZERO: &str =
            r#"{"generation_config": {"thinking_config": {"thinking_budget": 0, "include_thoughts": true}}}"#;
        const ZERO_LEFT: &str = r#"{"generation_config": {"thinking_config": { "include_thoughts": true}}}"#;
        const CHAT_CALL: &str = r#"{"messages":[{"tool_calls":[{"id":"1","function":{"name":"f"}}]}]}"#;
        const CHAT_SIGNED: &str = r#"{"messages":[{"tool_calls":[{"id":"1","extra_content":{"google":{"thought_signature":"c2ln"}}},{"id":"2"}]}]}"#;
        const CHAT_UNSIGNED: &str =
            r#"{"messages":[{"tool_calls":[{"id":"1","extra_content":{"google":{}}},{"id":"2"}]}]}"#;
        const EFFORT: &str = r#"{"reasoning_effort":"none","model":"m","extra_body":{"google":{"thinking_config":{"thinking_level":"low"}}}}"#;
        let signature = "a thoughtSignature of another generation";
        let call = "a function call without thoughtSignature";
        // The model asked for, the next one, and the body; the result, and the result if the body may be stripped.
        type FeatureRow = (
            &'static str,
            &'static str,
            &'static str,
            Result<&'static str, &'static str>,
            Result<&'static str, &'static str>,
        );
        const STEPS: &str = r#"{"model":"m","input":[{"type":"thought","signature":"c2ln","summary":[]},{"role":"model","content":[{"type":"text","text":"signature"},{"thought_signature":"c2ln"}]},{"type":"function_call","name":"f","arguments":{"signature":"x"}}]}"#;
        const STEPS_LEFT: &str = r#"{"model":"m","input":[{"type":"thought","summary":[]},{"role":"model","content":[{"type":"text","text":"signature"},{}]},{"type":"function_call","name":"f","arguments":{"signature":"x"}}]}"#;
        let rows: [FeatureRow; 27] = [
            (ASKED, "gemini-2.5-flash", SIGNED, Ok(SIGNED), Ok(SIGNED)),
            (ASKED, "gemini-2.0-flash", SIGNED, Err(signature), Ok(UNSIGNED_LEFT)),
            (ASKED, "gemini-3-flash-preview", SIGNED, Err(call), Err(call)),
            ("gemini-3-pro-preview", "gemini-3.1-pro-preview", THOUGHT, Err(signature), Ok(THOUGHT_LEFT)),
            ("gemini-3-pro-preview", "gemini-2.5-pro", SIGNED, Err(signature), Ok(UNSIGNED_LEFT)),
            ("gemini-pro-latest", "gemini-2.5-pro", SIGNED, Ok(SIGNED), Ok(SIGNED)),
            ("gemini-pro-latest", "gemini-3-pro-preview", SIGNED, Ok(SIGNED), Ok(SIGNED)),
            ("gemini-3-pro-preview", "gemini-flash-latest", SIGNED, Ok(SIGNED), Ok(SIGNED)),
            (ASKED, "gemini-3-flash-preview", CALL, Err(call), Err(call)),
            (ASKED, "gemini-2.5-flash", CALL, Ok(CALL), Ok(CALL)),
            ("gemini-3-pro-preview", "gemini-3-flash-preview", CALL, Ok(CALL), Ok(CALL)),
            ("gemini-3-pro-preview", "gemini-2.5-pro", LEVEL, Err("thinkingLevel"), Ok(LEVEL_LEFT)),
            ("gemini-3-pro-preview", "gemini-4-argon", LEVEL, Ok(LEVEL), Ok(LEVEL)),
            ("gemini-2.5-flash", "gemini-2.5-pro", ZERO, Err("thinkingBudget 0"), Ok(ZERO_LEFT)),
            (ASKED, "gemini-2.5-flash", ZERO, Ok(ZERO), Ok(ZERO)),
            ("gemini-2.5-flash", "gemini-2.0-pro-exp", ZERO, Ok(ZERO), Ok(ZERO)),
            (ASKED, "gemini-3-flash-preview", CHAT_CALL, Err(call), Err(call)),
            (ASKED, "gemini-2.0-flash", CHAT_SIGNED, Err(signature), Ok(CHAT_UNSIGNED)),
            ("gemini-pro-latest", "gemini-3-pro", CHAT_SIGNED, Ok(CHAT_SIGNED), Ok(CHAT_SIGNED)),
            (
                "gemini-2.5-flash",
                "gemini-2.5-pro",
                EFFORT,
                Err("thinkingLevel"),
                Ok(r#"{"model":"m","extra_body":{"google":{"thinking_config":{}}}}"#),
            ),
            ("gemini-2.5-flash", "gemini-2.5-pro", "no JSON", Ok("no JSON"), Ok("no JSON")),
            ("gemini-3-flash-preview", "gemma-3-27b-it", SIGNED, Err(signature), Ok(UNSIGNED_LEFT)),
            ("gemini-3-flash-preview", "gemma-4-31b-it", THOUGHT, Err(signature), Ok(THOUGHT_LEFT)),
            ("gemini-flash-latest", "gemma-4-31b-it", CHAT_SIGNED, Err(signature), Ok(CHAT_UNSIGNED)),
            ("gemma-4-31b-it", "gemma-3-27b-it", SIGNED, Ok(SIGNED), Ok(SIGNED)),
            ("gemini-3-flash-preview", ASKED, STEPS, Err(signature), Ok(STEPS_LEFT)),
            ("gemini-2.5-flash", ASKED, STEPS, Ok(STEPS), Ok(STEPS)),
        ];
        for (asked, next, body, plain, stripped) in rows {
            assert_eq!(between(asked, next, body, false), plain.map(String::from), "{asked} {next} {body}");
            assert_eq!(between(asked, next, body, true), stripped.map(String::from), "{asked} {next} {body}");
        }
    }

    #[test]
    fn a_text_that_speaks_of_it_is_left_alone() {
        let body = r#"{"contents":[{"parts":[{"text":"{\"thoughtSignature\":1}"},{"functionResponse":{"response":{"thoughtSignature":1,"functionCall":2}}}]}],"tools":[{"thinkingLevel":1}]}"#;
        assert_eq!(between(ASKED, "gemini-3-flash", body, false), Ok(body.into()));
    }

    proptest::proptest! {
        #[test]
        fn no_body_panics(body in r#"([{}\[\],:" ]|"(contents|parts|functionCall|thoughtSignature)":?|0){0,40}"#) {
            let _ = between("gemini-3-pro", "gemini-2.5-pro", &body, true);
        }
    }
}
