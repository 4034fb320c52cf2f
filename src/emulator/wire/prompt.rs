//! The prompt of a request: its text, and everything else in it that an answer depends on.

use serde_json::Value;

use super::{
    cut::cut,
    errors::ApiError,
    json::{elements, elements_of, member},
    resource_call::qualified,
    resource_path::resource_in,
    tier::tier_of,
    upload_call::NAME,
};
use crate::call::{ServiceTier, Surface};

/// A prompt that is to be answered, or counted.
#[derive(Debug, Default)]
pub(crate) struct Prompt {
    /// All texts of the prompt, one a line.
    pub(crate) text: String,
    /// The byte of `text` at which the last turn begins.
    last_turn: usize,
    pub(crate) tokens: u64,
    /// The names of the project's things in the prompt, such as `files/abc`.
    pub(crate) resources: Vec<String>,
    /// The tier of service that the request asks for.
    pub(crate) tier: Option<ServiceTier>,
    /// The model may search, or look at maps.
    pub(crate) is_grounded: bool,
    pub(crate) wants_thoughts: bool,
    pub(crate) wants_usage: bool,
}

/// The emulator's estimate: a token for every four bytes of each text, rounded up.
const BYTES_PER_TOKEN: usize = 4;
/// The price of anything that is not text: Google's for an image.
const TOKENS_OF_MEDIA: u64 = 258;
/// The name under which tokens to go on with are kept. It is not one of the API's collections.
pub(crate) const CONTINUATIONS: &str = "continuations";

// === impl Prompt ===

impl Prompt {
    /// Returns the text of the last turn.
    pub(crate) fn last_turn(&self) -> &str {
        self.text[self.last_turn..].trim_end_matches('\n')
    }

    /// Parses a request to generate; an empty one is refused in Google's words.
    pub(crate) fn for_generating(body: &Value, surface: Surface) -> Result<Self, ApiError> {
        let contents = elements_of(body, "contents", "contents");
        if contents.is_empty() {
            return Err(no_contents(surface, "GenerateContentRequest"));
        }
        for (at, content) in contents.iter().enumerate() {
            let path = format!("* GenerateContentRequest.contents[{at}]");
            let parts = elements_of(content, "parts", "parts");
            if parts.is_empty() {
                let what = format!("{path}.parts: contents.parts must not be empty.\n");
                return Err(ApiError::invalid_argument(what));
            }
            if let Some(part) = parts.iter().position(|part| !has_data(part)) {
                let what =
                    format!("{path}.parts[{part}].data: required oneof field 'data' must have one initialized field\n");
                return Err(ApiError::invalid_argument(what));
            }
        }
        Ok(Self { tier: tier_of(body)?, ..Self::of(body) })
    }

    /// Parses a request to count: `{contents}` or `{generateContentRequest}`.
    pub(crate) fn for_counting(body: &Value, surface: Surface) -> Result<Self, ApiError> {
        let request = member(body, "generateContentRequest", "generate_content_request").unwrap_or(body);
        match elements_of(request, "contents", "contents").is_empty() {
            true => Err(no_contents(surface, "CountTokensRequest")),
            false => Ok(Self::of(request)),
        }
    }

    /// Reads a request's prompt, without checking it.
    pub(crate) fn of(request: &Value) -> Self {
        let mut prompt = Self::default();
        prompt.add_resource(member(request, "cachedContent", "cached_content"));
        let token = member(request, "continuationToken", "continuation_token");
        prompt.add_qualified(token, CONTINUATIONS);
        if let Some(instruction) = member(request, "systemInstruction", "system_instruction") {
            prompt.add_content(instruction);
        }
        prompt.add_tools(request);
        for content in elements_of(request, "contents", "contents") {
            prompt.last_turn = prompt.text.len();
            prompt.add_content(content);
        }
        let config = member(request, "generationConfig", "generation_config");
        let thinking = config.and_then(|config| member(config, "thinkingConfig", "thinking_config"));
        prompt.wants_thoughts = thinking
            .and_then(|thinking| member(thinking, "includeThoughts", "include_thoughts"))
            .is_some_and(|wanted| *wanted == Value::Bool(true));
        prompt
    }

    /// Parses OpenAI's `messages`.
    pub(crate) fn from_messages(body: &Value) -> Result<Self, ApiError> {
        let messages = elements_of(body, "messages", "messages");
        if messages.is_empty() {
            return Err(no_contents(Surface::OpenAi, "GenerateContentRequest"));
        }
        let mut prompt = Self::default();
        for message in messages {
            prompt.last_turn = prompt.text.len();
            match message.get("content") {
                Some(Value::String(text)) => prompt.add_text(text),
                Some(parts) => elements(parts).iter().for_each(|part| prompt.add_part(part)),
                None => {}
            }
        }
        let options = body.get("stream_options").and_then(|options| options.get("include_usage"));
        prompt.wants_usage = options == Some(&Value::Bool(true));
        prompt.tier = tier_of(body)?;
        let google = body.get("extra_body").unwrap_or(body).get("google");
        prompt.add_resource(google.and_then(|google| member(google, "cachedContent", "cached_content")));
        Ok(prompt)
    }

    /// Parses a request for an interaction. Its input is a text, a content, or a list of contents, turns or steps.
    pub(crate) fn for_interaction(body: &Value) -> Result<Self, ApiError> {
        let mut prompt = Self { tier: tier_of(body)?, ..Self::default() };
        prompt.add_resource(member(body, "cachedContent", "cached_content"));
        for (camel, snake, collection) in [
            ("previousInteractionId", "previous_interaction_id", "interactions"),
            ("agent", "agent", "agents"),
            ("environment", "environment", "environments"),
            ("continuationToken", "continuation_token", CONTINUATIONS),
        ] {
            prompt.add_qualified(member(body, camel, snake), collection);
        }
        if let Some(Value::String(instruction)) = member(body, "systemInstruction", "system_instruction") {
            prompt.add_text(instruction);
        }
        prompt.add_tools(body);
        for input in elements_of(body, "input", "input") {
            prompt.last_turn = prompt.text.len();
            prompt.add_input(input);
        }
        Ok(prompt)
    }

    /// Makes a prompt of one text.
    pub(crate) fn of_text(text: &str) -> Self {
        let mut prompt = Self::default();
        prompt.add_text(text);
        prompt
    }

    /// Reads the text of one content.
    pub(crate) fn text_of(content: &Value) -> String {
        let mut prompt = Self::default();
        prompt.add_content(content);
        prompt.text.trim_end_matches('\n').to_owned()
    }

    fn add_content(&mut self, content: &Value) {
        match content {
            Value::String(text) => self.add_text(text),
            _ => elements_of(content, "parts", "parts").iter().for_each(|part| self.add_part(part)),
        }
    }

    fn add_part(&mut self, part: &Value) {
        match part.get("text") {
            Some(Value::String(text)) => self.add_text(text),
            _ => match ["functionCall", "functionResponse", "function_call", "function_response"]
                .into_iter()
                .find_map(|name| part.get(name))
            {
                Some(function) => self.tokens += tokens_of(&function.to_string()),
                None => {
                    self.tokens += TOKENS_OF_MEDIA;
                    let file = member(part, "fileData", "file_data");
                    self.add_resource(file.and_then(|file| member(file, "fileUri", "file_uri")));
                }
            },
        }
    }

    /// Adds a part of an interaction's input: a text, a content, or a step or turn with contents of its own.
    fn add_input(&mut self, input: &Value) {
        let contents = input.get("content").or_else(|| input.get("parts"));
        match (input, contents) {
            (Value::String(text), _) => self.add_text(text),
            (_, Some(Value::String(text))) => self.add_text(text),
            (_, Some(contents)) => elements(contents).iter().for_each(|content| self.add_input(content)),
            (_, None) => {
                self.add_resource(input.get("uri"));
                self.add_part(input);
            }
        }
    }

    /// Adds the tools: their tokens, the stores that they search, and the search that costs a quota of its own.
    fn add_tools(&mut self, request: &Value) {
        const GROUNDING: [&str; 6] = [
            "googleSearch",
            "google_search",
            "googleSearchRetrieval",
            "google_search_retrieval",
            "googleMaps",
            "google_maps",
        ];
        for tool in elements_of(request, "tools", "tools") {
            self.tokens += tokens_of(&tool.to_string());
            // An interaction names a tool by its type, a prompt by a member.
            let named = tool.get("type").and_then(Value::as_str);
            self.is_grounded |= GROUNDING.iter().any(|name| tool.get(name).is_some() || named == Some(name));
            let search = member(tool, "fileSearch", "file_search").unwrap_or(tool);
            for store in elements_of(search, "fileSearchStoreNames", "file_search_store_names") {
                self.add_resource(Some(store));
            }
        }
    }

    /// Adds a resource by its name or address, if it is one of the API's own.
    fn add_resource(&mut self, name: Option<&Value>) {
        self.resources.extend(name.and_then(Value::as_str).and_then(resource_in));
    }

    /// Adds a resource by its name or by its id alone.
    fn add_qualified(&mut self, id: Option<&Value>, collection: &str) {
        let id = id.and_then(Value::as_str).filter(|id| !id.is_empty());
        self.resources.extend(id.map(|id| cut(&qualified(id, collection), NAME)));
    }

    fn add_text(&mut self, text: &str) {
        self.tokens += tokens_of(text);
        self.text.push_str(text);
        self.text.push('\n');
    }
}

fn no_contents(surface: Surface, message: &str) -> ApiError {
    match surface {
        Surface::Vertex => ApiError::invalid_argument(
            "Unable to submit request because at least one contents field is required. Learn more: \
             https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/gemini",
        ),
        _ => ApiError::invalid_argument(format!("* {message}.contents: contents is not specified\n")),
    }
}

/// Returns whether a part has data, besides members that only describe it.
fn has_data(part: &Value) -> bool {
    const DESCRIPTIONS: [&str; 6] =
        ["thought", "thoughtSignature", "thought_signature", "videoMetadata", "video_metadata", "partMetadata"];
    part.as_object().is_some_and(|part| part.keys().any(|name| !DESCRIPTIONS.contains(&name.as_str())))
}

/// Estimates a text's tokens.
pub(crate) fn tokens_of(text: &str) -> u64 {
    text.len().div_ceil(BYTES_PER_TOKEN) as u64
}
