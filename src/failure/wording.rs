//! The wordings of errors, for those whose code and reason do not say what they mean.
//!
//! A quarter of all real errors carry no `details`: their meaning is in one English sentence. The sentences are few and
//! old, and each has a core that has not changed in years. So they are data here, most telling first, and an unknown
//! sentence leaves the verdict to the status.

use super::{Fault, Kind};

/// A kind, and its wordings in lower case. All parts of a wording have to be in the message.
type Phrases = (Kind, &'static [&'static [&'static str]]);

/// The wordings of any 4xx but a 429.
static CLIENT: &[Phrases] = &[
    (Kind::AuthConflict, &[&["multiple authentication credentials"], &["both api key and", "access token"]]),
    (Kind::KeyLeaked, &[&["reported as leaked"], &["key", "has been leaked"]]),
    (
        Kind::AuthKeyInvalid,
        &[
            &["api key not valid"],
            &["api key not found"],
            &["api key expired"],
            &["api key is expired"],
            &["api key has expired"],
            &["api key is invalid"],
            &["api key is not valid"],
            &["renew the api key"],
            &["pass a valid api key"],
            &["invalid api key"],
            &["invalid_api_key"],
            &["api_key_invalid"],
            &["incorrect api key"],
        ],
    ),
    (Kind::KeySuspended, &[&["has been suspended"], &["is suspended"], &["suspended", "consumer"]]),
    (
        Kind::BillingRequired,
        &[
            &["enable billing"],
            &["billing to be enabled"],
            &["billing is not enabled"],
            &["billing not enabled"],
            &["billing has not been enabled"],
            &["billing is disabled"],
            &["billing account"],
            &["billed users"],
            &["prepayment credits"],
            &["prepaid credits"],
            &["spending cap"],
            &["spend cap"],
            &["monthly spend"],
            &["monthly budget"],
            &["credits", "depleted"],
            &["credits", "exhausted"],
            &["out of credit"],
            &["credit balance"],
            &["payment required"],
            &["insufficient", "credits"],
            &["insufficient balance"],
            &["insufficient_quota"],
            &["insufficient_user_quota"],
        ],
    ),
    (
        Kind::AccountBanned,
        &[
            &["violation of terms"],
            &["violating", "terms of service"],
            &["has been denied access"],
            &["verify your account"],
            &["account", "has been disabled"],
            &["account", "banned"],
        ],
    ),
    (
        Kind::LocationUnsupported,
        &[
            &["user location is not supported"],
            &["location is not supported"],
            &["not available in your country"],
            &["not available in your location"],
            &["not currently available in your location"],
            &["not available in your region"],
            &["not supported in your country"],
            &["not supported in your region"],
            &["country, region, or territory not supported"],
        ],
    ),
    (
        Kind::ServiceDisabled,
        &[
            &["has not been used in project"],
            &["it is disabled", "enable it"],
            &["api is not enabled"],
            &["api", "has not been enabled"],
            &["is not enabled on project"],
            &["is not enabled for the project"],
        ],
    ),
    (
        Kind::KeyRestricted,
        &[
            &["requests to this api", "blocked"],
            &["requests from referer"],
            &["requests from this", "application", "blocked"],
            &["ip address restriction"],
            &["violates this restriction"],
            &["api key", "restrict"],
        ],
    ),
    (
        Kind::ConsumerInvalid,
        &[
            &["permission denied on resource project"],
            &["project", "not found or deleted"],
            &["project", "has been deleted"],
        ],
    ),
    (
        Kind::AuthUnauthenticated,
        &[
            &["unregistered callers"],
            &["missing a valid api key"],
            &["missing required authentication"],
            &["missing or invalid authorization"],
            &["invalid authentication credentials"],
            &["valid authentication credential"],
            &["api keys are not supported by this api"],
            &["didn't provide an api key"],
            &["you must provide an api key"],
            &["api key is missing"],
        ],
    ),
    (
        Kind::ResourceNotAccessible,
        &[
            &["access the file"],
            &["access file"],
            &["access the corpus"],
            &["access tuned model"],
            &["access the tuned model"],
            &["cachedcontent", "not found"],
            &["cachedcontent", "permission"],
            &["cached content", "not found"],
            &["cached content", "permission"],
            &["files/", "not found"],
            &["files/", "not exist"],
            &["tunedmodels/", "permission"],
            &["filesearchstore", "not found"],
            &["filesearchstore", "permission"],
        ],
    ),
    (
        Kind::PayloadTooLarge,
        &[
            &["payload size exceeds"],
            &["payload too large"],
            &["request entity too large"],
            &["content too large"],
            &["request body size"],
            &["request body", "too large"],
            &["request size", "bytes"],
            &["request is too large"],
            &["bytes are too large"],
            &["exceeds", "limit", "bytes"],
        ],
    ),
];

/// The wordings about the model or the content, for a 400, a 404 and their like. They do not hold for a 403, which
/// mentions models and policies without being about them.
static MODEL_OR_CONTENT: &[Phrases] = &[
    (
        Kind::ContentBlocked,
        &[
            &["responsible ai"],
            &["sensitive words"],
            &["safety filter"],
            &["safety settings", "block"],
            &["prohibited use policy"],
            &["violates", "usage guidelines"],
            &["violate", "polic"],
            &["content_policy_violation"],
            &["content_filter"],
            &["prompt", "blocked"],
            &["response was blocked"],
        ],
    ),
    (
        Kind::ModelNotFound,
        &[
            &["is not found for api version"],
            &["publisher model"],
            &["unexpected model name format"],
            &["model not found"],
            &["model_not_found"],
            &["models/", "not found"],
            &["model `", "not found"],
            &["model '", "not found"],
            &["model \"", "not found"],
            &["model", "does not exist"],
            &["unknown model"],
            &["invalid model name"],
            &["not a valid model"],
            &["model", "has been shut down"],
            &["model", "is no longer available"],
            &["not supported for generatecontent"],
            &["not supported for streamgeneratecontent"],
            &["not supported for embedcontent"],
            &["not supported for counttokens"],
            &["not supported for predict"],
        ],
    ),
];

/// The wordings of a 404 that says that this project may not have the model, where others may.
static CLOSED: &[&[&str]] = &[
    &["available to new"],
    &["available for new"],
    &["closed to new"],
    &["closed for new"],
    &["deprecated for new"],
    &["retired for new"],
    &["not open to new"],
    &["available", "to new"],
    &["not available", "your project"],
    &["not available", "this project"],
    &["not available", "for your account"],
    &["not available", "your tier"],
    &["not available", "your plan"],
    &["not available", "free tier"],
    &["no longer available", "your project"],
    &["not enabled for your project"],
    &["not enabled for this project"],
];

/// The wordings of a refusal for quota, where a relay answers it with a status of its own.
static EXHAUSTED: &[&[&str]] = &[
    &["resource_exhausted"],
    &["429", "too many requests"],
    &["exceeded your current quota"],
    &["quota exceeded for"],
];

/// The wordings of a conflict that ends by itself.
static PASSING: &[&[&str]] = &[&["try again"], &["retry"], &["concurrent"], &["still in progress"]];

/// The wordings about the input's length, for any status but a 429; a 500 has them too.
static TOO_LONG: &[Phrases] = &[(
    Kind::ContextTooLong,
    &[
        &["token count", "exceed"],
        &["maximum number of tokens"],
        &["token", "only supports up to"],
        &["context is too long"],
        &["context length"],
        &["context window", "exceed"],
        &["prompt is too long"],
        &["input is too long"],
        &["text fields that are too large"],
        &["too many tokens"],
        &["tokens", "exceeds", "limit"],
    ],
)];

/// The wordings of an anti-abuse page. It is about the network address, so that neither key nor model helps.
static BLOCKED: &[Phrases] = &[(
    Kind::IpBlocked,
    &[
        &["automated queries"],
        &["unusual traffic"],
        &["your client does not have permission to get url"],
        &["you have been blocked"],
        &["attention required!"],
        &["access denied", "error 10"],
        &["error code: 1006"],
        &["error code: 1010"],
        &["error code: 1020"],
    ],
)];

/// The wordings of a 429 or 5xx for a model that is overloaded, or shared capacity that is used up.
static CAPACITY: &[Phrases] = &[
    (
        Kind::Overloaded,
        &[
            &["overloaded"],
            &["high demand"],
            &["high load"],
            &["model is currently unavailable"],
            &["model is temporarily"],
        ],
    ),
    (
        Kind::Capacity,
        &[
            &["no capacity"],
            &["out of capacity"],
            &["at capacity"],
            &["capacity is exhausted"],
            &["insufficient capacity"],
            &["error-code-429"],
            &["resource exhausted", "try again later"],
        ],
    ),
];

/// The wordings of a 400 that is about this model, so that another one may take the same request.
static MODEL_BOUND: &[&[&str]] = &[
    &["thought_signature"],
    &["thought signature"],
    &["thoughtsignature"],
    &["this model only"],
    &["model only supports"],
];

/// The wordings of a missing feature. Together with a mention of the model they are about the model.
static LACKING: [&str; 7] = [
    "not supported",
    "not enabled",
    "not available",
    "unsupported",
    "does not support",
    "doesn't support",
    "do not support",
];

/// The mentions of the model. The word alone is also a role: "Please use a valid role: user, model."
static MODEL_MENTIONS: [&str; 7] =
    ["this model", "the model", "models/", "current model", "for model", "by model", "requested model"];

fn first(rules: &[Phrases], lower: &str) -> Option<Kind> {
    rules.iter().find(|(_, ways)| any(ways, lower)).map(|(kind, _)| *kind)
}

pub(super) fn any(ways: &[&[&str]], lower: &str) -> bool {
    ways.iter().any(|parts| parts.iter().all(|part| lower.contains(part)))
}

/// Returns the part of a message that is the upstream's own. After a colon or a quote it may repeat the request's
/// words: a caller who asks for the MIME type "API key not valid" must not be believed.
fn own_words(lower: &str) -> &str {
    lower.split([':', '"', '`', '/']).next().unwrap_or_default().split(" '").next().unwrap_or_default()
}

/// Returns the kind that the words of a 4xx name. `lower` is the message in lower case, here and below.
pub(super) fn client(code: u16, lower: &str) -> Option<Kind> {
    let own = match code {
        400 => own_words(lower),
        // Written before the request was read.
        401..=403 => lower,
        // A 404 begins with the name in the request.
        _ => "",
    };
    let part = |kind: Kind| if kind.fault() == Fault::Key { own } else { lower };
    let in_order = CLIENT.iter().find(|(kind, ways)| any(ways, part(*kind))).map(|(kind, _)| *kind);
    let in_order = in_order.or_else(|| too_long(lower));
    match in_order {
        Some(kind) => Some(kind),
        None if matches!(code, 401 | 403) => None,
        None => first(MODEL_OR_CONTENT, lower),
    }
}

/// Returns whether the words are about billing, whatever the status.
pub(super) fn billing(lower: &str) -> bool {
    CLIENT.iter().any(|(kind, ways)| *kind == Kind::BillingRequired && any(ways, lower))
}

/// Returns whether a 404 is about this project's access to the model.
pub(super) fn closed(lower: &str) -> bool {
    let about_a_model = lower.contains("model") || names_model(lower);
    about_a_model && any(CLOSED, lower) && !lower.contains("api version")
}

/// Returns whether the words are about quota, whatever the status.
pub(super) fn exhausted(lower: &str) -> bool {
    any(EXHAUSTED, lower)
}

/// Returns whether the words are a refusal of the key, where a relay answers it with a status of its own.
pub(super) fn names_bad_key(lower: &str) -> bool {
    any(&[&["api key not valid"], &["api_key_invalid"], &["api key expired"]], lower)
}

/// Returns whether a conflict ends by itself.
pub(super) fn passing(lower: &str) -> bool {
    any(PASSING, lower)
}

/// Returns [`Kind::ContextTooLong`] where the words are about the input's length.
pub(super) fn too_long(lower: &str) -> Option<Kind> {
    // `maxOutputTokens` has a limit of its own.
    if lower.contains("output token") || lower.contains("outputtoken") { None } else { first(TOO_LONG, lower) }
}

/// Returns whether the words come from an anti-abuse page.
pub(super) fn blocked(lower: &str) -> bool {
    first(BLOCKED, lower).is_some()
}

/// Returns the kind where the words are about the model's or the shared capacity.
pub(super) fn capacity(lower: &str) -> Option<Kind> {
    first(CAPACITY, lower)
}

/// Returns whether the words are about the service's own deadline.
pub(super) fn deadline(lower: &str) -> bool {
    any(&[&["deadline expired"], &["deadline exceeded"], &["deadline_exceeded"], &["timed out"], &["timeout"]], lower)
}

/// Returns whether a 400 is about this model, so that another one may take the same request.
pub(super) fn model_bound(lower: &str) -> bool {
    let has = |phrases: &[&str]| phrases.iter().any(|phrase| lower.contains(phrase));
    any(MODEL_BOUND, lower) || (has(&LACKING) && (has(&MODEL_MENTIONS) || names_model(lower)))
}

/// Returns whether the text names a model: `gemini-2.5-pro`, `Gemini 2.5 Pro Requests`, `gemini_2_5_pro_requests`,
/// `models/x`.
pub(super) fn names_model(lower: &str) -> bool {
    let families = ["gemini", "gemma", "imagen", "veo", "claude"];
    lower.contains("models/")
        || families.iter().any(|family| {
            memchr::memmem::find_iter(lower.as_bytes(), family).any(|at| {
                let after = &lower.as_bytes()[at + family.len()..];
                matches!(after, [b'-' | b'_' | b' ', digit, ..] if digit.is_ascii_digit())
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phrase_is_in_lower_case() {
        for (_, ways) in [CLIENT, MODEL_OR_CONTENT, TOO_LONG, BLOCKED, CAPACITY].into_iter().flatten() {
            for part in ways.iter().flat_map(|parts| parts.iter()) {
                assert_eq!(*part, part.to_lowercase());
            }
        }
        for part in [CLOSED, EXHAUSTED, PASSING].into_iter().flatten().flat_map(|parts| parts.iter()) {
            assert_eq!(*part, part.to_lowercase());
        }
    }

    #[test]
    fn models_are_recognised_by_a_version() {
        for text in ["gemini-2.5-pro", "gemini 2.5 pro requests per day", "gemini_2_5_pro_requests", "models/foo"] {
            assert!(names_model(text), "{text}");
        }
        for text in ["gemini", "gemini api requests", "the model", "generate content api requests per minute", ""] {
            assert!(!names_model(text), "{text}");
        }
    }

    #[test]
    fn a_model_that_is_closed_for_some_is_told_from_one_that_is_gone() {
        for text in [
            "this model models/gemini-2.5-flash is no longer available to new users. please update your code.",
            "gemini-2.5-pro is not available to new customers.",
            "this model is deprecated for new projects.",
            "models/gemini-2.5-pro is not available for your project.",
            "this model is not available on the free tier.",
            "the model is not available in your tier",
        ] {
            assert!(closed(text), "{text}");
        }
        for text in [
            "models/gemini-pro is not found for api version v1beta, or is not supported for generatecontent.",
            "this model is no longer available.",
            "model models/gemini-1.0-pro has been shut down.",
            "publisher model `x` was not found or your project does not have access to it.",
            "requested entity was not found.",
        ] {
            assert!(!closed(text), "{text}");
        }
    }
}
