//! The page of text for a verdict.

use std::{fmt::Write, time::Duration};

use tower_gemini::{
    clock,
    failure::{Failure, Fault, Kind},
    quota::until_pacific_midnight,
};

use crate::guide;

/// Writes a page: what happened, whose fault it is, what to do, and how long to wait.
pub(crate) fn explain(failure: &Failure, model: Option<&str>) -> String {
    let model = model.or_else(|| failure.quota()?.model());
    let mut page = String::new();
    let mut line = |name: &str, text: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "{name:<10}{text}");
    };
    let status = failure.status().map_or("no response".to_owned(), |status| status.as_u16().to_string());
    line("What", &format!("{} ({status}, {})", guide::meaning(failure).trim_end_matches('.'), failure.kind()));
    line("Fault", fault(failure));
    if !failure.message().is_empty() {
        let words: Vec<_> = failure.message().split_whitespace().collect();
        line("Said", &format!("\"{}\"", words.join(" ")));
    }
    for (number, step) in guide::steps(failure, model).iter().enumerate() {
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
