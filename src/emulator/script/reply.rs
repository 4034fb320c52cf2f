//! The text of generated answers.

use crate::emulator::{seeded::seeded, wire::prompt::Prompt};

/// The text that the emulator answers to a prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// An echo: "You said: " and the first 1,000 characters of the last turn.
    #[default]
    Echo,
    /// That number of words, chosen by the emulator's seed and the prompt: the same prompt always gets the same words.
    Words(usize),
    /// That text, always.
    Text(String),
}

const ECHO_CHARACTERS: usize = 1_000;
const WORDS: [&str; 24] = [
    "amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "harbor", "island", "juniper", "kestrel", "lagoon",
    "meadow", "nectar", "orchid", "pebble", "quartz", "river", "saffron", "thicket", "umber", "valley", "willow",
    "zephyr",
];

impl Reply {
    /// Returns the text that answers a prompt.
    pub(crate) fn text(&self, prompt: &Prompt, seed: u64) -> String {
        match self {
            Self::Echo => {
                let last_turn = prompt.last_turn();
                let end = last_turn.char_indices().nth(ECHO_CHARACTERS).map_or(last_turn.len(), |(at, _)| at);
                format!("You said: {}", &last_turn[..end])
            }
            Self::Words(count) => {
                let mut rng = seeded(seed, &prompt.text);
                let words: Vec<&str> = (0..*count).map(|_| WORDS[rng.usize(..WORDS.len())]).collect();
                words.join(" ")
            }
            Self::Text(text) => text.clone(),
        }
    }
}
