//! The models that the emulator offers.

use crate::emulator::wire::lists::{ListedModel, Sampling};

/// A model of the emulator: its name, its limits, and its methods.
///
/// ```
/// use tower_gemini::emulator::EmulatedModel;
///
/// let small = EmulatedModel::new("gemini-2.5-pro").input_token_limit(131_072);
/// let alias = EmulatedModel::new("gemini-flash-latest").resolves_to("gemini-3.5-flash");
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct EmulatedModel {
    pub(crate) name: String,
    /// The model whose version answers carry and whose quota is spent: the same name, or the model that an alias
    /// resolves to.
    pub(crate) resolved: String,
    pub(crate) input_token_limit: u64,
    pub(crate) output_token_limit: u64,
    pub(crate) embeds: bool,
}

impl EmulatedModel {
    /// Makes a model that generates, with limits of 1,048,576 input tokens and 65,536 output tokens.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self { resolved: name.clone(), name, input_token_limit: 1_048_576, output_token_limit: 65_536, embeds: false }
    }

    /// Makes a model that embeds, with a limit of 2,048 input tokens and vectors of 3,072 numbers.
    pub fn embedding(name: impl Into<String>) -> Self {
        Self { input_token_limit: 2_048, output_token_limit: 1, embeds: true, ..Self::new(name) }
    }

    /// Sets the largest number of input tokens; requests with more are refused with 400.
    pub fn input_token_limit(mut self, tokens: u64) -> Self {
        self.input_token_limit = tokens;
        self
    }

    /// Sets the number of output tokens that the list of models shows. Answers are not cut to it.
    pub fn output_token_limit(mut self, tokens: u64) -> Self {
        self.output_token_limit = tokens;
        self
    }

    /// Sets the model that this name is an alias of: answers carry it as `modelVersion`, and its quota is spent.
    pub fn resolves_to(mut self, name: impl Into<String>) -> Self {
        self.resolved = name.into();
        self
    }

    /// Returns the models of an emulator that was configured without any.
    pub(crate) fn defaults() -> Vec<Self> {
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

    /// Returns whether the model has a method, such as `countTokens`.
    pub(crate) fn supports(&self, method: &str) -> bool {
        self.methods().contains(&method)
    }

    /// Returns the model's entry in the Developer API's list.
    pub(crate) fn listed(&self) -> ListedModel {
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

/// Writes a name for people: `gemini-2.5-flash` becomes "Gemini 2.5 Flash".
fn display_name(name: &str) -> String {
    let mut words = name.split('-').map(|word| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect::<String>()).unwrap_or_default()
    });
    let first = words.next().unwrap_or_default();
    words.fold(first, |text, word| text + " " + &word)
}
