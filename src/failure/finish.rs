//! The verdict on an answer that came with a 200: from its finish reason, its block reason, and whether it has content.
//!
//! | reason, of an answer without content | meaning | asked again |
//! |---|---|---|
//! | none, `STOP`, `OTHER`, `NO_IMAGE`, `MALFORMED_RESPONSE`, … | the model said nothing | yes |
//! | `MALFORMED_FUNCTION_CALL`, `UNEXPECTED_TOOL_CALL` | the model wrote a call that cannot be used | yes |
//! | `SAFETY`, `RECITATION`, `ESCALATION`, `MODEL_ARMOR`, …, a block reason | a verdict on the content | no |
//! | `MAX_TOKENS` | thinking used up the output | no, but another model may help |
//! | `MISSING_THOUGHT_SIGNATURE`, `TOO_MANY_TOOL_CALLS` | the history that was sent, or the tools in it, lead there again | no |
//! | `PUP_LIMITED_DISABLED` | the account is limited for what it did before | by another project |
//! | `CONTINUATION` | a good answer: the caller goes on with its `continuationToken` | no |

use http::StatusCode;

use super::{Failure, Kind};

impl Failure {
    /// Makes the failure of a 200 that is neither JSON nor events: what a proxy says in the API's place.
    pub(crate) fn of_unreadable_answer() -> Self {
        let message = "the answer has no content: it is neither JSON nor a stream of events";
        Self { status: Some(StatusCode::OK), ..Self::local(Kind::EmptyResponse, message) }
    }
}

/// Judges a 200. `None` for a good answer. Thoughts are not content.
pub(super) fn judge(finish: Option<&str>, block: Option<&str>, has_content: bool) -> Option<(Kind, String)> {
    if let Some(reason) = block.filter(|reason| !is_unset(reason)) {
        return Some((Kind::ContentBlocked, format!("the prompt was blocked: {reason}")));
    }
    let verdict =
        |kind, text: &str| Some((kind, format!("the answer {text}: {}", finish.unwrap_or("no finishReason"))));
    match finish.map(bare) {
        Some(
            "SAFETY"
            | "RECITATION"
            | "BLOCKLIST"
            | "PROHIBITED_CONTENT"
            | "SPII"
            | "LANGUAGE"
            | "ESCALATION"
            | "MODEL_ARMOR"
            | "IMAGE_SAFETY"
            | "IMAGE_PROHIBITED_CONTENT"
            | "IMAGE_RECITATION"
            | "content_filter",
        ) => verdict(Kind::ContentBlocked, "was stopped for its content"),
        Some("CONTINUATION") => None,
        _ if has_content => None,
        Some("MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL") => {
            verdict(Kind::EmptyMalformedFunctionCall, "has no content, only a call that cannot be used")
        }
        Some("MAX_TOKENS" | "length") => verdict(
            Kind::OutputLimit,
            "has no content: maxOutputTokens was spent, thinking included, before its first word",
        ),
        Some("MISSING_THOUGHT_SIGNATURE") => {
            verdict(Kind::InvalidRequest, "has no content: the request lacks a thought signature")
        }
        Some("TOO_MANY_TOOL_CALLS") => {
            verdict(Kind::InvalidRequest, "has no content: the model went on calling tools until it was stopped")
        }
        Some("PUP_LIMITED_DISABLED") => {
            verdict(Kind::AccountLimited, "has no content: the account is limited by the prohibited use policy")
        }
        _ => verdict(Kind::EmptyResponse, "has no content"),
    }
}

/// Returns whether a block reason is the unset one. Two spellings have been seen.
fn is_unset(reason: &str) -> bool {
    ["BLOCKED_REASON_UNSPECIFIED", "BLOCK_REASON_UNSPECIFIED"].iter().any(|unset| reason.eq_ignore_ascii_case(unset))
}

/// Returns Gemini's own reason. The OpenAI-compatible surface writes `function_call_filter: MALFORMED_FUNCTION_CALL`.
fn bare(reason: &str) -> &str {
    reason.rsplit_once(':').map_or(reason, |(_, own)| own).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(finish: &str, has_content: bool) -> Option<Kind> {
        judge(Some(finish), None, has_content).map(|(kind, _)| kind)
    }

    #[test]
    fn each_reason_has_its_meaning() {
        use Kind::{
            AccountLimited, ContentBlocked, EmptyMalformedFunctionCall, EmptyResponse, InvalidRequest, OutputLimit,
        };
        for (finish, empty, with_content) in [
            ("STOP", Some(EmptyResponse), None),
            ("OTHER", Some(EmptyResponse), None),
            ("FINISH_REASON_UNSPECIFIED", Some(EmptyResponse), None),
            ("MALFORMED_RESPONSE", Some(EmptyResponse), None),
            ("NO_IMAGE", Some(EmptyResponse), None),
            ("MALFORMED_FUNCTION_CALL", Some(EmptyMalformedFunctionCall), None),
            ("function_call_filter: MALFORMED_FUNCTION_CALL", Some(EmptyMalformedFunctionCall), None),
            ("function_call_filter:UNEXPECTED_TOOL_CALL", Some(EmptyMalformedFunctionCall), None),
            ("CONTINUATION", None, None),
            ("ESCALATION", Some(ContentBlocked), Some(ContentBlocked)),
            ("MODEL_ARMOR", Some(ContentBlocked), Some(ContentBlocked)),
            ("content_filter: PROHIBITED_CONTENT", Some(ContentBlocked), Some(ContentBlocked)),
            ("content_filter", Some(ContentBlocked), Some(ContentBlocked)),
            ("PUP_LIMITED_DISABLED", Some(AccountLimited), None),
            ("TOO_MANY_TOOL_CALLS", Some(InvalidRequest), None),
            ("MISSING_THOUGHT_SIGNATURE", Some(InvalidRequest), None),
            ("MAX_TOKENS", Some(OutputLimit), None),
            ("length", Some(OutputLimit), None),
        ] {
            assert_eq!((kind(finish, false), kind(finish, true)), (empty, with_content), "{finish}");
        }
    }

    #[test]
    fn every_block_reason_is_a_verdict_but_the_unset_one() {
        for reason in
            ["SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_SAFETY", "MODEL_ARMOR", "JAILBREAK", "safety"]
        {
            let (kind, message) = judge(None, Some(reason), false).unwrap();
            assert_eq!((kind, message.contains(reason)), (Kind::ContentBlocked, true));
        }
        for unset in ["BLOCKED_REASON_UNSPECIFIED", "BLOCK_REASON_UNSPECIFIED", "block_reason_unspecified"] {
            assert_eq!(judge(Some("STOP"), Some(unset), true), None);
            assert_eq!(judge(Some("STOP"), Some(unset), false).unwrap().0, Kind::EmptyResponse);
        }
    }

    #[test]
    fn a_limited_account_leaves_the_call_to_another_one() {
        let failure = Failure::from_answer(Some("PUP_LIMITED_DISABLED"), None, false).unwrap();
        assert!(!failure.same_key_may_help() && failure.other_key_may_help() && !failure.other_model_may_help());
        assert!(!failure.counts_against_upstream());
    }
}
