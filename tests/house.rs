//! Holds the floors of the crate: who may import whom, read from the sources themselves.
//!
//! The ground floor imports nothing above it, no room imports another room or the roof, and there is no circle between
//! the folders of the ground floor, between those of the emulator, or between the files of the relay. Rust allows all
//! of that within one crate, and a reviewer overlooks it; a circle that has come in is hard to get out again.

mod house {
    pub(crate) mod floors;
    pub(crate) mod imports;
}

use std::{fs, path::Path};

use crate::house::floors::breaches;

/// Reads all sources below a folder of this package. There are none where there is no such folder: a published crate
/// has no relay.
fn sources(folder: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, name: &str, found: &mut Vec<(String, String)>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.map(Result::unwrap) {
            let name = format!("{name}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &name, found);
            } else if name.ends_with(".rs") {
                found.push((name, fs::read_to_string(entry.path()).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), folder, &mut found);
    found.sort();
    found
}

#[test]
fn the_house_stands() {
    let mut library = sources("src");
    let found = breaches(&library);
    assert!(found.is_empty(), "{}", found.join("\n"));
    // It reads what it is meant to read.
    let (_, retry) = library.iter_mut().find(|(path, _)| path == "src/retry/future.rs").unwrap();
    retry.push_str("use crate::rate_limit::Limiter;");
    assert_breach(&breaches(&library), &["src/retry/future.rs", "a room imports no room"]);
}

#[test]
fn the_relay_has_no_circle() {
    let found = breaches(&sources("examples/relay/src"));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

// === what it catches ===

fn house(files: &[(&str, &str)]) -> Vec<String> {
    let files: Vec<_> = files.iter().map(|(path, source)| ((*path).to_owned(), (*source).to_owned())).collect();
    breaches(&files)
}

/// Asserts that there is just one breach, which says all of this.
#[track_caller]
fn assert_breach(found: &[String], says: &[&str]) {
    let [breach] = found else { panic!("{found:?}") };
    assert!(says.iter().all(|word| breach.contains(word)), "{breach}");
}

#[test]
fn a_room_that_imports_a_room_is_caught() {
    let found = house(&[
        ("src/retry/mod.rs", "mod future;"),
        ("src/retry/future.rs", "use crate::{body::Resend, rate_limit::{Limiter}};"),
        ("src/rate_limit/mod.rs", "pub struct Limiter;"),
        ("src/body/mod.rs", "pub trait Resend {}"),
    ]);
    assert_breach(&found, &["src/retry/future.rs", "retry", "rate_limit", "a room"]);
    // By a re-export of the crate's root, and without a `use`.
    let found = house(&[
        ("src/lib.rs", "pub use crate::{context::Error, timeout::TimeoutLayer as Clocks};"),
        ("src/retry/mod.rs", "fn f(_: crate::Clocks) -> crate::Error { loop {} }"),
        ("src/timeout/mod.rs", ""),
        ("src/context/mod.rs", ""),
    ]);
    assert_breach(&found, &["src/retry/mod.rs", "timeout", "crate::Clocks"]);
    let found = house(&[("src/retry/mod.rs", "use super::stack::GeminiLayer;"), ("src/stack/mod.rs", "")]);
    assert_breach(&found, &["the roof", "super::stack"]);
}

#[test]
fn a_ground_floor_that_imports_a_room_is_caught() {
    let found = house(&[
        ("src/context/mod.rs", "mod outcome;"),
        ("src/context/outcome.rs", "use super::super::classify::Verdict as Judged;"),
        ("src/classify/mod.rs", ""),
    ]);
    assert_breach(&found, &["src/context/outcome.rs", "classify", "above"]);
}

#[test]
fn a_circle_on_the_ground_floor_is_caught() {
    let found = house(&[
        ("src/status/mod.rs", "use crate::redact::redact;"),
        ("src/redact.rs", "fn f() { crate::call::Call::new() }"),
        ("src/call.rs", "mod inside { use super::super::status::Envelope; }"),
    ]);
    assert_breach(&found, &["a circle on the ground floor", "status", "redact", "call"]);
}

#[test]
fn a_circle_in_the_emulator_is_caught() {
    let found = house(&[
        ("src/emulator/mod.rs", "mod state; pub use self::script::{Trouble, When};"),
        ("src/emulator/state/mod.rs", "use super::Trouble;"),
        ("src/emulator/script/mod.rs", "use crate::emulator::state::Quota;"),
    ]);
    assert_breach(&found, &["a circle in the emulator", "state", "script"]);
}

#[test]
fn a_circle_in_the_relay_is_caught() {
    let found = house(&[
        ("examples/relay/src/main.rs", "mod serve; mod config;"),
        ("examples/relay/src/serve/mod.rs", "mod proxy; mod live;"),
        ("examples/relay/src/serve/proxy.rs", "use crate::serve::live::Live;"),
        ("examples/relay/src/serve/live.rs", "fn f() { super::proxy::forward() }"),
    ]);
    assert_breach(&found, &["a circle in the relay", "serve/proxy", "serve/live"]);
}

#[test]
fn what_is_no_import_is_not_taken_for_one() {
    let found = house(&[
        ("src/rate_limit/mod.rs", "#[cfg(test)] mod tests; #[cfg(test)] mod more { use crate::emulator::Emulator; }"),
        ("src/rate_limit/tests.rs", "use crate::{circuit_breaker::Trip, emulator::Emulator};"),
        (
            "src/retry/mod.rs",
            r##"
            //! [`x`](crate::rate_limit::Limiter)
            /* use crate::rate_limit; /* nested */ use crate::rate_limit; */
            const A: &str = "use crate::rate_limit; \" use crate::rate_limit;";
            const B: &str = r#"use crate::rate_limit; " use crate::rate_limit;"#;
            const C: (char, u8) = ('"', b'\'');
            pub(crate) fn f<'a>(_: &'a str) -> impl Sized + use<'a> {}
            #[cfg(all(test, feature = "emulator"))]
            fn g() { crate::emulator::Emulator::new() }
            "##,
        ),
        ("src/circuit_breaker/mod.rs", ""),
        ("src/emulator/mod.rs", ""),
    ]);
    assert_eq!(found, Vec::<String>::new());
    let found = house(&[("src/attic.rs", "")]);
    assert_breach(&found, &["attic", "no floor"]);
}
