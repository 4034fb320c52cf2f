//! The troubleshooting guide: the meaning of each kind of failure, and the remedy, in one sentence each.
//!
//! Programs print these sentences beside a failure, and `docs/errors.md` has them as a table. They stand in one place,
//! so that a kind is explained in the same words everywhere.

use super::{Kind, TimeoutKind};

/// The meaning of a kind of failure and its remedy, for the person who runs the program.
///
/// ```
/// use tower_gemini::failure::Kind;
///
/// let advice = Kind::KeyLeaked.advice();
/// assert!(advice.meaning.starts_with("The API key was found in public"));
/// assert!(advice.remedy.starts_with("Revoke the key"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Advice {
    /// The meaning, as one sentence.
    pub meaning: &'static str,
    /// The remedy, as one sentence. Where there is nothing to do, it says so.
    pub remedy: &'static str,
}

/// Makes the table, and from it the list of all kinds. A kind that has no entry does not compile.
macro_rules! guide {
    ($($kind:ident $(($clock:ident))?: $meaning:literal, $remedy:literal;)*) => {
        impl Kind {
            /// All kinds, in the order of their faults.
            pub const ALL: &'static [Self] = &[$(Self::$kind $((TimeoutKind::$clock))?),*];

            /// Returns the meaning of the kind and its remedy.
            #[must_use]
            pub const fn advice(self) -> Advice {
                match self {
                    $(Self::$kind $((TimeoutKind::$clock))? => Advice { meaning: $meaning, remedy: $remedy },)*
                }
            }
        }
    };
}

guide! {
    // --- caller ---
    InvalidRequest:
        "The request is malformed, or asks for something that the model cannot do.",
        "Correct the field that the message names: a misspelt name, a wrong type, or a value out of range.";
    ContextTooLong:
        "The input has more tokens than the model takes.",
        "Shorten the input, or use a model with a larger context; countTokens tells the number for free.";
    PayloadTooLarge:
        "The request body has more bytes than the API, or a proxy before it, takes.",
        "Upload large media with the Files API, and send its URI in place of the bytes.";
    ContentBlocked:
        "The API blocked the content, which is a verdict and not an accident.",
        "Change the prompt, or the safetySettings where they allow it; the same request gets the same verdict.";
    ModelNotFound:
        "There is no such model, or not for this method and API version.",
        "Check the model's name letter by letter: GET /v1beta/models lists all models and their methods.";
    PathNotFound:
        "The address is not one of the API's.",
        "Check the base URL, the version and the method: a path is /v1beta/models/NAME:METHOD.";
    ResourceNotAccessible:
        "A file or cached content belongs to another project, or is gone.",
        "Use a key of the project that made it, or make it again: files live for 48 hours.";
    LocationUnsupported:
        "The API does not serve the country that the request came from.",
        "Send from a supported region; the address from which the server sends is the one that counts.";
    IpBlocked:
        "The network address is blocked, whatever the key.",
        "Send from another network address, and more slowly; no other key or model helps.";
    AuthConflict:
        "The request carries more than one credential.",
        "Send one credential only: x-goog-api-key, ?key= or Authorization.";
    Unimplemented:
        "The method is not implemented, or not enabled for this model.",
        "Use a method that the model has: GET /v1beta/models/NAME shows supportedGenerationMethods.";
    Conflict:
        "The request contradicts what exists already.",
        "Look up what exists, and use it or delete it first.";
    OutputLimit:
        "The answer is empty, because thinking used up maxOutputTokens before the first word.",
        "Raise maxOutputTokens, or lower the thinking budget or level.";
    LargerThanQuota:
        "The request has more input tokens, or its batch more items, than a whole minute, day or month may have.",
        "Send less in one call, split the batch, or ask for a higher quota or limit; no waiting helps.";
    // --- key ---
    AuthKeyInvalid:
        "The API key is not valid, or has expired.",
        "Check the key for a missing character or a space, or make a new one at https://aistudio.google.com/apikey.";
    AuthUnauthenticated:
        "The credential is missing, or of a type that this API does not take.",
        "Send an API key as x-goog-api-key; Vertex AI wants an OAuth token as Authorization: Bearer instead.";
    PermissionDenied:
        "The credential is good, but may not do this.",
        "Give the key's project access to this model, or the account the role that the message names.";
    KeyRestricted:
        "The API key is restricted to other APIs, sites, apps or addresses.",
        "Lift the restriction under Credentials in the Cloud console, or use a key without it.";
    KeyLeaked:
        "The API key was found in public, and is blocked permanently.",
        "Revoke the key, make a new one, and take the old one out of the repository or page that shows it.";
    KeySuspended:
        "The key or its project is suspended.",
        "Take the key out, and appeal in the Cloud console.";
    AccountBanned:
        "The account is banned, or has to be verified first.",
        "Take the account's keys out, and read Google's mail to the project's owner.";
    AccountLimited:
        "The account is limited or disabled, because its earlier calls broke the prohibited use policy.",
        "Use a key of another account meanwhile, and read Google's mail about the policy.";
    ConsumerInvalid:
        "The project that the key belongs to, or that is billed, does not exist.",
        "Check the project's id, and x-goog-user-project where it is sent.";
    ServiceDisabled:
        "The API is not enabled in the key's project.",
        "Enable the API in the key's project, and wait some minutes until that is known everywhere.";
    BillingRequired:
        "The project cannot pay for this: billing is off, or credits are used up.",
        "Link a billing account or add credits at https://aistudio.google.com/usage.";
    // --- quota ---
    QuotaMinute:
        "The requests that the project has a minute are used up.",
        "Nothing, if it passes; else add a key of another project, or limit the requests a minute on this side.";
    QuotaTokensMinute:
        "The input tokens that the project has a minute are used up.",
        "Nothing, if it passes; else add a key of another project, or limit the tokens a minute on this side.";
    QuotaDay:
        "The day's quota of the project for this model is used up.",
        "Use a key of another project or another model; the quota is back at midnight Pacific.";
    QuotaZero:
        "The project's limit for this model is 0, because the model is not in its tier.",
        "Link billing to the project, or use another model or another project's key; no waiting helps.";
    QuotaGrounding:
        "The quota of calls that search the web or maps is used up; plain calls are served.",
        "Leave the search tool out, use a key of another project, or link billing to this one.";
    QuotaSpend:
        "The project has spent as much as it may within some minutes or a month, on all models together.",
        "Wait some minutes, use another project's key, or raise a monthly cap at https://aistudio.google.com/usage.";
    ModelClosed:
        "The model is closed for this project; only projects that used it before still have it.",
        "Use a newer model, or a key of a project that has used this model before; no waiting helps.";
    QuotaUnknown:
        "Some quota is used up, and the answer does not say which.",
        "Nothing, if it passes; else look at https://aistudio.google.com/usage for which limit it is.";
    // --- model ---
    Overloaded:
        "The model is overloaded for all callers.",
        "Retry with backoff and jitter, or let another model answer meanwhile; another key does not help.";
    Capacity:
        "The shared capacity of the model is used up: this is not your quota.",
        "Retry with backoff and jitter, or let another model answer meanwhile; a higher quota does not help.";
    // --- service ---
    ServerError:
        "The server failed.",
        "Retry a few times with backoff; if only one prompt gets it, shorten or change that prompt.";
    BadGateway:
        "A front end or proxy got nothing usable from the server behind it.",
        "Retry with backoff; if it lasts, look at the proxies between this program and the API.";
    Unavailable:
        "The service is unavailable.",
        "Retry with backoff; if it lasts, look at the API's status page.";
    DeadlineExceeded:
        "The service took too long and gave up.",
        "Ask for less: a shorter prompt, less output, a lower thinking budget; or stream the answer.";
    Cancelled:
        "The service cancelled the call.",
        "Retry with backoff; the API ended the call itself.";
    EmptyResponse:
        "The answer is a 200 without any content.",
        "Send it once more; if it stays empty, change the prompt or use another model.";
    EmptyMalformedFunctionCall:
        "The model wrote a function call that cannot be used, and nothing else.",
        "Send it once more; if it stays so, simplify the functions that the request declares.";
    // --- transport ---
    Connect:
        "No connection was made: DNS, TCP or TLS failed.",
        "Check DNS, firewall and proxy between this program and the API, and the base URL.";
    NotSent:
        "The request provably never reached the API.",
        "Nothing: it is safe to send it again.";
    Reset:
        "The connection broke while the request or the answer was on it.",
        "Retry where the call may run twice; if it lasts, look at the network between this program and the API.";
    Timeout(Attempt):
        "One attempt had no answer within its time.",
        "Stream the answer, ask for less in one call, or raise the attempt time-out.";
    Timeout(FirstContent):
        "The stream had no content within its time.",
        "Ask for less thinking, or raise the first-content time-out.";
    Timeout(Idle):
        "The stream stopped sending events before its end.",
        "Look at the network between this program and the API, or raise the idle time-out.";
    StreamCut:
        "The stream ended before the answer was finished.",
        "Show the answer as incomplete, or ask again from the start.";
    Transport:
        "The transport failed with an error that is not known.",
        "Read the message, and check the network, proxy and TLS between this program and the API.";
    // --- local ---
    Timeout(Total):
        "The call did not end within its total time, with queueing and retries included.",
        "Look at what it waited for (limits, keys, open circuit breakers), or raise the total time-out.";
    CircuitOpen:
        "The circuit breaker is open, because the model is down.",
        "Wait: the breaker probes the model until it recovers; another model would answer meanwhile.";
    RateLimited:
        "The rate limiter would have to queue the call for longer than it may wait.",
        "Add a key of another project, raise the limit, or let calls wait longer.";
    CallerLimited:
        "The caller has used up a limit that this side has set for it.",
        "Let the caller wait for as long as the answer says, or raise its limit.";
    KeysExhausted:
        "No key that could take the call has quota left, or each is on trial with one call at a time.",
        "Add a key of another project: keys of one project share their quota.";
    KeysDisabled:
        "All keys that could take the call are disabled.",
        "Replace the keys: the API refuses all of them.";
    BodyTooLarge:
        "The request body is larger than a cap on this side.",
        "Send less in one call, or raise the cap.";
    BadRequest:
        "The request cannot be sent as it is: a bad header, or no URI.",
        "Correct the request before it is sent.";
    RequestBody:
        "The caller's own request body failed while it was read.",
        "Nothing: the caller, or its network, went away while it sent the request.";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn is_sentence(text: &str) -> bool {
        let body = text.strip_suffix('.').unwrap_or_default();
        text.starts_with(|first: char| first.is_ascii_uppercase())
            && body.len() > 10
            && text.len() <= 120
            && !body.contains(". ")
            && !text.contains(['|', '\n'])
    }

    #[test]
    fn each_kind_has_one_sentence_of_meaning_and_one_of_remedy() {
        let mut seen = HashSet::new();
        for kind in Kind::ALL {
            let Advice { meaning, remedy } = kind.advice();
            assert!(is_sentence(meaning), "{kind}: {meaning}");
            assert!(is_sentence(remedy), "{kind}: {remedy}");
            assert!(seen.insert(meaning) && seen.insert(remedy), "{kind} says what another kind says");
        }
    }

    #[test]
    fn all_kinds_are_listed_once_and_by_fault() {
        let names: HashSet<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
        let mut faults: Vec<_> = Kind::ALL.iter().map(|kind| kind.fault()).collect();
        faults.dedup();
        assert_eq!(faults.len(), 7, "{faults:?}");
    }

    /// Makes a link of an address, as Markdown wants it.
    fn with_link(word: &str) -> String {
        let address = word.trim_end_matches('.');
        if address.starts_with("https://") {
            word.replacen(address, &format!("<{address}>"), 1)
        } else {
            word.to_owned()
        }
    }

    #[test]
    fn the_table_in_the_guide_is_this_one() {
        let guide = include_str!("../docs/errors.md");
        for kind in Kind::ALL {
            let Advice { meaning, remedy } = kind.advice();
            let row = format!("| `{kind}` | {} | {meaning} | {remedy} |\n", kind.status_code().as_u16());
            let row = row.split(' ').map(with_link).collect::<Vec<_>>().join(" ");
            assert!(guide.contains(&row), "docs/errors.md lacks this row:\n{row}");
        }
        let rows = guide.lines().filter(|line| line.starts_with("| `") && line.ends_with(". |")).count();
        assert_eq!(rows, Kind::ALL.len(), "docs/errors.md has rows of kinds that do not exist");
    }
}
