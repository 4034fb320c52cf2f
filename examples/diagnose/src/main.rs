//! Shows the crate's judgement of errors: the troubleshooting guide as a program. It says what a response means, whose
//! fault it is, what to do, and how long to wait.
//!
//! ```text
//! curl -s -w '%{http_code}' … | diagnose --status 429 --header 'Retry-After: 7' < body
//! diagnose --jsonl < responses.jsonl
//! ```
//!
//! It uses the crate's public API only: `Failure` judges, and `Kind::advice` has the words.

mod answer;
mod guide;
mod jsonl;
mod words;

use std::{
    io::{self, IsTerminal, Read, Write},
    process::ExitCode,
};

use clap::{CommandFactory, Parser};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tower_gemini::failure::Failure;

/// Explains a response of the Gemini API: what it means, whose fault it is, what to do, and how long to wait.
///
/// The body is read from standard input.
#[derive(Parser)]
#[command(
    name = "diagnose",
    version,
    after_help = "\
Examples:
  diagnose --status 429 --header 'Retry-After: 7' < body.json
  diagnose --status 503 --model gemini-2.5-pro < body.json
  diagnose --jsonl < responses.jsonl      one object a line: {id, http_status, headers, body}"
)]
struct Arguments {
    /// The HTTP status of the response
    #[arg(long, value_parser = status, required_unless_present = "jsonl")]
    status: Option<StatusCode>,

    /// A header of the response; may be given more than once
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,

    /// The model that was asked, to say which one to try instead
    #[arg(long, value_name = "NAME")]
    model: Option<String>,

    /// The same request has had the same answer before
    #[arg(long)]
    again: bool,

    /// Judge many responses: read objects {id, http_status, headers, body}, one a line, and write a verdict a line
    #[arg(long, conflicts_with_all = ["status", "header", "model", "again"])]
    jsonl: bool,
}

fn status(text: &str) -> Result<StatusCode, String> {
    text.parse().map_err(|_| "an HTTP status is a number from 100 to 999".to_owned())
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("a header has a colon: 'Retry-After: 7'")?;
    let name = name.trim().parse().map_err(|_| format!("{:?} is not a header name", name.trim()))?;
    let value = value.trim().parse().map_err(|_| format!("{:?} is not a header value", value.trim()))?;
    Ok((name, value))
}

fn main() -> ExitCode {
    if std::env::args_os().len() < 2 {
        let _ = Arguments::command().print_help();
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::parse();
    let result = match arguments.status {
        Some(status) => one(status, arguments),
        None => jsonl::run(io::stdin().lock(), io::stdout().lock()),
    };
    match result {
        Ok(code) => code,
        // The reader has closed the pipe.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("diagnose: {error}");
            ExitCode::FAILURE
        }
    }
}

fn one(status: StatusCode, arguments: Arguments) -> io::Result<ExitCode> {
    let headers: HeaderMap = arguments.header.into_iter().collect();
    let mut stdin = io::stdin().lock();
    let mut body = Vec::new();
    let has_body = !stdin.is_terminal();
    if has_body {
        stdin.read_to_end(&mut body)?;
    }
    let failure = match has_body {
        _ if status.is_success() => answer::failure_in(&body),
        true => Some(Failure::from_response(status, &headers, &body)),
        false => Some(Failure::from_status(status, &headers)),
    };
    let mut out = io::stdout().lock();
    let Some(mut failure) = failure else {
        writeln!(out, "Nothing is wrong: the answer has content and was finished.")?;
        return Ok(ExitCode::SUCCESS);
    };
    if arguments.again {
        failure.mark_content_suspected();
    }
    out.write_all(words::explain(&failure, arguments.model.as_deref()).as_bytes())?;
    if !has_body && !status.is_success() {
        writeln!(out, "\nThis is from the status alone. Pipe the body in to know more.")?;
    }
    Ok(ExitCode::SUCCESS)
}
