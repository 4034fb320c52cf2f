//! Requests of the API, parsed from their method, path, headers and body, as far as an answer depends on them.

use http::request::Parts;

use super::{
    decisions::DecisionRequest,
    embedding::EmbeddingRequest,
    errors::ApiError,
    interaction_call::{InteractionCall, NewInteraction},
    json::json_object,
    page::PageRequest,
    prompt::Prompt,
    resource_call::{NewCache, ResourceCall},
};
use crate::call::{Call, Operation, ServiceTier, Surface};

/// A request of the API.
#[derive(Debug)]
pub(crate) enum ApiRequest {
    Generate(Prompt),
    Count(Prompt),
    Embed(EmbeddingRequest),
    ListModels(PageRequest),
    GetModel,
    Interaction(InteractionCall),
    Decide(DecisionRequest),
    Resource(ResourceCall),
}

/// Google's limits: pages of 50 models, of 1,000 at most.
const PAGE_SIZE: usize = 50;
const MAX_PAGE_SIZE: usize = 1_000;

// === impl ApiRequest ===

impl ApiRequest {
    /// Parses a request. `None` is a path that the emulator does not serve.
    pub(crate) fn read(call: &Call, head: &Parts, body: &[u8]) -> Option<Result<Self, ApiError>> {
        use Operation::{
            BatchEmbedContents, CountTokens, EmbedContent, GenerateContent, GetModel, ListModels, Predict,
        };
        if let Some(interaction) = InteractionCall::read(head, body) {
            return Some(interaction.map(Self::Interaction));
        }
        if let Some(decision) = DecisionRequest::read(head, body) {
            return Some(decision.map(Self::Decide));
        }
        let surface = call.surface();
        let open_ai = surface == Surface::OpenAi;
        if surface == Surface::Other {
            return None;
        }
        let json = || json_object(body);
        Some(match call.operation() {
            ListModels => PageRequest::of(head.uri.query(), PAGE_SIZE, MAX_PAGE_SIZE).map(Self::ListModels),
            GetModel => Ok(Self::GetModel),
            GenerateContent if open_ai => json().and_then(|body| Prompt::from_messages(&body)).map(Self::Generate),
            GenerateContent => json().and_then(|body| Prompt::for_generating(&body, surface)).map(Self::Generate),
            CountTokens => json().and_then(|body| Prompt::for_counting(&body, surface)).map(Self::Count),
            EmbedContent if open_ai => json().and_then(|body| EmbeddingRequest::from_input(&body)).map(Self::Embed),
            EmbedContent | BatchEmbedContents => {
                json().and_then(|body| EmbeddingRequest::from_contents(&body)).map(Self::Embed)
            }
            Predict if surface == Surface::Vertex => {
                json().and_then(|body| EmbeddingRequest::from_instances(&body)).map(Self::Embed)
            }
            _ => return ResourceCall::read(call, head, body).map(|call| call.map(Self::Resource)),
        })
    }

    /// Returns the request's prompt, if it has one.
    pub(crate) fn prompt(&self) -> Option<&Prompt> {
        match self {
            Self::Generate(prompt) | Self::Count(prompt) => Some(prompt),
            Self::Interaction(InteractionCall::Create(new)) => Some(&new.prompt),
            Self::Decide(decision) => Some(&decision.prompt),
            _ => None,
        }
    }

    /// Returns the request's input tokens.
    pub(crate) fn tokens(&self) -> u64 {
        match self {
            Self::Embed(embedding) => embedding.tokens,
            Self::Resource(ResourceCall::CreateCache(NewCache { tokens, .. })) => *tokens,
            _ => self.prompt().map_or(0, |prompt| prompt.tokens),
        }
    }

    /// Returns the input tokens that the model has to take at once: of a batch, those of the longest text.
    pub(crate) fn tokens_at_once(&self) -> u64 {
        match self {
            Self::Embed(embedding) => embedding.largest(),
            _ => self.tokens(),
        }
    }

    /// Returns the requests of quota that the request spends; none, if it spends none of a model or agent.
    pub(crate) fn charge(&self) -> u64 {
        match self {
            Self::Embed(embedding) => embedding.charged,
            Self::Generate(_) | Self::Decide(_) | Self::Interaction(InteractionCall::Create(_)) => 1,
            _ => 0,
        }
    }

    /// Returns the text that [`When::prompt`](crate::emulator::When::prompt) searches.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Embed(embedding) => embedding.texts.first().map_or("", String::as_str),
            _ => self.prompt().map_or("", |prompt| &prompt.text),
        }
    }

    /// Returns the names of the project's things that the request's body names.
    pub(crate) fn resources(&self) -> &[String] {
        match self {
            Self::Resource(call) => call.resources(),
            _ => self.prompt().map_or(&[], |prompt| &prompt.resources),
        }
    }

    /// Returns the tier of service that the request asks for.
    pub(crate) fn tier(&self) -> Option<ServiceTier> {
        self.prompt().and_then(|prompt| prompt.tier)
    }

    /// Returns the model or agent that the request names where its path cannot.
    pub(crate) fn called(&self) -> Option<String> {
        match self {
            Self::Interaction(InteractionCall::Create(NewInteraction { called, .. })) => Some(called.name()),
            Self::Decide(decision) => Some(decision.model.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn head(uri: http::Uri) -> Parts {
        http::Request::post(uri).body(()).unwrap().into_parts().0
    }

    fn read(uri: &str, body: &str) -> Result<ApiRequest, String> {
        let uri = uri.parse::<http::Uri>().unwrap();
        let call = Call::new(&Method::POST, &uri).read_body(body.as_bytes());
        ApiRequest::read(&call, &head(uri), body.as_bytes()).unwrap().map_err(|error| error.line())
    }

    #[test]
    fn a_prompt_is_read_in_both_spellings() {
        let body = r#"{"system_instruction": {"parts": {"text": "be brief"}},
            "contents": [{"parts": [{"text": "one"}]}, {"role": "user", "parts": [{"text": "two"}, {"inlineData": {}}]}],
            "generationConfig": {"thinkingConfig": {"includeThoughts": true}}}"#;
        let ApiRequest::Generate(prompt) = read("/v1beta/models/m:generateContent", body).unwrap() else { panic!() };
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

    proptest::proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let uri = "/v1beta/models/m:generateContent".parse::<http::Uri>().unwrap();
            let _ = ApiRequest::read(&Call::new(&Method::POST, &uri), &head(uri), &body);
        }

        #[test]
        fn no_json_panics(
            keys in proptest::collection::vec(
                "contents|parts|text|role|messages|content|requests|input|uri|model|agent|questions|criteria|batch|\
                 inputConfig|fileName|tools|input_file_id",
                1..7,
            ),
        ) {
            let body = keys.iter().rev().fold("1".to_owned(), |inner, key| format!("{{\"{key}\": [{inner}, null]}}"));
            let flat = keys.iter().map(|key| format!("\"{key}\": {{\"{key}\": \"a\"}}")).collect::<Vec<_>>().join(",");
            for path in [
                "/v1/models/m:generateContent",
                "/v1/models/m:batchEmbedContents",
                "/v1/models/m:batchGenerateContent",
                "/v1/openai/chat/completions",
                "/v1/openai/batches",
                "/v1/interactions",
                "/v1/decisions",
                "/v1/agents",
                "/v1/fileSearchStores/s:importFile",
            ] {
                let uri = path.parse::<http::Uri>().unwrap();
                for body in [&body, &format!("{{{flat}}}")] {
                    let _ = ApiRequest::read(&Call::new(&Method::POST, &uri), &head(uri.clone()), body.as_bytes());
                }
            }
        }

        #[test]
        fn no_path_panics(
            segments in proptest::collection::vec(
                "v1|upload|openai|projects|locations|interactions|interactionsHttp|files|batches|environments|x|:|%2F||\
                 :cancel|files:download",
                0..8,
            ),
            get: bool,
        ) {
            let uri = format!("/{}", segments.join("/")).parse::<http::Uri>().unwrap();
            let mut head = head(uri.clone());
            head.method = if get { Method::GET } else { Method::POST };
            let _ = ApiRequest::read(&Call::new(&head.method, &uri), &head, b"{}");
        }
    }
}
