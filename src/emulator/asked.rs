//! What a request asks: its body read, as far as the answer depends on it.

use http::request::Parts;
use serde_json::Value;

use super::{errand::Errand, errors::ApiError, journal::cut};
use crate::call::{Call, Operation, Surface};

/// A request's body, understood.
#[derive(Debug)]
pub(super) enum Asked {
    Generate(Prompt),
    Count(Prompt),
    Embed(Embedding),
    ListModels { page_size: usize, from: usize },
    GetModel,
    Errand(Errand),
}

/// What is to be answered or counted.
#[derive(Debug, Default)]
pub(super) struct Prompt {
    /// Every text of it, one a line.
    pub(super) text: String,
    /// Where in it the last turn begins.
    last_turn: usize,
    pub(super) tokens: u64,
    /// The API's own files and cached contents that it names, `files/abc`.
    pub(super) things: Vec<String>,
    pub(super) wants_thoughts: bool,
    pub(super) wants_usage: bool,
}

/// What is to be embedded.
#[derive(Debug)]
pub(super) struct Embedding {
    pub(super) texts: Vec<String>,
    pub(super) dimensions: usize,
    pub(super) base64: bool,
    pub(super) tokens: u64,
}

/// A token for every four bytes of each text, rounded up; 258 for anything that is no text, an image's price.
const BYTES_PER_TOKEN: usize = 4;
const TOKENS_OF_MEDIA: u64 = 258;

const DIMENSIONS: usize = 3_072;
/// Google's own limits: pages of 50, of 1,000 at most; 100 texts a batch, 250 on Vertex, 2,048 in OpenAI's dialect.
const PAGE_SIZE: usize = 50;
const MAX_PAGE_SIZE: usize = 1_000;
const MAX_TEXTS: usize = 2_048;

// === impl Asked ===

impl Asked {
    /// `None` is a path that the emulator does not serve.
    pub(super) fn read(call: &Call, head: &Parts, body: &[u8]) -> Option<Result<Self, ApiError>> {
        use Operation::{
            BatchEmbedContents, CountTokens, EmbedContent, GenerateContent, GetModel, ListModels, Predict,
        };
        let open_ai = match call.surface() {
            Surface::OpenAi => true,
            Surface::Developer | Surface::Vertex => false,
            _ => return None,
        };
        let json = || serde_json::from_slice::<Value>(body).map_err(|error| malformed(body, &error)).and_then(object);
        Some(match call.operation() {
            ListModels => {
                let page = page_of(head.uri.query(), PAGE_SIZE, MAX_PAGE_SIZE);
                page.map(|(page_size, from)| Self::ListModels { page_size, from })
            }
            GetModel => Ok(Self::GetModel),
            GenerateContent if open_ai => json().and_then(|body| Prompt::from_messages(&body)).map(Self::Generate),
            GenerateContent => json().and_then(|body| Prompt::checked(&body, call.surface())).map(Self::Generate),
            CountTokens => json().and_then(|body| Prompt::counted(&body, call.surface())).map(Self::Count),
            EmbedContent if open_ai => json().and_then(|body| Embedding::from_input(&body)).map(Self::Embed),
            EmbedContent | BatchEmbedContents => json().and_then(|body| Embedding::read(&body)).map(Self::Embed),
            Predict if call.surface() == Surface::Vertex => {
                json().and_then(|body| Embedding::from_instances(&body)).map(Self::Embed)
            }
            _ => return Errand::read(call.surface(), head, body).map(|errand| errand.map(Self::Errand)),
        })
    }

    pub(super) fn tokens(&self) -> u64 {
        match self {
            Self::Generate(prompt) | Self::Count(prompt) => prompt.tokens,
            Self::Embed(embedding) => embedding.tokens,
            Self::Errand(Errand::Cache { tokens, .. }) => *tokens,
            Self::ListModels { .. } | Self::GetModel | Self::Errand(_) => 0,
        }
    }

    /// The input tokens that the model has to take at once: of a batch, the longest text's.
    pub(super) fn tokens_at_once(&self) -> u64 {
        match self {
            Self::Embed(embedding) => embedding.texts.iter().map(|text| tokens_of(text)).max().unwrap_or(0),
            _ => self.tokens(),
        }
    }

    /// The text that troubles look into.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Generate(prompt) | Self::Count(prompt) => &prompt.text,
            Self::Embed(embedding) => embedding.texts.first().map_or("", String::as_str),
            Self::ListModels { .. } | Self::GetModel | Self::Errand(_) => "",
        }
    }

    /// The files and cached contents that it names.
    pub(super) fn things(&self) -> &[String] {
        match self {
            Self::Generate(prompt) | Self::Count(prompt) => &prompt.things,
            _ => &[],
        }
    }
}

/// How many of a list are asked for, and from which on.
pub(super) fn page_of(query: Option<&str>, page_size: usize, max: usize) -> Result<(usize, usize), ApiError> {
    let parameter = |name: &str| {
        let mut pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, value)| *key == name && !value.is_empty()).map(|(_, value)| value)
    };
    let page_size = match parameter("pageSize").map(str::parse::<usize>) {
        None | Some(Ok(0)) => page_size,
        Some(Ok(size)) => size.min(max),
        Some(Err(_)) => return Err(ApiError::invalid_argument("Invalid value at 'page_size' (TYPE_INT32)")),
    };
    let from = match parameter("pageToken").map(|token| token.strip_prefix("from-").map(str::parse::<usize>)) {
        None => 0,
        Some(Some(Ok(from))) => from,
        Some(_) => return Err(ApiError::invalid_argument("Page token is not valid.")),
    };
    Ok((page_size, from))
}

pub(super) fn page_token(from: usize) -> String {
    format!("from-{from}")
}

fn object(value: Value) -> Result<Value, ApiError> {
    match value {
        Value::Object(_) => Ok(value),
        _ => Err(ApiError::invalid_argument(
            "Invalid JSON payload received. Unknown name \"\": Root element must be a message.",
        )),
    }
}

fn malformed(body: &[u8], error: &serde_json::Error) -> ApiError {
    let before: usize = body.split_inclusive(|byte| *byte == b'\n').take(error.line() - 1).map(<[u8]>::len).sum();
    ApiError::malformed_json(body, before + error.column().saturating_sub(1), error.is_eof())
}

// === impl Prompt ===

impl Prompt {
    /// The text of the last turn.
    pub(super) fn last_turn(&self) -> &str {
        self.text[self.last_turn..].trim_end_matches('\n')
    }

    /// A request to generate, refused as Google refuses it when there is nothing in it.
    fn checked(body: &Value, surface: Surface) -> Result<Self, ApiError> {
        let contents = some_of(body, "contents", "contents");
        if contents.is_empty() {
            return Err(nothing_in_it(surface, "GenerateContentRequest"));
        }
        for (at, content) in contents.iter().enumerate() {
            let path = format!("* GenerateContentRequest.contents[{at}]");
            let parts = some_of(content, "parts", "parts");
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
        Ok(Self::of(body))
    }

    /// `{contents}` or `{generateContentRequest}`.
    fn counted(body: &Value, surface: Surface) -> Result<Self, ApiError> {
        let request = member(body, "generateContentRequest", "generate_content_request").unwrap_or(body);
        match some_of(request, "contents", "contents").is_empty() {
            true => Err(nothing_in_it(surface, "CountTokensRequest")),
            false => Ok(Self::of(request)),
        }
    }

    pub(super) fn of(request: &Value) -> Self {
        let mut prompt = Self::default();
        prompt.name_thing(member(request, "cachedContent", "cached_content"));
        if let Some(instruction) = member(request, "systemInstruction", "system_instruction") {
            prompt.add_content(instruction);
        }
        for tool in some_of(request, "tools", "tools") {
            prompt.tokens += tokens_of(&tool.to_string());
        }
        for content in some_of(request, "contents", "contents") {
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

    /// OpenAI's `messages`.
    fn from_messages(body: &Value) -> Result<Self, ApiError> {
        let messages = some_of(body, "messages", "messages");
        if messages.is_empty() {
            return Err(nothing_in_it(Surface::OpenAi, "GenerateContentRequest"));
        }
        let mut prompt = Self::default();
        for message in messages {
            prompt.last_turn = prompt.text.len();
            match message.get("content") {
                Some(Value::String(text)) => prompt.add_text(text),
                Some(parts) => some_of_value(parts).iter().for_each(|part| prompt.add_part(part)),
                None => {}
            }
        }
        let options = body.get("stream_options").and_then(|options| options.get("include_usage"));
        prompt.wants_usage = options == Some(&Value::Bool(true));
        let google = body.get("extra_body").unwrap_or(body).get("google");
        prompt.name_thing(google.and_then(|google| member(google, "cachedContent", "cached_content")));
        Ok(prompt)
    }

    fn add_content(&mut self, content: &Value) {
        match content {
            Value::String(text) => self.add_text(text),
            _ => some_of(content, "parts", "parts").iter().for_each(|part| self.add_part(part)),
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
                    self.name_thing(file.and_then(|file| member(file, "fileUri", "file_uri")));
                }
            },
        }
    }

    /// Of an address, what stands behind the API's version; addresses elsewhere are nobody's.
    fn name_thing(&mut self, name: Option<&Value>) {
        let Some(name) = name.and_then(Value::as_str) else { return };
        let is_here = ["files/", "cachedContents/"].iter().any(|collection| name.starts_with(collection));
        let at = ["/v1beta/files/", "/v1/files/", "/v1alpha/files/"].into_iter().find_map(|files| name.find(files));
        let thing = match at {
            _ if is_here => name,
            Some(at) => name[at..].splitn(3, '/').nth(2).unwrap_or_default(),
            None => return,
        };
        self.things.push(cut(thing, 512));
    }

    fn add_text(&mut self, text: &str) {
        self.tokens += tokens_of(text);
        self.text.push_str(text);
        self.text.push('\n');
    }
}

fn nothing_in_it(surface: Surface, message: &str) -> ApiError {
    match surface {
        Surface::Vertex => ApiError::invalid_argument(
            "Unable to submit request because at least one contents field is required. Learn more: \
             https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/gemini",
        ),
        _ => ApiError::invalid_argument(format!("* {message}.contents: contents is not specified\n")),
    }
}

/// Whether there is more in a part than words about it.
fn has_data(part: &Value) -> bool {
    const ABOUT: [&str; 6] =
        ["thought", "thoughtSignature", "thought_signature", "videoMetadata", "video_metadata", "partMetadata"];
    part.as_object().is_some_and(|part| part.keys().any(|name| !ABOUT.contains(&name.as_str())))
}

// === impl Embedding ===

impl Embedding {
    /// `{content}`, or `{requests: [{content}, …]}` of a batch.
    fn read(body: &Value) -> Result<Self, ApiError> {
        let requests = match body.get("requests") {
            Some(requests) => some_of_value(requests),
            None => std::slice::from_ref(body),
        };
        let texts = requests.iter().map(|request| text_of(request.get("content").unwrap_or(&Value::Null)));
        let dimensions = requests.first().and_then(|first| {
            let config = first.get("embedContentConfig").unwrap_or(first);
            member(config, "outputDimensionality", "output_dimensionality")
        });
        Self::new(texts.collect(), dimensions, false)
    }

    /// Vertex's `predict`.
    fn from_instances(body: &Value) -> Result<Self, ApiError> {
        let texts = some_of(body, "instances", "instances")
            .iter()
            .map(|instance| instance.get("content").and_then(Value::as_str).unwrap_or_default().to_owned());
        let parameters = body.get("parameters").unwrap_or(&Value::Null);
        Self::new(texts.collect(), member(parameters, "outputDimensionality", "output_dimensionality"), false)
    }

    /// OpenAI's `input`.
    fn from_input(body: &Value) -> Result<Self, ApiError> {
        let texts = match body.get("input") {
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Array(texts)) => texts.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        let base64 = body.get("encoding_format").and_then(Value::as_str) == Some("base64");
        Self::new(texts, body.get("dimensions"), base64)
    }

    fn new(texts: Vec<String>, dimensions: Option<&Value>, base64: bool) -> Result<Self, ApiError> {
        if texts.is_empty() || texts.iter().all(String::is_empty) {
            return Err(ApiError::invalid_argument("* EmbedContentRequest.content: content is not specified\n"));
        }
        if texts.len() > MAX_TEXTS {
            let what =
                format!("* BatchEmbedContentsRequest.requests: at most {MAX_TEXTS} requests can be in one batch\n");
            return Err(ApiError::invalid_argument(what));
        }
        let dimensions = dimensions.and_then(Value::as_u64).map_or(DIMENSIONS, |wanted| wanted as usize);
        let tokens = texts.iter().map(|text| tokens_of(text)).sum();
        Ok(Self { texts, dimensions: dimensions.clamp(1, DIMENSIONS), base64, tokens })
    }
}

fn text_of(content: &Value) -> String {
    let mut prompt = Prompt::default();
    prompt.add_content(content);
    prompt.text.trim_end_matches('\n').to_owned()
}

pub(super) fn tokens_of(text: &str) -> u64 {
    text.len().div_ceil(BYTES_PER_TOKEN) as u64
}

// === JSON as Google reads it: camelCase or snake_case, one element or an array of them ===

pub(super) fn member<'a>(value: &'a Value, camel: &str, snake: &str) -> Option<&'a Value> {
    value.get(camel).or_else(|| value.get(snake)).filter(|value| !value.is_null())
}

fn some_of<'a>(value: &'a Value, camel: &str, snake: &str) -> &'a [Value] {
    member(value, camel, snake).map_or(&[], some_of_value)
}

fn some_of_value(value: &Value) -> &[Value] {
    match value {
        Value::Array(values) => values,
        Value::Null => &[],
        one => std::slice::from_ref(one),
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn head(uri: http::Uri) -> Parts {
        http::Request::post(uri).body(()).unwrap().into_parts().0
    }

    fn read(uri: &str, body: &str) -> Result<Asked, String> {
        let uri = uri.parse::<http::Uri>().unwrap();
        let call = Call::new(&Method::POST, &uri).read_body(body.as_bytes());
        Asked::read(&call, &head(uri), body.as_bytes()).unwrap().map_err(|error| error.line())
    }

    #[test]
    fn a_prompt_is_read_in_both_spellings() {
        let body = r#"{"system_instruction": {"parts": {"text": "be brief"}},
            "contents": [{"parts": [{"text": "one"}]}, {"role": "user", "parts": [{"text": "two"}, {"inlineData": {}}]}],
            "generationConfig": {"thinkingConfig": {"includeThoughts": true}}}"#;
        let Asked::Generate(prompt) = read("/v1beta/models/m:generateContent", body).unwrap() else { panic!() };
        assert_eq!(prompt.text, "be brief\none\ntwo\n");
        assert_eq!(prompt.last_turn(), "two");
        assert_eq!(prompt.tokens, 2 + 1 + 1 + 258);
        assert!(prompt.wants_thoughts);
    }

    #[test]
    fn what_is_empty_is_refused_in_googles_words() {
        let generate = "/v1beta/models/m:generateContent";
        for (body, words) in [
            ("{}", "* GenerateContentRequest.contents: contents is not specified\\n"),
            (r#"{"contents": []}"#, "* GenerateContentRequest.contents: contents is not specified\\n"),
            (r#"{"contents": [{"parts": []}]}"#, "contents[0].parts: contents.parts must not be empty.\\n"),
            (
                r#"{"contents": [{"parts": [{"text": "a"}, {"thought": true}]}]}"#,
                "contents[0].parts[1].data: required oneof field 'data' must have one initialized field\\n",
            ),
            ("{", "Invalid JSON payload received. Unexpected end of string."),
            ("[]", "Root element must be a message."),
        ] {
            let error = read(generate, body).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert!(
            read("/v1/publishers/google/models/m:generateContent", "{}").unwrap_err().contains("at least one contents")
        );
    }

    #[test]
    fn counting_takes_the_whole_request_too() {
        let uri = "/v1beta/models/m:countTokens";
        let plain = read(uri, r#"{"contents": {"parts": {"text": "12345678"}}}"#).unwrap();
        assert_eq!(plain.tokens(), 2);
        let whole = r#"{"generateContentRequest": {"contents": [{"parts": [{"text": "12345678"}]}],
            "systemInstruction": {"parts": [{"text": "1234"}]}}}"#;
        assert_eq!(read(uri, whole).unwrap().tokens(), 3);
    }

    #[test]
    fn a_list_is_paged() {
        let list = |query| page_of(query, PAGE_SIZE, MAX_PAGE_SIZE).ok();
        assert_eq!(list(None), Some((50, 0)));
        assert_eq!(list(Some("pageSize=5000&pageToken=from-7")), Some((1000, 7)));
        assert_eq!(list(Some("pageSize=two")), None);
        assert_eq!(list(Some("pageToken=x")), None);
    }

    proptest::proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let uri = "/v1beta/models/m:generateContent".parse::<http::Uri>().unwrap();
            let _ = Asked::read(&Call::new(&Method::POST, &uri), &head(uri), &body);
        }

        #[test]
        fn no_json_panics(keys in proptest::collection::vec("contents|parts|text|role|messages|content|requests", 1..6)) {
            let body = keys.iter().rev().fold("1".to_owned(), |inner, key| format!("{{\"{key}\": [{inner}, null]}}"));
            for path in ["/v1/models/m:generateContent", "/v1/models/m:batchEmbedContents", "/v1/openai/chat/completions"] {
                let uri = path.parse::<http::Uri>().unwrap();
                let _ = Asked::read(&Call::new(&Method::POST, &uri), &head(uri), body.as_bytes());
            }
        }
    }
}
