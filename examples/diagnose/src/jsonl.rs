//! Judges many responses, one a line.

use std::{
    io::{self, BufRead, Write},
    process::ExitCode,
};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;
use tower_gemini::{
    failure::{Failure, Kind},
    quota::Dimension,
    status::Status,
};

use crate::answer;

/// Writes a verdict for each line. A line that cannot be read gets an error instead, and the exit code is 1.
pub(crate) fn run(mut lines: impl BufRead, mut out: impl Write) -> io::Result<ExitCode> {
    let mut all_read = true;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let case = read(&line).map_err(|error| (Value::Null, format!("not JSON: {error}")));
        match case.and_then(verdict) {
            Ok(verdict) => writeln!(out, "{verdict}")?,
            Err((id, problem)) => {
                all_read = false;
                let problem = Value::from(format!("line {number}: {problem}"));
                writeln!(out, r#"{{"id":{id},"error":{problem}}}"#)?;
            }
        }
    }
    out.flush()?;
    Ok(if all_read { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads a line's JSON. Some writers begin with a byte order mark, or write bytes that are not text as lone surrogates.
fn read(line: &[u8]) -> Result<Value, serde_json::Error> {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    serde_json::from_slice(line).or_else(|error| match String::from_utf8_lossy(line) {
        text if text.contains("\\u") || text.contains('\u{fffd}') => {
            serde_json::from_str(&without_lone_surrogates(&text))
        }
        _ => Err(error),
    })
}

/// Replaces each `\\ud800` to `\\udfff` that has no partner by the replacement character.
fn without_lone_surrogates(json: &str) -> String {
    let unit = |text: &str| u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok();
    let (mut whole, mut rest) = (String::with_capacity(json.len()), json);
    while let Some(at) = rest.find('\\') {
        whole.push_str(&rest[..at]);
        rest = &rest[at..];
        let paired = rest.get(6..).and_then(unit).is_some_and(|low| (0xdc00..0xe000).contains(&low));
        let (text, len) = match unit(rest) {
            Some(0xd800..0xdc00) if paired => (&rest[..12], 12),
            Some(0xd800..0xe000) => ("\\ufffd", 6),
            // Any other escape is two characters long, or ends in hexadecimal digits, which are plain characters here.
            _ => {
                let len = rest.char_indices().nth(2).map_or(rest.len(), |(len, _)| len);
                (&rest[..len], len)
            }
        };
        whole.push_str(text);
        rest = &rest[len..];
    }
    whole + rest
}

/// Returns the line to write, or the id and the problem of the line that was read.
fn verdict(case: Value) -> Result<String, (Value, String)> {
    let id = case["id"].clone();
    if !case.is_object() {
        return Err((id, "an object {id, http_status, headers, body} is wanted".to_owned()));
    }
    let problem = |problem| (id.clone(), problem);
    let status = status(&case["http_status"]).map_err(problem)?;
    let headers = headers(&case["headers"]).map_err(problem)?;
    let body = match &case["body"] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        json => json.to_string(),
    };
    let failure = match status {
        Some(status) if status.is_success() => answer::failure_in(body.as_bytes()),
        Some(status) => Some(Failure::from_response(status, &headers, body.as_bytes())),
        // Without a response the transport failed, unless a body says otherwise.
        None if Status::parse(body.as_bytes()).is_google() => Some(Failure::from_event(body.as_bytes())),
        None => Some(Failure::local(Kind::Transport, body)),
    };
    Ok(format_verdict(&id, failure.as_ref()))
}

/// Formats a verdict by hand, so that the members keep their order.
fn format_verdict(id: &Value, failure: Option<&Failure>) -> String {
    let name = |name: Option<&str>| Value::from(name);
    let is = |answer: fn(&Failure) -> bool| failure.is_some_and(answer);
    let wait = failure.and_then(Failure::hint).map(|hint| match hint.delay() {
        whole if whole.subsec_nanos() == 0 => Value::from(whole.as_secs()),
        delay => Value::from(delay.as_secs_f64()),
    });
    let scope = failure.and_then(Failure::quota).and_then(|quota| quota.dimension()).map(Dimension::label);
    let members = [
        ("id", id.clone()),
        ("fault", name(failure.map(|failure| failure.fault().as_str()))),
        ("kind", name(failure.map(|failure| failure.kind().as_str()))),
        ("retry_same_key", is(Failure::same_key_may_help).into()),
        ("retry_other_key", is(Failure::other_key_may_help).into()),
        ("retry_other_model", is(Failure::other_model_may_help).into()),
        ("retry_after_s", wait.unwrap_or_default()),
        ("quota_scope", name(scope)),
        ("breaker", is(Failure::counts_against_upstream).into()),
    ];
    let members = members.map(|(name, value)| format!("\"{name}\":{value}"));
    format!("{{{}}}", members.join(","))
}

/// Reads a status: a number, or a text that begins with one. Null and 0 mean that there was no response.
fn status(value: &Value) -> Result<Option<StatusCode>, String> {
    let number = match value {
        Value::Null => return Ok(None),
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.split_whitespace().next().map_or(Some(0.0), |word| word.parse().ok()),
        _ => None,
    };
    match number {
        Some(0.0) => Some(None),
        // A status has three digits: `from_u16` refuses a number that the cast cut or saturated.
        Some(number) if number.fract() == 0.0 => StatusCode::from_u16(number as u16).map(Some).ok(),
        _ => None,
    }
    .ok_or_else(|| format!("http_status is {value}, not a number from 100 to 999"))
}

/// Reads headers: null, an object of texts or of arrays of texts, or a list of pairs.
fn headers(value: &Value) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    match value {
        Value::Null => {}
        Value::Object(members) => {
            for (name, values) in members {
                add(&mut headers, name, values);
            }
        }
        Value::Array(pairs) => {
            for pair in pairs {
                if let Some(name) = pair[0].as_str() {
                    add(&mut headers, name, &pair[1]);
                }
            }
        }
        _ => return Err("headers are neither null, an object, nor a list of pairs".to_owned()),
    }
    Ok(headers)
}

/// Adds a header. One that HTTP could not carry is left out.
fn add(headers: &mut HeaderMap, name: &str, values: &Value) {
    let Ok(name) = name.trim().parse::<HeaderName>() else { return };
    for value in values.as_array().map_or(std::slice::from_ref(values), Vec::as_slice) {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if let Ok(value) = HeaderValue::from_str(text.trim()) {
            headers.append(name.clone(), value);
        }
    }
}
