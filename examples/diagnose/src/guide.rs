//! The troubleshooting guide: what a failure means, and the steps to take, first things first.
//!
//! [`Kind::advice`] has the meaning and the first step of every kind. This file adds the further steps, and the cases
//! of a kind that only the message tells apart.

use tower_gemini::{
    failure::{Failure, Kind},
    quota::Dimension,
};

/// A case that needs other words than its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    EmptyContents,
    ThoughtSignature,
    MissingFeature,
    ServerTimeout,
    ExpiredKey,
    LongQuota,
    ContentSuspected,
}

impl Case {
    /// Returns the case that the failure is, if it is one.
    fn of(failure: &Failure) -> Option<Self> {
        match failure.kind() {
            Kind::InvalidRequest if is_empty_contents(failure) => Some(Self::EmptyContents),
            Kind::InvalidRequest if says(failure, "signature") => Some(Self::ThoughtSignature),
            Kind::InvalidRequest if failure.other_model_may_help() => Some(Self::MissingFeature),
            Kind::InvalidRequest if says(failure, "deadline") => Some(Self::ServerTimeout),
            Kind::AuthKeyInvalid if says(failure, "expired") => Some(Self::ExpiredKey),
            Kind::QuotaDay if failure.hint().is_some() => Some(Self::LongQuota),
            Kind::ServerError if failure.is_content_suspected() => Some(Self::ContentSuspected),
            _ => None,
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::EmptyContents => "The request has no contents, or contents without parts.",
            Self::ThoughtSignature => "The request lacks a thought signature, or has one of another model.",
            Self::MissingFeature => "The request asks for something that this model cannot do.",
            Self::ServerTimeout => "The request is malformed: its X-Server-Timeout is too short.",
            Self::ExpiredKey => "The API key has expired.",
            Self::LongQuota => "A quota of a long period is used up.",
            Self::ContentSuspected => "The server fails on this request, probably on its content.",
        }
    }

    fn steps(self) -> &'static [&'static str] {
        match self {
            Self::EmptyContents => &[
                "Send at least one content with at least one part that is not empty; drop empty turns from the history.",
                "Do not send back a turn that the model answered with nothing: its parts are empty.",
            ],
            Self::ThoughtSignature => &[
                "Send the thoughtSignature of each function call back exactly as it came, in the same part.",
                "Where another model made the history, drop its function calls or stay with that model.",
            ],
            Self::MissingFeature => &[
                "Leave out the feature that the message names, or use a model that has it.",
                "GET /v1beta/models/NAME shows what a model supports.",
            ],
            Self::ServerTimeout => {
                &["Raise the client's own time-out: X-Server-Timeout must be at least 10 (seconds)."]
            }
            Self::ExpiredKey => &["Make a new key at https://aistudio.google.com/apikey."],
            Self::LongQuota => &[
                "Do not retry with this project and model before the quota comes back.",
                "Use a key of another project or another model, or ask for a higher tier.",
            ],
            Self::ContentSuspected => &[
                "Shorten the input: \"your input context is too long\" is what a 500 most often hides.",
                "Leave out parts of the content until it works; a broken image or file is a usual cause.",
            ],
        }
    }
}

/// The steps after the first, by kind.
static FURTHER: &[(Kind, &[&str])] = &[
    (
        Kind::InvalidRequest,
        &[
            "Check the roles: user and model are the only ones.",
            "Check that the API version has the feature: what is in beta exists in /v1beta only.",
            "Check the parameters' ranges: candidateCount, temperature, topP, maxOutputTokens.",
        ],
    ),
    (
        Kind::ContextTooLong,
        &[
            "Drop old turns, summarise, or send a part of the document.",
            "Count first: a refused request still costs quota, and POST models/NAME:countTokens does not.",
        ],
    ),
    (Kind::PayloadTooLarge, &["If a proxy refused it, raise the proxy's own limit (axum's default is 2 MB)."]),
    (Kind::ContentBlocked, &["For RECITATION, ask for less literal text or raise the temperature."]),
    (
        Kind::ModelNotFound,
        &["Models are retired: an old name answers 404 from then on. Preview models exist in /v1beta only."],
    ),
    (Kind::PathNotFound, &["The base URL of the Developer API is https://generativelanguage.googleapis.com."]),
    (Kind::ResourceNotAccessible, &["No other project can see it. Cached contents live until their ttl."]),
    (
        Kind::LocationUnsupported,
        &[
            "The regions are listed at https://ai.google.dev/gemini-api/docs/available-regions.",
            "Or use Vertex AI, in a location that has the model.",
        ],
    ),
    (Kind::IpBlocked, &["If a proxy or VPN is in between, its other users may have caused it."]),
    (Kind::AuthConflict, &["A relay has to strip the caller's own credential before it adds one."]),
    (
        Kind::AuthKeyInvalid,
        &[
            "Make a new key if it has expired or was deleted.",
            "Good keys get this answer occasionally: take a key out only after several in a row.",
        ],
    ),
    (
        Kind::AuthUnauthenticated,
        &["New keys (AQ.…) go into x-goog-api-key as well; as a Bearer token they are refused."],
    ),
    (
        Kind::PermissionDenied,
        &[
            "On Vertex AI the role is roles/aiplatform.user.",
            "On Vertex AI it may also mean that the resource does not exist: check project, location and model.",
        ],
    ),
    (Kind::KeyRestricted, &["The API to allow is the Generative Language API; or allow your site, app or address."]),
    (Kind::KeyLeaked, &["Keep keys on a server, never in a client."]),
    (
        Kind::KeySuspended,
        &["Until then, use another project's key.", "Read the mail to the project's owner, which says why."],
    ),
    (Kind::AccountBanned, &["Meanwhile, use another account's key."]),
    (Kind::ServiceDisabled, &["The message has a link to the place where it is enabled."]),
    (Kind::BillingRequired, &["Until then, use another project's key."]),
    (
        Kind::QuotaMinute,
        &[
            "Wait as long as the answer asks, then send the same request again.",
            "RateLimitLayer keeps calls within the quota, evenly or in bursts.",
        ],
    ),
    (
        Kind::QuotaTokensMinute,
        &[
            "Wait as long as the answer asks, then send the same request again.",
            "Send less at once. A request with more tokens than the whole minute's quota never succeeds by waiting.",
        ],
    ),
    (
        Kind::QuotaDay,
        &[
            "Do not retry with this project and model before the quota comes back, whatever retryDelay says.",
            "For more, ask for a higher tier.",
        ],
    ),
    (Kind::QuotaZero, &["The model is not in this project's tier, or was shut down."]),
    (
        Kind::QuotaGrounding,
        &[
            "Do not retry it soon: the free tier counts searches by the day.",
            "A plain call to the same model goes through meanwhile.",
        ],
    ),
    (
        Kind::QuotaSpend,
        &["All models of the project wait. It is a sum over ten minutes, so that it comes back gradually."],
    ),
    (
        Kind::ModelClosed,
        &[
            "Do not take the key out: its project has the other models.",
            "GET /v1beta/models lists the models that the project has.",
        ],
    ),
    (
        Kind::QuotaUnknown,
        &["Back off from 1 s, doubling, with jitter; if it lasts for minutes, take it for a day's quota."],
    ),
    (Kind::Overloaded, &["A good backoff is 0.5 s, doubling, up to 20 s."]),
    (Kind::Capacity, &["A good backoff is 0.5 s, doubling, up to 20 s. Another key does not help."]),
    (
        Kind::ServerError,
        &[
            "Four attempts are enough.",
            "If the same request fails the same way twice, it is your content (diagnose --again): shorten or change it.",
        ],
    ),
    (Kind::BadGateway, &["If a relay is in between, look at its own limits and logs."]),
    (Kind::Unavailable, &["If a relay is in between, look at its own limits and logs."]),
    (Kind::Cancelled, &["If a relay is in between, look at its own limits and logs."]),
    (Kind::DeadlineExceeded, &["Retry once, with a longer client time-out."]),
    (Kind::EmptyResponse, &["A second attempt often has content. Simplify the tools and the schema."]),
    (Kind::EmptyMalformedFunctionCall, &["A second attempt often works. Simplify the schema, or use another model."]),
];

/// Returns what the failure means, as one sentence.
pub(crate) fn meaning(failure: &Failure) -> &'static str {
    Case::of(failure).map_or(failure.kind().advice().meaning, Case::meaning)
}

/// Returns the steps to take, first things first. `model` is the one that was asked, if known.
pub(crate) fn steps(failure: &Failure, model: Option<&str>) -> Vec<String> {
    let mut steps: Vec<String> = if failure.is_after_commit() {
        vec![
            "Parts of the answer have been handed on: nothing can be sent again for this call. Start a new one.".into(),
        ]
    } else {
        let (first, further) = match Case::of(failure) {
            Some(case) => (None, case.steps()),
            None => (Some(failure.kind().advice().remedy), further(failure.kind())),
        };
        let switch = moves_models(failure.kind()).then(|| other_model(model));
        first.into_iter().chain(further.iter().copied()).map(str::to_owned).chain(switch).collect()
    };
    steps.extend(tokens(failure));
    steps.extend(limit(failure));
    steps
}

fn further(kind: Kind) -> &'static [&'static str] {
    FURTHER.iter().find(|(known, _)| *known == kind).map_or(&[], |(_, steps)| steps)
}

/// Returns whether another model is worth trying while this one fails.
fn moves_models(kind: Kind) -> bool {
    matches!(kind, Kind::Overloaded | Kind::Capacity | Kind::ServerError | Kind::DeadlineExceeded)
}

/// Names the model to try instead.
fn other_model(model: Option<&str>) -> String {
    const MOVES: [(&str, &str); 3] = [("-pro", "-flash"), ("-flash-lite", "-flash"), ("-flash", "-flash-lite")];
    let known = model.and_then(|model| {
        let (from, to) = MOVES.iter().find(|(from, _)| model.contains(from))?;
        Some(format!("{model} to {}", model.replacen(from, to, 1)))
    });
    format!("Switch the model for a while: {}.", known.as_deref().unwrap_or("Gemini 2.5 Pro to 2.5 Flash, for example"))
}

/// Says how many tokens there were, where the refusal names the limit.
fn tokens(failure: &Failure) -> Option<String> {
    let limit = failure.token_limit().filter(|_| failure.kind() == Kind::ContextTooLong)?;
    let count = failure.token_count().map_or("too many".to_owned(), |count| count.to_string());
    let larger = if failure.other_model_may_help() { " Other models take up to 1048576." } else { "" };
    Some(format!("The input had {count} tokens, this model takes {limit}.{larger}"))
}

/// Says what the quota is, where the refusal names it.
fn limit(failure: &Failure) -> Option<String> {
    let quota = failure.quota()?;
    let limit = quota.limit().filter(|limit| *limit > 0)?;
    let period = match quota.dimension() {
        // A day's quota may be of tokens.
        Some(Dimension::RequestsPerDay) => " a day".to_owned(),
        Some(dimension) => format!(" {dimension}"),
        None => String::new(),
    };
    Some(format!("The limit is {limit}{period}."))
}

fn says(failure: &Failure, word: &str) -> bool {
    failure.message().to_ascii_lowercase().contains(word)
}

fn is_empty_contents(failure: &Failure) -> bool {
    const WORDS: [&str; 5] = [
        "must not be empty",
        "contents is not specified",
        "at least one parts field",
        "empty text parameter",
        "must have one initialized field",
    ];
    WORDS.iter().any(|words| says(failure, words))
}
