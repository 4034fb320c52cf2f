//! The token counts of an answer, in any dialect.

/// Token counts as the upstream gives them. The last ones count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) prompt: Option<u64>,
    /// The input of an interaction's first turn.
    pub(crate) initial: Option<u64>,
    pub(crate) candidates: Option<u64>,
    pub(crate) thoughts: Option<u64>,
    pub(crate) cached: Option<u64>,
    pub(crate) tool_use_prompt: Option<u64>,
    pub(crate) total: Option<u64>,
    /// The counts by modality, one row a [`TokenSide`].
    pub(super) by_modality: [Modalities; 3],
}

/// Token counts, one for each [`Modality`].
pub(crate) type Modalities = [Option<u64>; 5];

/// One of the counts in [`Tokens`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    Prompt,
    Initial,
    Candidates,
    Thoughts,
    Cached,
    ToolUsePrompt,
    Total,
}

/// The tokens that are counted by modality.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenSide {
    Input,
    Output,
    Cached,
}

/// A modality of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Modality {
    Text,
    Image,
    Audio,
    Video,
    Document,
}

impl Modality {
    fn named(name: &str) -> Option<Self> {
        // Gemini writes capitals, Interactions small letters. An unspecified one counts as text, says Google.
        let names = [
            ("TEXT", Self::Text),
            ("IMAGE", Self::Image),
            ("AUDIO", Self::Audio),
            ("VIDEO", Self::Video),
            ("DOCUMENT", Self::Document),
            ("MODALITY_UNSPECIFIED", Self::Text),
        ];
        names.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|(_, modality)| *modality)
    }
}

/// A list of counts while it is read: `[{"modality": "TEXT", "tokenCount": 4}, …]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CountList {
    counts: Modalities,
    modality: Option<Modality>,
    count: Option<u64>,
}

impl CountList {
    pub(super) fn name(&mut self, name: &str) {
        self.modality = Modality::named(name);
    }

    pub(super) fn count(&mut self, count: Option<u64>) {
        self.count = count;
    }

    /// Returns the counts of the elements so far.
    pub(super) fn counts(self) -> Modalities {
        self.counts
    }

    /// Adds the element that has been read to its end.
    pub(super) fn element_ends(&mut self) {
        if let (Some(modality), Some(count)) = (self.modality.take(), self.count.take()) {
            let place = &mut self.counts[modality as usize];
            *place = Some(place.unwrap_or(0).saturating_add(count));
        }
    }
}

impl Tokens {
    /// Returns the counts by modality.
    pub(crate) fn of(&self, side: TokenSide) -> &Modalities {
        &self.by_modality[side as usize]
    }

    /// Sets a count, and returns whether it changed.
    pub(super) fn set(&mut self, kind: TokenKind, value: Option<u64>) -> bool {
        let place = match kind {
            TokenKind::Prompt => &mut self.prompt,
            TokenKind::Initial => &mut self.initial,
            TokenKind::Candidates => &mut self.candidates,
            TokenKind::Thoughts => &mut self.thoughts,
            TokenKind::Cached => &mut self.cached,
            TokenKind::ToolUsePrompt => &mut self.tool_use_prompt,
            TokenKind::Total => &mut self.total,
        };
        std::mem::replace(place, value) != value
    }

    /// Sets the count of a modality, and returns whether it changed.
    pub(super) fn set_of(&mut self, side: TokenSide, modality: Modality, value: Option<u64>) -> bool {
        let place = &mut self.by_modality[side as usize][modality as usize];
        std::mem::replace(place, value) != value
    }

    /// Sets the counts of all modalities, and returns whether they changed.
    pub(super) fn set_all(&mut self, side: TokenSide, counts: Modalities) -> bool {
        std::mem::replace(&mut self.by_modality[side as usize], counts) != counts
    }
}
