//! The words for a verdict: the troubleshooting guide, by kind.

use std::{fmt::Write, time::Duration};

use tower_gemini::{
    clock,
    failure::{Failure, Fault, Kind},
    quota::{Dimension, until_pacific_midnight},
};

/// What happened, whose fault it is, what to do, how long to wait: in a page of text.
pub(crate) fn explain(failure: &Failure, model: Option<&str>) -> String {
    let model = model.or_else(|| failure.quota()?.model());
    let mut page = String::new();
    let mut line = |name: &str, text: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "{name:<10}{text}");
    };
    let status = failure.status().map_or("no response".to_owned(), |status| status.as_u16().to_string());
    line("What", &format!("{} ({status}, {})", what(failure), failure.kind()));
    line("Fault", fault(failure));
    if !failure.message().is_empty() {
        let words: Vec<_> = failure.message().split_whitespace().collect();
        line("Said", &format!("\"{}\"", words.join(" ")));
    }
    for (number, step) in steps(failure, model).iter().enumerate() {
        line(if number == 0 { "Do" } else { "" }, &format!("{}. {step}", number + 1));
    }
    line("Wait", &wait(failure));
    line("May help", &help(failure));
    line(
        "Breaker",
        if failure.counts_against_upstream() { "counts as a sign of the service's health" } else { "ignores it" },
    );
    page
}

fn what(failure: &Failure) -> &'static str {
    match failure.kind() {
        Kind::InvalidRequest if is_empty_contents(failure) => "the request has no contents, or contents without parts",
        Kind::InvalidRequest if failure.other_model_may_help() => {
            "the request asks for something that this model cannot do"
        }
        Kind::InvalidRequest => "the request is malformed",
        Kind::ContextTooLong => "the input has more tokens than the model takes",
        Kind::PayloadTooLarge => "the request body has more bytes than the API, or a proxy before it, takes",
        Kind::ContentBlocked => "the content was blocked: a verdict, not an accident",
        Kind::ModelNotFound => "there is no such model, or not for this method and API version",
        Kind::PathNotFound => "the address is none of the API's",
        Kind::ResourceNotAccessible => "a file or cached content belongs to another project, or is gone",
        Kind::LocationUnsupported => "the API does not serve the country that the request came from",
        Kind::IpBlocked => "the network address is blocked, whatever the key",
        Kind::AuthConflict => "the request carries more than one credential",
        Kind::Unimplemented => "the method is not implemented, or not enabled for this model",
        Kind::Conflict => "the request contradicts what exists already",
        Kind::OutputLimit => "maxOutputTokens was spent, thinking included, before the first word of the answer",
        Kind::AuthKeyInvalid if says(failure, "expired") => "the API key has expired",
        Kind::AuthKeyInvalid => "the API key is not valid",
        Kind::AuthUnauthenticated => "the credential is missing, or of a type that this API does not take",
        Kind::PermissionDenied => "the credential is good, but may not do this",
        Kind::KeyRestricted => "the API key is restricted to other APIs, sites, apps or addresses",
        Kind::KeyLeaked => "the API key was found in public and is blocked for ever",
        Kind::KeySuspended => "the key or its project is suspended",
        Kind::AccountBanned => "the account or project is banned, or has to be verified first",
        Kind::ConsumerInvalid => "the project that the key belongs to, or that is billed, does not exist",
        Kind::ServiceDisabled => "the API is not enabled in the key's project",
        Kind::BillingRequired => {
            "the project has no money for this: billing is off, credits are spent, or a cap is reached"
        }
        Kind::QuotaMinute => "the requests that the project has a minute are used up",
        Kind::QuotaTokensMinute => "the input tokens that the project has a minute are used up",
        Kind::QuotaDay if failure.hint().is_some() => "a quota of a long period is used up",
        Kind::QuotaDay => "the day's quota is used up",
        Kind::QuotaZero => "the project's limit for this model is 0: it is not in its tier",
        Kind::QuotaUnknown => "some quota is used up; the answer does not say which",
        Kind::Overloaded => "the model is overloaded, for everybody",
        Kind::Capacity => "the shared capacity of the model is used up: this is not your quota",
        Kind::ServerError if failure.is_content_suspected() => {
            "the server fails on this request: probably on its content"
        }
        Kind::ServerError => "the server failed",
        Kind::BadGateway => "a front end or proxy got nothing usable from the server behind it",
        Kind::Unavailable => "the service is unavailable",
        Kind::DeadlineExceeded => "the service took too long and gave up",
        Kind::Cancelled => "the service cancelled the call",
        Kind::EmptyResponse => "the answer is a 200 without any content",
        Kind::EmptyMalformedFunctionCall => "the model wrote a function call that cannot be used, and nothing else",
        Kind::StreamCut => "the answer was cut before it was finished",
        Kind::Timeout(_) => "a clock on this side ran out",
        _ => "there was no response at all",
    }
}

fn fault(failure: &Failure) -> &'static str {
    match failure.fault() {
        Fault::Caller => "yours (caller): the request itself. Sending it again changes nothing",
        Fault::Key => "the key's (key): the credential or its project",
        Fault::Quota => "your project's quota (quota): keys of one project share it",
        Fault::Model => "the model's (model): Google's capacity, nothing that you did",
        Fault::Service if failure.is_content_suspected() => {
            "the service's (service), but the same answer twice means that your content sets it off"
        }
        Fault::Service => "the service's (service): nothing that you did",
        Fault::Transport => "the network's (transport), or the server's end of it",
        _ => "a limit on this side (local)",
    }
}

fn steps(failure: &Failure, model: Option<&str>) -> Vec<String> {
    let switch = switch(model);
    let steps: Vec<&str> = match failure.kind() {
        Kind::InvalidRequest if is_empty_contents(failure) => vec![
            "Send at least one content with at least one part that is not empty; drop empty turns from the history.",
            "A turn that the model answered with nothing must not be sent back as empty parts.",
        ],
        Kind::InvalidRequest if says(failure, "signature") => vec![
            "Send the thoughtSignature of each function call back exactly as it came, in the same part.",
            "Where the history was made by another model, drop its function calls or stay with that model.",
        ],
        Kind::InvalidRequest if failure.other_model_may_help() => vec![
            "Leave out the feature that the message names, or ask a model that has it.",
            "GET /v1beta/models/NAME shows what a model supports.",
        ],
        Kind::InvalidRequest if says(failure, "deadline") => {
            vec!["X-Server-Timeout must be at least 10 (seconds): raise the client's own time-out."]
        }
        Kind::InvalidRequest => vec![
            "Look at the field that the message names: a misspelt name, a wrong type, a role other than user and model.",
            "Check that the API version has the feature: what is in beta exists in /v1beta only.",
            "Check the parameters' ranges: candidateCount, temperature, topP, maxOutputTokens.",
        ],
        Kind::ContextTooLong => vec![
            "Shorten the input: drop old turns, summarise, or send a part of the document.",
            "Count first: POST models/NAME:countTokens is free, and a refused request still costs quota.",
        ],
        Kind::PayloadTooLarge => vec![
            "Upload large media with the Files API and send its URI in place of the bytes.",
            "If a proxy refused it, raise the proxy's own limit (axum's default is 2 MB).",
        ],
        Kind::ContentBlocked => vec![
            "Change the prompt, or the safetySettings where they allow it. The same request gets the same verdict.",
            "For RECITATION, ask for less literal text or raise the temperature.",
        ],
        Kind::ModelNotFound => vec![
            "Check the model's name letter by letter: GET /v1beta/models lists all of them, and the methods of each.",
            "Models are retired: an old name answers 404 for ever. Preview models exist in /v1beta only.",
        ],
        Kind::PathNotFound => vec![
            "Check the base URL, the version and the method: https://generativelanguage.googleapis.com/v1beta/models/NAME:generateContent.",
        ],
        Kind::ResourceNotAccessible => vec![
            "Use a key of the project that made the file or the cached content: no other project can see it.",
            "Files live 48 hours, cached contents until their ttl: make it again if it is gone.",
        ],
        Kind::LocationUnsupported => vec![
            "Send from a supported region (https://ai.google.dev/gemini-api/docs/available-regions): it is the server's egress address that counts.",
            "Or use Vertex AI, in a location that has the model.",
        ],
        Kind::IpBlocked => vec![
            "Send from another network address, and slower. No key and no model helps.",
            "If a proxy or VPN is in between, its other users may have caused it.",
        ],
        Kind::AuthConflict => vec![
            "Send one credential only: x-goog-api-key, or ?key=, or Authorization. A relay has to strip the caller's own first.",
        ],
        Kind::OutputLimit => vec!["Raise maxOutputTokens, or lower the thinking budget or level."],
        Kind::Unimplemented => {
            vec!["Use a method that the model has: GET /v1beta/models/NAME shows supportedGenerationMethods."]
        }
        Kind::Conflict => vec!["Look up what exists already, and use it or delete it first."],
        Kind::AuthKeyInvalid => vec![
            "Check the key for a missing character, a space, or the quotes of a shell: https://aistudio.google.com/apikey.",
            "Make a new key if it has expired or was deleted.",
            "Good keys get this answer now and then: take a key out only after several in a row.",
        ],
        Kind::AuthUnauthenticated => vec![
            "Send an API key as x-goog-api-key. Vertex AI wants an OAuth token as Authorization: Bearer instead.",
            "New keys (AQ.…) go into x-goog-api-key as well; as a Bearer token they are refused.",
        ],
        Kind::PermissionDenied => vec![
            "Give the account the role that the message names; on Vertex AI: roles/aiplatform.user.",
            "On Vertex AI it may also mean that the resource does not exist: check project, location and model.",
        ],
        Kind::KeyRestricted => vec![
            "In the Cloud console, under Credentials, add the Generative Language API (or your site, app, address) to the key.",
            "Or use a key without that restriction.",
        ],
        Kind::KeyLeaked => vec![
            "Make a new key, and take the old one out of the repository, the page or the app that shows it.",
            "Keep keys on a server, never in a client.",
        ],
        Kind::KeySuspended | Kind::AccountBanned => vec![
            "Use another project's key, and take this one out for good.",
            "Read the mail to the project's owner; the appeal is in the Cloud console.",
        ],
        Kind::ConsumerInvalid => vec![
            "Check the project's id, and x-goog-user-project if it is sent: the project was deleted or is another one.",
        ],
        Kind::ServiceDisabled => vec![
            "Enable the API in the key's project, at the link in the message.",
            "Then wait some minutes until it is known everywhere.",
        ],
        Kind::BillingRequired => vec![
            "Look at the project's billing in AI Studio (https://aistudio.google.com/usage): link an account, add credits, or raise the cap.",
            "Until then, use another project's key.",
        ],
        Kind::QuotaMinute => vec![
            "Wait as long as the answer asks, then send the same request again.",
            "Limit yourself to the quota, evenly or in bursts: RateLimitLayer. Another project's key has a quota of its own.",
        ],
        Kind::QuotaTokensMinute => vec![
            "Wait as long as the answer asks, then send the same request again.",
            "Send less at once. A request with more tokens than the whole minute's quota never succeeds by waiting.",
        ],
        Kind::QuotaDay => vec![
            "Do not retry with this project and model before the quota comes back, whatever retryDelay says.",
            "Use another project's key, or another model, or ask for a higher tier.",
        ],
        Kind::QuotaZero => vec![
            "Do not retry: no waiting helps. The model is not in this project's tier, or was shut down.",
            "Link billing to the project, or use another model or another project's key.",
        ],
        Kind::QuotaUnknown => vec![
            "Back off from 1 s, doubling, with jitter; if it lasts for minutes, take it for a day's quota.",
            "Look at https://aistudio.google.com/usage for which limit it is.",
        ],
        Kind::Capacity | Kind::Overloaded => vec![
            "Back off with jitter (0.5 s, doubling, up to 20 s) and try again. Another key does not help.",
            &switch,
        ],
        Kind::ServerError if failure.is_content_suspected() => vec![
            "Shorten the input: \"your input context is too long\" is what a 500 most often hides.",
            "Leave out parts of the content until it works; a broken image or file is a usual cause.",
            &switch,
        ],
        Kind::ServerError => vec![
            "Try again, at most four times with backoff.",
            "If the same request fails the same way twice, it is your content (diagnose --again): shorten it or change it.",
            &switch,
        ],
        Kind::BadGateway | Kind::Unavailable | Kind::Cancelled => {
            vec![
                "Try again, at most four times with backoff.",
                "If a relay is in between, look at its own limits and logs.",
            ]
        }
        Kind::DeadlineExceeded => vec![
            "Try again once, with a longer client time-out.",
            "Make the request smaller: a shorter prompt, less output, a lower thinking budget; or stream it.",
            &switch,
        ],
        Kind::EmptyResponse | Kind::EmptyMalformedFunctionCall => vec![
            "Send it once more: a second attempt often has content.",
            "If it stays empty, simplify the tools and the schema, or try another model.",
        ],
        Kind::StreamCut => vec!["What came is not complete: show it as such, or ask again from the start."],
        _ => vec!["Check the network, DNS, proxy and TLS between here and the API; then try again with backoff."],
    };
    let mut steps: Vec<_> = steps.into_iter().map(str::to_owned).collect();
    if failure.is_after_commit() {
        steps = vec![
            "Parts of the answer have been handed on: nothing can be sent again for this call. Start a new one."
                .to_owned(),
        ];
    }
    if let (Kind::ContextTooLong, Some(limit)) = (failure.kind(), failure.token_limit()) {
        let count = failure.token_count().map_or("too many".to_owned(), |count| count.to_string());
        let larger = if failure.other_model_may_help() { " Other models take up to 1048576." } else { "" };
        steps.push(format!("The input had {count} tokens, this model takes {limit}.{larger}"));
    }
    if let Some(limit) = failure.quota().and_then(|quota| quota.limit()).filter(|limit| *limit > 0) {
        steps.push(format!("The limit is {limit}{}.", period(failure)));
    }
    steps
}

fn period(failure: &Failure) -> &'static str {
    match failure.quota().and_then(|quota| quota.dimension()) {
        Some(Dimension::RequestsPerMinute) => " requests a minute",
        Some(Dimension::InputTokensPerMinute) => " input tokens a minute",
        Some(Dimension::RequestsPerDay) => " a day",
        _ => "",
    }
}

/// Which model to try instead.
fn switch(model: Option<&str>) -> String {
    match model {
        Some(pro) if pro.contains("-pro") => {
            format!("Switch the model for a while: {pro} to {}.", pro.replacen("-pro", "-flash", 1))
        }
        Some(lite) if lite.contains("-flash-lite") => {
            format!("Switch the model for a while: {lite} to {}.", lite.replacen("-flash-lite", "-flash", 1))
        }
        Some(flash) if flash.contains("-flash") => {
            format!("Switch the model for a while: {flash} to {}.", flash.replacen("-flash", "-flash-lite", 1))
        }
        _ => "Switch the model for a while: Gemini 2.5 Pro to 2.5 Flash, say.".to_owned(),
    }
}

fn wait(failure: &Failure) -> String {
    match failure.hint() {
        Some(hint) if hint.is_exact() => format!("{}, as the answer asks", time(hint.delay())),
        Some(hint) => {
            format!("{} and up to a second more: the answer's wait is cut to whole seconds", time(hint.delay()))
        }
        None if failure.kind() == Kind::QuotaDay => {
            let midnight = until_pacific_midnight(clock::wall());
            format!("{}, until midnight Pacific", time(Duration::from_secs(midnight.as_secs())))
        }
        None if !failure.same_key_may_help() => "no waiting helps".to_owned(),
        None => "the answer does not say: back off with jitter".to_owned(),
    }
}

fn time(delay: Duration) -> String {
    let (hours, minutes) = (delay.as_secs() / 3600, delay.as_secs() / 60 % 60);
    let seconds = (delay - Duration::from_secs(delay.as_secs() / 60 * 60)).as_secs_f64();
    match (hours, minutes) {
        (0, 0) => format!("{seconds:.3} s").replace(".000", ""),
        (0, _) => format!("{minutes} min {seconds:.0} s"),
        _ => format!("{hours} h {minutes} min"),
    }
}

fn help(failure: &Failure) -> String {
    let ways = [
        ("the same request again", failure.same_key_may_help()),
        ("a key of another project", failure.other_key_may_help()),
        ("another model", failure.other_model_may_help()),
    ];
    let ways: Vec<_> = ways.iter().filter(|(_, may)| *may).map(|(way, _)| *way).collect();
    if ways.is_empty() { "nothing but another request".to_owned() } else { ways.join(", ") }
}

fn says(failure: &Failure, word: &str) -> bool {
    failure.message().to_ascii_lowercase().contains(word)
}

fn is_empty_contents(failure: &Failure) -> bool {
    says(failure, "must not be empty")
        || says(failure, "contents is not specified")
        || says(failure, "at least one parts field")
        || says(failure, "empty text parameter")
        || says(failure, "must have one initialized field")
}
