//! The models that the emulator knows.

use serde::Serialize;

/// A model: its name, its limits, and what it can do.
///
/// ```
/// use tower_gemini::emulator::Model;
///
/// let small = Model::new("gemini-2.5-pro").input_token_limit(131_072);
/// let alias = Model::new("gemini-flash-latest").resolves_to("gemini-3.5-flash");
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Model {
    pub(super) name: String,
    pub(super) resolved: String,
    pub(super) input_token_limit: u64,
    pub(super) output_token_limit: u64,
    pub(super) embeds: bool,
}

impl Model {
    /// A model that generates: 1,048,576 tokens in, 65,536 out.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self { resolved: name.clone(), name, input_token_limit: 1_048_576, output_token_limit: 65_536, embeds: false }
    }

    /// A model that embeds: 2,048 tokens in, 3,072 numbers out.
    pub fn embedding(name: impl Into<String>) -> Self {
        Self { input_token_limit: 2_048, output_token_limit: 1, embeds: true, ..Self::new(name) }
    }

    /// More input tokens than that are refused with 400.
    pub fn input_token_limit(mut self, tokens: u64) -> Self {
        self.input_token_limit = tokens;
        self
    }

    /// As the list of models tells it; nothing is cut to it.
    pub fn output_token_limit(mut self, tokens: u64) -> Self {
        self.output_token_limit = tokens;
        self
    }

    /// What the name stands for: the `modelVersion` of answers, and the model whose quota is spent.
    pub fn resolves_to(mut self, name: impl Into<String>) -> Self {
        self.resolved = name.into();
        self
    }

    /// The models of an emulator that was given none.
    pub(super) fn defaults() -> Vec<Self> {
        let generating = [
            "gemini-2.5-pro",
            "gemini-2.5-flash",
            "gemini-2.5-flash-lite",
            "gemini-3-flash-preview",
            "gemini-3.1-pro-preview",
            "gemini-3.1-flash-lite",
            "gemini-3.5-flash",
            "gemini-3.8-flash",
        ];
        let mut models: Vec<Self> = generating.into_iter().map(Self::new).collect();
        models.push(Self::new("gemini-flash-latest").resolves_to("gemini-3.8-flash"));
        models.push(Self::new("gemini-flash-lite-latest").resolves_to("gemini-3.1-flash-lite"));
        models.push(Self::embedding("gemini-embedding-001"));
        models
    }

    pub(super) fn supports(&self, method: &str) -> bool {
        self.methods().contains(&method)
    }

    /// As an entry of the Developer API's list.
    pub(super) fn listed(&self) -> ListedModel<'_> {
        ListedModel {
            name: format!("models/{}", self.name),
            version: "001",
            display_name: display_name(&self.name),
            description: "An emulated model",
            input_token_limit: self.input_token_limit,
            output_token_limit: self.output_token_limit,
            supported_generation_methods: self.methods(),
            sampling: (!self.embeds).then_some(Sampling {
                temperature: 1,
                top_p: 0.95,
                top_k: 64,
                max_temperature: 2,
                thinking: true,
            }),
        }
    }

    fn methods(&self) -> &'static [&'static str] {
        match self.embeds {
            true => &["embedContent", "countTextTokens", "countTokens", "asyncBatchEmbedContent", "batchEmbedContents"],
            false => &["generateContent", "countTokens", "createCachedContent", "batchGenerateContent"],
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListedModel<'a> {
    name: String,
    version: &'static str,
    display_name: String,
    description: &'static str,
    input_token_limit: u64,
    output_token_limit: u64,
    supported_generation_methods: &'a [&'a str],
    #[serde(flatten)]
    sampling: Option<Sampling>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sampling {
    temperature: u32,
    top_p: f64,
    top_k: u32,
    max_temperature: u32,
    thinking: bool,
}

/// `gemini-2.5-flash` is "Gemini 2.5 Flash".
fn display_name(name: &str) -> String {
    let mut words = name.split('-').map(|word| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect::<String>()).unwrap_or_default()
    });
    let first = words.next().unwrap_or_default();
    words.fold(first, |text, word| text + " " + &word)
}
