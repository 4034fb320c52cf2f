//! The number of tokens of a request: proven bounds, exact counts and estimates.

use super::estimate::Estimate;
use crate::{
    bounded::start_of,
    request::scan::{RequestFacts, TextSink},
    tokenizer::{Count, TextCounter},
};

/// The most tokens that the upstream adds for a turn: the role, and the end mark.
const PER_TURN: u64 = 16;

/// The most tokens that the upstream adds for tools, besides their declarations. There is no published number.
const FOR_TOOLS: u64 = 2_048;

/// The most tokens that the upstream adds to any request.
const MARGIN: u64 = 64;

/// The most bytes of text that are counted inline: half a millisecond's work at a hundred million bytes a second.
pub(super) const MAX_INLINE: u64 = 64 * 1024;

/// A sink of texts that sums up their lengths, and the bounds that follow from them.
#[derive(Debug, Default)]
pub(super) struct Lengths {
    pub(super) bytes: u64,
    pub(super) count: Count,
    /// The estimate, made in the same walk if there is no counter.
    pub(super) sample: Option<Sample>,
}

/// A sink that sums up the lengths of texts, and counts them in the same walk unless they are too long for that.
pub(super) struct Counted {
    pub(super) lengths: Lengths,
    pub(super) counter: Option<Box<dyn TextCounter>>,
}

impl Counted {
    /// Returns the count, if it was made.
    pub(super) fn count(&self) -> Option<Count> {
        self.counter.as_ref().map(|counter| narrowed(counter.count(), self.lengths.count))
    }
}

impl TextSink for Counted {
    fn text(&mut self, text: &str) -> bool {
        self.lengths.text(text);
        match &mut self.counter {
            Some(counter) if self.lengths.bytes <= MAX_INLINE => counter.push(text),
            counter => *counter = None,
        }
        true
    }

    fn needs_texts(&self) -> bool {
        self.counter.is_some() || self.lengths.needs_texts()
    }

    fn length(&mut self, bytes: usize) {
        self.lengths.length(bytes);
    }
}

/// Returns a count narrowed by the bounds that are known already.
pub(super) fn narrowed(counted: Count, known: Count) -> Count {
    let both = Count::between(counted.at_least.max(known.at_least), counted.at_most.min(known.at_most));
    // The bounds by length hold for Gemini's vocabulary only, and the counter may have another.
    if both.at_least > both.at_most { counted } else { both }
}

impl TextSink for Lengths {
    fn text(&mut self, text: &str) -> bool {
        if let Some(sample) = &mut self.sample {
            sample.text(text);
        }
        self.length(text.len());
        true
    }

    fn needs_texts(&self) -> bool {
        self.sample.is_some()
    }

    fn length(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.count += Count::by_bytes(bytes);
    }
}

/// A sink that estimates the tokens of all texts from the first of them.
#[derive(Debug, Default)]
pub(super) struct Sample {
    sampled: usize,
    estimate: Estimate,
}

impl Sample {
    /// The bytes that are enough to estimate the rest by.
    const ENOUGH: usize = 64 * 1024;

    /// Estimates the tokens of `bytes` bytes of text, of which the sample is the beginning.
    pub(super) fn scaled_to(&self, bytes: u64) -> u64 {
        let sampled = self.sampled.max(1) as u128;
        u64::try_from(u128::from(self.estimate.tokens()) * u128::from(bytes) / sampled).unwrap_or(u64::MAX)
    }
}

impl TextSink for Sample {
    fn text(&mut self, text: &str) -> bool {
        let start = start_of(text, Self::ENOUGH - self.sampled);
        self.estimate.push(start);
        self.sampled += start.len();
        start.len() == text.len() && self.sampled < Self::ENOUGH
    }
}

/// A sink that counts texts until it is decided on which side of a limit they are.
pub(super) struct Counting {
    counter: Box<dyn TextCounter>,
    /// The limit at which to stop, and the most tokens that are not text. `None`: all texts are counted.
    until: Option<(u64, u64)>,
    /// The bytes of text still to come, which are at most as many tokens.
    left: u64,
}

impl Counting {
    /// Creates a counter that counts all of `bytes` bytes of text.
    pub(super) fn all(counter: Box<dyn TextCounter>, bytes: u64) -> Self {
        Self { counter, until: None, left: bytes }
    }

    /// Stops the count as soon as it is known whether the texts and `besides` more tokens fit into the limit.
    pub(super) fn until(self, limit: u64, besides: u64) -> Self {
        Self { until: Some((limit, besides)), ..self }
    }

    /// Returns the bounds of the whole, counted or not.
    pub(super) fn total(&self) -> Count {
        let mut total = self.counter.count();
        total += Count::between(0, self.left);
        total
    }
}

impl TextSink for Counting {
    fn text(&mut self, text: &str) -> bool {
        self.left = self.left.saturating_sub(text.len() as u64);
        self.counter.push(text);
        let Some((limit, besides)) = self.until else { return true };
        let total = self.total();
        total.at_least <= limit && total.at_most.saturating_add(besides) > limit
    }
}

/// Returns the most tokens that the upstream adds to the texts, for turns, tools and media. `None`: some media cannot
/// be bounded. Cached content is left out, because it was counted when it was made.
pub(super) fn besides(findings: &RequestFacts) -> Option<u64> {
    if findings.media.uncounted > 0 {
        return None;
    }
    let tools = if findings.has_tools { FOR_TOOLS } else { 0 };
    let turns = findings.turns.saturating_mul(PER_TURN);
    Some(MARGIN.saturating_add(tools).saturating_add(turns).saturating_add(findings.media.at_most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Chars(u64);

    impl TextCounter for Chars {
        fn push(&mut self, text: &str) {
            self.0 += text.chars().count() as u64;
        }

        fn count(&self) -> Count {
            Count::exactly(self.0)
        }
    }

    #[test]
    fn counting_stops_as_soon_as_it_is_decided() {
        // 10 texts of 100 bytes and 50 tokens.
        let texts = vec!["é".repeat(50); 10];
        for (limit, besides, counted, at_least) in
            [(30, 0, 1, 50), (120, 0, 3, 150), (950, 0, 1, 50), (950, 100, 3, 150), (500, 1, 10, 500)]
        {
            let mut counting = Counting::all(Box::<Chars>::default(), 1000).until(limit, besides);
            let went_on = texts.iter().take_while(|text| counting.text(text)).count();
            assert_eq!(((went_on + 1).min(10), counting.total().at_least), (counted, at_least), "{limit} {besides}");
        }
        let mut counting = Counting::all(Box::<Chars>::default(), 1000);
        assert!(texts.iter().all(|text| counting.text(text)));
        assert_eq!(counting.total(), Count::exactly(500));
    }

    #[test]
    fn a_sample_of_the_beginning_is_enough() {
        let mut sample = Sample::default();
        assert_eq!((sample.scaled_to(0), sample.scaled_to(1000)), (0, 0));
        assert!(sample.text(&"word ".repeat(1_000)));
        assert!((1_100..1_300).contains(&sample.scaled_to(5_000)), "{}", sample.scaled_to(5_000));
        // Cut in the middle of a character.
        assert!(!sample.text(&"é".repeat(100_000)));
        assert_eq!(sample.sampled, Sample::ENOUGH);
    }

    #[test]
    fn lengths_prove_bounds() {
        let mut lengths = Lengths::default();
        assert!(lengths.text(&"a".repeat(480)) && lengths.text("x"));
        assert_eq!((lengths.bytes, lengths.count), (481, Count::between(11, 481)));
    }
}
