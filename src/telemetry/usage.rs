//! The tokens of an answer, as attributes and counters have them. Pure.

#[cfg(feature = "metrics")]
use crate::context::ByModality;
use crate::context::UsageReport;

/// Counts all input tokens. The results of tools are billed as input too.
pub(super) fn input_tokens(usage: &UsageReport) -> Option<u64> {
    usage.prompt_tokens.map(|prompt| prompt.saturating_add(usage.tool_use_prompt_tokens.unwrap_or(0)))
}

/// Counts all output tokens, thoughts included, because they are billed. Gemini's own surfaces count thoughts
/// separately and the OpenAI-compatible one does not; the total is right for both.
pub(super) fn output_tokens(usage: &UsageReport) -> Option<u64> {
    let by_total = input_tokens(usage).zip(usage.total_tokens).and_then(|(input, total)| total.checked_sub(input));
    let by_parts = || match (usage.candidates_tokens, usage.thoughts_tokens) {
        (None, None) => None,
        (candidates, thoughts) => Some(candidates.unwrap_or(0).saturating_add(thoughts.unwrap_or(0))),
    };
    by_total.or_else(by_parts)
}

/// Returns whether an answer that was fetched is that of an interaction that goes on, so that its counts may grow.
pub(super) fn is_under_way(usage: &UsageReport) -> bool {
    matches!(usage.finish_reason.as_deref(), Some("in_progress" | "queued"))
}

/// Splits a count by modality, in the values of `gen_ai.token.modality`. The parts add up to the count: tokens of which
/// the upstream does not say the modality are `unknown`, and so are the 0 tokens of an answer that has no count.
#[cfg(feature = "metrics")]
pub(super) fn by_modality(count: Option<u64>, known: &ByModality) -> impl Iterator<Item = (&'static str, u64)> {
    let known = [
        ("text", known.text),
        ("image", known.image),
        ("audio", known.audio),
        ("video", known.video),
        ("document", known.document),
    ];
    let reported = known.iter().filter_map(|(_, tokens)| *tokens).fold(0, u64::saturating_add);
    let mut left = count.unwrap_or(reported);
    let mut parts = [("unknown", 0); 6];
    for (part, (modality, tokens)) in parts.iter_mut().zip(known) {
        // An upstream whose parts are more than their sum is believed in the sum.
        let tokens = tokens.unwrap_or(0).min(left);
        left -= tokens;
        *part = (modality, tokens);
    }
    parts[5].1 = left;
    let is_empty = parts.iter().all(|(_, tokens)| *tokens == 0);
    parts.into_iter().filter(move |(modality, tokens)| *tokens > 0 || (is_empty && *modality == "unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(prompt: u64, tools: Option<u64>, parts: [Option<u64>; 2], total: Option<u64>) -> UsageReport {
        let [candidates_tokens, thoughts_tokens] = parts;
        let (prompt_tokens, tool_use_prompt_tokens, total_tokens) = (Some(prompt), tools, total);
        UsageReport {
            prompt_tokens,
            tool_use_prompt_tokens,
            candidates_tokens,
            thoughts_tokens,
            total_tokens,
            ..UsageReport::default()
        }
    }

    #[test]
    fn tokens_are_what_is_billed() {
        // Gemini's own surfaces count thoughts and tools apart, the OpenAI-compatible one counts thoughts in.
        for (usage, input, output) in [
            (usage(10, None, [Some(5), Some(7)], Some(22)), 10, Some(12)),
            (usage(10, Some(3), [Some(5), Some(7)], Some(25)), 13, Some(12)),
            (usage(10, None, [Some(12), Some(7)], Some(22)), 10, Some(12)),
            (usage(10, None, [Some(5), None], None), 10, Some(5)),
            (usage(10, None, [None, Some(7)], None), 10, Some(7)),
            (usage(10, None, [None, None], None), 10, None),
            (usage(10, None, [Some(5), None], Some(9)), 10, Some(5)),
        ] {
            assert_eq!((input_tokens(&usage), output_tokens(&usage)), (Some(input), output), "{usage:?}");
        }
        assert_eq!(output_tokens(&UsageReport::default()), None);
    }

    #[cfg(feature = "metrics")]
    #[test]
    fn the_parts_of_a_count_add_up_to_it() {
        let known = ByModality { text: Some(100), image: Some(258), video: Some(0), ..ByModality::default() };
        for (count, known, parts) in [
            (Some(358), known, &[("text", 100), ("image", 258)][..]),
            (Some(400), known, &[("text", 100), ("image", 258), ("unknown", 42)]),
            (Some(300), known, &[("text", 100), ("image", 200)]),
            (None, known, &[("text", 100), ("image", 258)]),
            (Some(7), ByModality::default(), &[("unknown", 7)]),
            (None, ByModality::default(), &[("unknown", 0)]),
            (Some(0), known, &[("unknown", 0)]),
        ] {
            assert_eq!(by_modality(count, &known).collect::<Vec<_>>(), parts, "{count:?}");
        }
    }
}
