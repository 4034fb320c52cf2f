//! Advice about failures: whose fault each is, and what to do.

use tower_gemini::failure::Kind;

use crate::show::failures::FailureRecord;

/// By the kind's name, in the order of its faults. A test holds it against the list of all kinds.
const SENTENCES: &[(&str, &str)] = &[
    // --- caller ---
    ("invalid_request", "Tell the caller: the request itself is wrong, and the answer that it got says where."),
    ("context_too_long", "Send less, or name a model with a larger context under [fallback.larger]."),
    ("larger_than_quota", "Send less in one call, or ask for more input tokens a minute for this project."),
    ("payload_too_large", "Send less, or upload large media with the Files API and name them in the prompt."),
    ("content_blocked", "Nothing: the API judges the content, and says the same each time."),
    ("model_not_found", "Tell the caller: correct the model's name; GET /v1beta/models lists them."),
    ("path_not_found", "Tell the caller: the base URL or the method is wrong; a path is /v1beta/models/MODEL:METHOD."),
    ("resource_not_accessible", "Upload the file through this relay, or set default_project to the one that has it."),
    ("location_unsupported", "Run the relay in a country that the API serves."),
    ("ip_blocked", "Run the relay at another network address, or ask Google why this one is blocked."),
    ("auth_conflict", "Tell the caller: send one credential, not two."),
    ("unimplemented", "Tell the caller: this model lacks the method or feature; ask another."),
    ("conflict", "Tell the caller: what the request makes exists already."),
    ("output_limit", "Tell the caller: raise maxOutputTokens; thinking is paid from it, too."),
    // --- key ---
    (
        "auth_key_invalid",
        "Replace the key: it is wrong or has expired. Keys are made at https://aistudio.google.com/apikey.",
    ),
    ("auth_unauthenticated", "Replace the key: what is sent is no API key."),
    ("permission_denied", "Give the key's project access to this model, or take the key out."),
    ("key_restricted", "Lift the key's restrictions to APIs, sites or addresses in Google Cloud's console."),
    ("key_leaked", "Revoke the key and make a new one: it was reported as leaked, and others may be using it."),
    ("key_suspended", "Appeal in Google Cloud's console, and take the key out until then."),
    ("account_banned", "Verify the account with Google, and take its keys out until then."),
    ("consumer_invalid", "Correct the key's project: the one that is to pay does not exist."),
    ("service_disabled", "Enable the Generative Language API in the key's project."),
    ("billing_required", "Pay: billing is off, credits are used up, or the spending cap is reached."),
    // --- quota ---
    ("quota_minute", "Nothing, if it passes; else add a key of another project, or set rpm under [limits]."),
    ("quota_tokens_minute", "Nothing, if it passes; else add a key of another project, or set tpm under [limits]."),
    ("quota_day", "Add a key of another project, or a model under [fallback]; it is back at midnight Pacific."),
    ("quota_zero", "Turn billing on for the project, or ask another model: this one it never gets."),
    ("quota_unknown", "Nothing, if it passes; else add a key of another project."),
    // --- model ---
    ("overloaded", "Wait: the model is busy for everybody; a model under [fallback] would answer meanwhile."),
    ("capacity", "Wait: the shared capacity is used up; a model under [fallback] would answer meanwhile."),
    // --- service ---
    ("server_error", "Wait; if only one prompt gets it, shorten or change that prompt."),
    ("bad_gateway", "Wait; if it lasts, look at whatever stands between the relay and the API."),
    ("unavailable", "Wait; if it lasts, look at the API's own status page."),
    ("deadline_exceeded", "Ask for less in one call, or stream: the API took too long."),
    ("cancelled", "Wait; the API broke the call off itself."),
    ("empty_response", "Wait; if only one prompt gets it, change that prompt."),
    ("empty_malformed_function_call", "Simplify the functions that the caller declares; the model garbled its call."),
    // --- transport ---
    ("connect", "Look at the relay's network: DNS, firewall, proxy, and `upstream` in its settings."),
    ("not_sent", "Nothing: the request never left, and may be sent again."),
    ("reset", "Look at the network between the relay and the API, if it lasts."),
    ("attempt_timeout", "Stream, ask for less, or raise attempt under [timeout]."),
    ("first_content_timeout", "Ask for less thinking, or raise first_event under [timeout]."),
    ("idle_timeout", "Look at the network, or raise idle under [timeout]."),
    ("stream_cut", "Tell the caller to ask again: the stream broke off after its first words."),
    ("transport", "Look at the network between the relay and the API."),
    // --- local ---
    ("total_deadline", "Look at what it waited for (below: keys, limits, breakers), or raise total under [timeout]."),
    ("circuit_open", "Wait: the model is down, and is tried again by and by; a model under [fallback] would answer."),
    (
        "rate_limited",
        "Add a key of another project, raise the limit under [limits], or let calls wait longer: max_wait.",
    ),
    ("keys_exhausted", "Add a key of another project: all that there are have used up their quota."),
    ("keys_disabled", "Replace the keys: the API refuses all of them."),
    ("body_too_large", "Send less, or raise max_body."),
    ("bad_request", "Tell the caller: the request cannot be sent as it is."),
    ("request_body", "Nothing: the caller went away, or its network did, while it sent the request."),
];

/// Returns what to do about a kind of failure.
pub(crate) fn advice(kind: Kind) -> &'static str {
    let known = SENTENCES.iter().find(|(name, _)| *name == kind.as_str());
    known.map_or("Nothing is known of this kind: look at its message.", |(_, sentence)| sentence)
}

/// The name of a failure's kind, whose fault it is, and what to do about it.
pub(crate) struct Advice {
    pub(crate) kind: &'static str,
    pub(crate) fault: &'static str,
    pub(crate) what_to_do: &'static str,
}

impl Advice {
    pub(crate) fn of(record: &FailureRecord) -> Self {
        match record.at_admission {
            true => Self::at_admission(record.code),
            false => Self { kind: record.kind.as_str(), fault: record.fault.as_str(), what_to_do: advice(record.kind) },
        }
    }

    /// Returns the advice about a refusal by the relay's own admission, by its code.
    fn at_admission(code: u16) -> Self {
        let (kind, fault, what_to_do) = match code {
            408 => (
                "slow_request",
                "caller",
                "Nothing, if it is rare: the request's body came too slowly. Else raise body_timeout.",
            ),
            429 => (
                "caller_full",
                "caller",
                "Tell the caller to send fewer calls at a time, or raise max_concurrent_per_caller.",
            ),
            501 => ("live_api", "caller", "Tell the caller: the Live API needs a direct connection to Google."),
            _ => ("relay_full", "local", "Raise max_concurrent or max_queued, or run another relay beside this one."),
        };
        Self { kind, fault, what_to_do }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_kind_of_failure_has_one_sentence_of_what_to_do() {
        let table = include_str!("../../../../src/failure/kind.rs");
        let named: BTreeSet<&str> = table.split("row(\"").skip(1).filter_map(|row| row.split('"').next()).collect();
        assert!(named.len() > 50, "{named:?}");
        let known: Vec<&str> = SENTENCES.iter().map(|(name, _)| *name).collect();
        assert_eq!(known.iter().copied().collect::<BTreeSet<_>>(), named);
        assert_eq!(known.len(), named.len(), "a kind is there twice");
        let sentence = advice(Kind::KeyLeaked);
        assert!(sentence.starts_with("Revoke") && sentence.ends_with('.'), "{sentence}");
    }
}
