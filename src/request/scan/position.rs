//! The place of a value in a request, and the places of what is within it.

/// The place of a value in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// The whole body, or a request in a wrapper around it.
    Request,
    /// `requests` of a batch.
    Requests,
    /// A list of contents or messages, or what an embedding is made of.
    Contents,
    Content,
    System,
    Parts,
    Part,
    FunctionCall,
    FunctionResponse,
    /// The result of a function in an interaction: a text, a dictionary, or a list of contents.
    StepResult,
    /// A blob in base64, or a reference to one: `inlineData`, `fileData`, `input_audio`.
    Blob,
    BlobType,
    BlobData,
    BlobUri,
    /// An image by its URL, which may hold it.
    ImageUrl,
    Tools,
    Tool,
    Declarations,
    Declaration,
    Schema,
    Properties,
    Property,
    Generation,
    MaxOutput,
    ToolCalls,
    ToolCall,
    Cached,
    Model,
    /// Every key and every string in it counts.
    Dictionary,
    /// A text that counts, or a list of such texts.
    Text,
    /// The name or role of the speaker, which by itself says nothing.
    Speaker,
    Ignored,
}

impl Position {
    /// Returns the place of a key's value. Names come in camel case and in snake case.
    pub(super) fn of(self, key: &str) -> Self {
        match (self, key) {
            (Self::Request, "contents" | "messages" | "content" | "input" | "prompt" | "instances") => Self::Contents,
            (Self::Request, "generateContentRequest" | "generate_content_request") => Self::Request,
            (Self::Request, "requests") => Self::Requests,
            (Self::Request, "model") => Self::Model,
            (Self::Request, "systemInstruction" | "system_instruction" | "instructions") => Self::System,
            (Self::Request, "tools") => Self::Tools,
            (Self::Request, "generationConfig" | "generation_config") => Self::Generation,
            (Self::Request, "max_tokens" | "max_completion_tokens" | "max_output_tokens") => Self::MaxOutput,
            // An answer that the request goes on from counts as input as well.
            (
                Self::Request,
                "cachedContent"
                | "cached_content"
                | "previous_interaction_id"
                | "previousInteractionId"
                | "previous_response_id",
            ) => Self::Cached,

            (Self::Contents | Self::Content | Self::System, "parts" | "content") => Self::Parts,
            (Self::Contents | Self::Content, "tool_calls") => Self::ToolCalls,
            (Self::Contents | Self::Content, "role" | "name") => Self::Speaker,
            (Self::Parts | Self::Part | Self::Contents | Self::Content | Self::System, "text") => Self::Text,
            (Self::Parts | Self::Part, "functionCall" | "function_call") => Self::FunctionCall,
            (Self::Parts | Self::Part, "functionResponse" | "function_response") => Self::FunctionResponse,
            (Self::Parts | Self::Part, "inlineData" | "inline_data" | "fileData" | "file_data" | "input_audio") => {
                Self::Blob
            }
            (Self::Parts | Self::Part, "image_url") => Self::ImageUrl,
            // The steps and contents of an interaction, and the items of OpenAI's responses, have no objects within.
            (place, "arguments") if place.may_be_step() => Self::Dictionary,
            (place, "result" | "output") if place.may_be_step() => Self::StepResult,
            (place, "mime_type") if place.may_be_step() => Self::BlobType,
            (place, "data") if place.may_be_step() => Self::BlobData,
            (place, "uri") if place.may_be_step() => Self::BlobUri,

            (Self::FunctionCall | Self::FunctionResponse | Self::Declarations | Self::Declaration, "name") => {
                Self::Text
            }
            (Self::FunctionCall, "args") | (Self::FunctionResponse, "response") => Self::Dictionary,
            (Self::FunctionCall, "arguments") => Self::Text,
            (Self::ToolCall, "function") => Self::FunctionCall,

            (Self::Blob, "mimeType" | "mime_type" | "format") => Self::BlobType,
            (Self::Blob, "data") => Self::BlobData,
            (Self::ImageUrl, "url") => Self::ImageUrl,

            (Self::Tools | Self::Tool, "functionDeclarations" | "function_declarations") => Self::Declarations,
            (Self::Tools | Self::Tool, "function") => Self::Declaration,
            (Self::Tools | Self::Tool, "name" | "description") => Self::Text,
            (Self::Tools | Self::Tool, "parameters") => Self::Schema,
            (Self::Declarations | Self::Declaration, "description") => Self::Text,
            (Self::Declarations | Self::Declaration, "parameters" | "response") => Self::Schema,

            (Self::Schema | Self::Property, "format" | "description" | "enum" | "required") => Self::Text,
            (Self::Schema | Self::Property, "items") => Self::Schema,
            (Self::Schema | Self::Property, "properties") => Self::Properties,
            (Self::Schema | Self::Property, "example") => Self::Dictionary,
            (Self::Properties, _) => Self::Property,

            (Self::Generation, "maxOutputTokens" | "max_output_tokens") => Self::MaxOutput,
            (Self::Generation, "responseSchema" | "response_schema") => Self::Schema,

            (Self::Dictionary | Self::StepResult, _) => Self::Dictionary,
            _ => Self::Ignored,
        }
    }

    /// Returns whether a step or a content of an interaction may stand here.
    fn may_be_step(self) -> bool {
        matches!(self, Self::Contents | Self::Content | Self::Parts | Self::Part)
    }

    /// Returns the place of an element of a list.
    pub(super) fn element(self) -> Self {
        match self {
            Self::Requests => Self::Request,
            Self::Contents => Self::Content,
            Self::Parts | Self::StepResult => Self::Part,
            Self::Tools => Self::Tool,
            Self::Declarations => Self::Declaration,
            Self::ToolCalls => Self::ToolCall,
            Self::Dictionary | Self::Text | Self::Schema => self,
            _ => Self::Ignored,
        }
    }

    /// Returns whether a string at this place counts.
    pub(super) fn is_text(self) -> bool {
        matches!(
            self,
            Self::Text
                | Self::Dictionary
                | Self::StepResult
                | Self::Contents
                | Self::Content
                | Self::System
                | Self::Parts
                | Self::Part
        )
    }

    /// Returns whether the keys at this place count too.
    pub(super) fn counts_keys(self) -> bool {
        matches!(self, Self::Dictionary | Self::StepResult | Self::Properties)
    }
}
