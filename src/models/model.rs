//! One model: its name, its limits, and its methods.

use std::{fmt, sync::Arc};

use crate::call::Operation;

/// A model, as far as it is known. `None` means not known, and is never a reason to refuse anything.
///
/// ```
/// use tower_gemini::{call::Operation, models::{Methods, Model}};
///
/// let model = Model::new("gemini-2.5-pro")
///     .with_input_limit(1_048_576)
///     .with_output_limit(65_536)
///     .with_methods(Methods::of(["generateContent", "countTokens"]));
/// assert_eq!(model.input_limit(), Some(1_048_576));
/// assert!(model.methods().unwrap().contains(Operation::GenerateContent));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    name: Arc<str>,
    input_limit: Option<u64>,
    output_limit: Option<u64>,
    shares_limit: bool,
    methods: Option<Methods>,
    source: Source,
}

/// The source of what is known of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// The list that this crate was built with, of [`ModelTable::SEED_DATE`](super::ModelTable::SEED_DATE).
    Seed,
    /// The upstream's list, as it was last read to its end.
    Listed,
    /// The program, which [set it](super::ModelTable::insert) by hand.
    Set,
    /// A refusal of the upstream.
    Learned,
}

impl Model {
    /// Makes a model of which only the name is known: bare (`gemini-2.5-pro`), or behind `models/`, which is left out.
    pub fn new(name: impl AsRef<str>) -> Self {
        let name = bare(name.as_ref()).into();
        Self { name, input_limit: None, output_limit: None, shares_limit: false, methods: None, source: Source::Set }
    }

    /// Sets the most input tokens.
    #[must_use]
    pub fn with_input_limit(mut self, tokens: u64) -> Self {
        self.input_limit = Some(tokens);
        self
    }

    /// Sets the most output tokens.
    #[must_use]
    pub fn with_output_limit(mut self, tokens: u64) -> Self {
        self.output_limit = Some(tokens);
        self
    }

    /// Makes the input limit one budget for input and output together.
    #[must_use]
    pub fn with_shared_limit(mut self) -> Self {
        self.shares_limit = true;
        self
    }

    /// Sets the methods.
    #[must_use]
    pub fn with_methods(mut self, methods: Methods) -> Self {
        self.methods = Some(methods);
        self
    }

    /// Returns the bare name: `gemini-2.5-pro`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the most input tokens of one request, as listed. The upstream may really take fewer:
    /// [`effective_input_limit`](super::ModelTable::effective_input_limit).
    pub fn input_limit(&self) -> Option<u64> {
        self.input_limit
    }

    /// Returns the most output tokens of one answer, as listed.
    pub fn output_limit(&self) -> Option<u64> {
        self.output_limit
    }

    /// Returns whether the input limit holds for input and output together, so that `maxOutputTokens` is a total
    /// budget.
    ///
    /// The upstream's list does not say so: it is known for the models of the built-in list and for those set by hand.
    pub fn shares_limit(&self) -> bool {
        self.shares_limit
    }

    /// Returns the methods, as listed.
    pub fn methods(&self) -> Option<Methods> {
        self.methods
    }

    /// Returns the source: [`Source::Set`] for a model made with [`Model::new`], and never [`Source::Learned`].
    pub fn source(&self) -> Source {
        self.source
    }

    pub(super) fn with_source(mut self, source: Source) -> Self {
        self.source = source;
        self
    }

    pub(crate) fn shared_name(&self) -> Arc<str> {
        self.name.clone()
    }

    /// Returns the methods that the model has, if the upstream certainly refuses this operation for it.
    ///
    /// Only generating and embedding are judged. Google's lists leave out more than they name: `batchEmbedContents`
    /// goes with `embedContent`, `countTokens` is served where it is not listed, and `predict` has several meanings.
    pub(super) fn refuses(&self, operation: Operation) -> Option<Methods> {
        let methods = self.methods.filter(|methods| !methods.is_empty())?;
        let serves = match operation {
            Operation::GenerateContent => methods.contains(Operation::GenerateContent),
            Operation::EmbedContent | Operation::BatchEmbedContents => {
                methods.contains(Operation::EmbedContent) || methods.contains(Operation::BatchEmbedContents)
            }
            // No list names it: only a model that does nothing but embed and count is certain not to have it.
            Operation::CreateInteraction => methods.does_more_than_embed(),
            _ => true,
        };
        (!serves).then_some(methods)
    }
}

/// Returns the name without `models/` before it.
pub(super) fn bare(name: &str) -> &str {
    name.strip_prefix("models/").unwrap_or(name)
}

/// A small set of methods, by the names of `supportedGenerationMethods`.
///
/// Of the methods whose names this crate does not know, it keeps only that there are some.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Methods(u16);

/// The known names, a bit each. The last bit stands for all others.
const NAMES: [&str; 14] = [
    "generateContent",
    "countTokens",
    "embedContent",
    "batchEmbedContents",
    "predict",
    "computeTokens",
    "bidiGenerateContent",
    "predictLongRunning",
    "batchGenerateContent",
    "asyncBatchEmbedContent",
    "createCachedContent",
    "countTextTokens",
    "generateAnswer",
    "createTunedModel",
];

const OTHERS: u16 = 1 << 15;

impl Methods {
    /// Makes a set of these names. `streamGenerateContent` is taken for `generateContent`: Google lists only the
    /// latter.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self(names.into_iter().fold(0, |bits, name| bits | bit(name)))
    }

    /// Returns whether the set has the method of an operation. False for operations that have no model.
    pub fn contains(self, operation: Operation) -> bool {
        let name = match operation {
            Operation::GenerateContent => "generateContent",
            Operation::EmbedContent => "embedContent",
            Operation::BatchEmbedContents => "batchEmbedContents",
            Operation::Predict => "predict",
            Operation::CountTokens => "countTokens",
            Operation::ComputeTokens => "computeTokens",
            _ => return false,
        };
        self.0 & bit(name) != 0
    }

    /// Returns whether the set has methods whose names this crate does not know.
    pub fn has_others(self) -> bool {
        self.0 & OTHERS != 0
    }

    /// Returns whether the set has a method that neither embeds nor counts.
    fn does_more_than_embed(self) -> bool {
        let embeds = ["embedContent", "batchEmbedContents", "asyncBatchEmbedContent"];
        let counts = ["countTokens", "countTextTokens", "computeTokens"];
        self.0 & !Self::of(embeds.into_iter().chain(counts)).0 != 0
    }

    /// Returns whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the known names in the set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().filter(move |name| self.0 & bit(name) != 0)
    }
}

fn bit(name: &str) -> u16 {
    let name = if name == "streamGenerateContent" { "generateContent" } else { name };
    NAMES.iter().position(|known| *known == name).map_or(OTHERS, |at| 1 << at)
}

impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let others = self.has_others().then_some("others");
        for (at, name) in self.names().chain(others).enumerate() {
            write!(f, "{}{name}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Methods({self})")
    }
}
