//! `--check` and the start: settings that cannot work are refused, those that may surprise are remarked on, and no message
//! repeats a secret.

#![cfg(unix)] // as tests/relay.rs, with which it shares the process's harness
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_process;

use relay_process::{checked, ended_with, refused, refused_at};

const KEYS: &str = "[[keys]]\nkey = \"key-of-the-relay\"\n";
const TOKEN: &str = "a-token-of-some-length";
/// Keys of Google's older shape and of its newer one, and a secret of another service's.
const SECRETS: [&str; 3] = [
    "AIzaSyD-made-up-0123456789abcdefghijklm",
    "AQ.Ab8RN6made-up.0123456789-abcdefghij",
    "sk-proj-aZ3bY4cX5dW6eV7fU8gT9hS0",
];

/// Checks settings that are right. Returns the remarks about them, with `relay.toml` as the file's name.
async fn remarks(settings: &str) -> Vec<String> {
    let (code, said, remarks) = checked(settings).await;
    assert_eq!(code, Some(0), "{settings}: {said} {remarks}");
    let without_folder = |line: &str| {
        let rest = line.strip_prefix("relay: ").unwrap_or_else(|| panic!("{line}"));
        rest.split_once(".toml").map_or_else(|| rest.to_owned(), |(_, rest)| format!("relay.toml{rest}"))
    };
    remarks.lines().map(without_folder).collect()
}

/// Checks that there is one remark, at this place and with these words.
async fn remarked(settings: &str, place: &str, says: &[&str]) {
    let remarks = remarks(settings).await;
    assert_eq!(remarks.len(), 1, "{settings}: {remarks:?}");
    assert!(remarks[0].starts_with(&format!("relay.toml{place}: ")), "{settings}: {remarks:?}");
    for words in says {
        assert!(remarks[0].contains(words), "{settings}: no {words:?} in {remarks:?}");
    }
}

#[tokio::test]
async fn usual_settings_get_no_remark() {
    for settings in [
        KEYS.to_owned(),
        format!("listen = \"0.0.0.0:8787\"\nclient_tokens = [\"{TOKEN}\"]\nmax_body = \"32MiB\"\n{KEYS}"),
        format!("upstream = \"http://127.0.0.1:1\"\nlame_duck = \"5s\"\n{KEYS}"),
        format!(
            "max_concurrent_per_caller = 20\nmax_concurrent = 200\nbody_timeout = \"30s\"\n{KEYS}\
             [fallback]\n\"gemini-2.5-pro\" = [\"gemini-2.5-pro@priority\", \"gemini-2.5-flash\"]\n\
             [fallback.larger]\n\"gemma-3-27b-it\" = [\"gemini-2.5-flash\"]\n\
             [limits.default]\nrpm = 30\nrpd = 1000\npacing = \"smooth\"\nburst = 2\n[limits.\"gemini-3.9-flash\"]\nrpm = 10\n"
        ),
    ] {
        assert_eq!(remarks(&settings).await, [""; 0], "{settings}");
    }
}

#[tokio::test]
async fn a_reference_that_nobody_resolves_is_no_key() {
    for (text, right) in [
        ("$GEMINI_KEY", "env:GEMINI_KEY"),
        ("${GEMINI_KEY}", "env:GEMINI_KEY"),
        ("$(GEMINI_KEY)", "env:GEMINI_KEY"),
        ("ENV:GEMINI_KEY", "env:GEMINI_KEY"),
        ("Env: GEMINI_KEY", "env:GEMINI_KEY"),
        ("$env:GEMINI_KEY", "env:GEMINI_KEY"),
        ("%GEMINI_KEY%", "env:GEMINI_KEY"),
        ("{{ env.GEMINI_KEY }}", "env:GEMINI_KEY"),
        ("process.env.GEMINI_KEY", "env:GEMINI_KEY"),
        ("<YOUR_API_KEY>", "env:YOUR_API_KEY"),
        ("${a-secret-by-mistake}", "env:NAME"),
        ("env:$GEMINI_KEY", "env:NAME"),
        ("env:", "env:NAME"),
    ] {
        refused_at(&format!("[[keys]]\nkey = \"{text}\""), "2:7", &[right]).await;
        refused_at(&format!("client_tokens = [\"{text}\"]\n{KEYS}"), "1:18", &[right]).await;
        refused_at(&format!("[[callers]]\nname = \"a\"\ntoken = \"{text}\"\n{KEYS}"), "3:9", &[right]).await;
    }
}

#[tokio::test]
async fn an_upstream_is_an_address_alone() {
    for (text, says) in [
        ("https://generativelanguage.googleapis.com/v1beta", "/v1beta comes with each call"),
        ("https://gate.example/gemini/v1", "/v1 comes with each call"),
        ("https://generativelanguage.googleapis.com/v1beta/models/", "/v1beta comes with each call"),
        ("https://generativelanguage.googleapis.com/v1beta/openai/", "would be there twice"),
        ("http://generativelanguage.googleapis.com", "write https://generativelanguage.googleapis.com"),
        ("https://gate.example/?key=secret-of-mine", "more than a scheme, a host and a port"),
        ("https://me:secret-of-mine@gate.example", "more than a scheme, a host and a port"),
    ] {
        refused_at(&format!("upstream = {text:?}\n{KEYS}"), "1:12", &[says]).await;
        let (code, said) = ended_with(KEYS, &[("RELAY_UPSTREAM", text)]).await;
        assert!(code == Some(2) && said.contains(says) && !said.contains("secret-of-mine"), "{text}: {said}");
    }
    for (text, says) in [
        ("https://gate.example/gemini", "/gemini is put in front of each call's own path"),
        ("https://gate.example/v1/account/name/gemini", "/v1/account/name/gemini is put in front"),
        ("http://gate.example", "unencrypted"),
        ("http://8.8.8.8:8080", "unencrypted"),
        ("http://[2001:4860:4860::8888]", "unencrypted"),
    ] {
        remarked(&format!("upstream = {text:?}\n{KEYS}"), ":1:12", &[says]).await;
    }
    for text in [
        "http://localhost:1",
        "http://127.0.0.1",
        "http://[::1]:1",
        "http://10.1.2.3",
        "http://192.168.1.1",
        "http://172.31.0.1",
        "http://[fd00::1]",
        "http://gateway:8080",
        "http://gate.default.svc.cluster.local",
        "http://gate.internal",
        "https://gate.example",
    ] {
        assert_eq!(remarks(&format!("upstream = {text:?}\n{KEYS}")).await, [""; 0], "{text}");
    }
}

#[tokio::test]
async fn a_listener_that_others_reach_wants_tokens() {
    for address in ["0.0.0.0:8787", "[::]:8787", "10.0.0.1:8787"] {
        let settings = format!("listen = {address:?}\n{KEYS}");
        remarked(&settings, ":1:10", &["whoever reaches", "client_tokens or [[callers]]"]).await;
        let known = format!("client_tokens = [\"{TOKEN}\"]\n{settings}");
        assert_eq!(remarks(&known).await, [""; 0]);
        // The emulator has no key to spend.
        assert_eq!(remarks(&format!("listen = {address:?}\nupstream = \"emulator\"")).await, [""; 0]);
    }
}

#[tokio::test]
async fn a_token_is_long_and_no_key_of_google() {
    remarked(&format!("client_tokens = [\"{TOKEN}\", \"secret\"]\n{KEYS}"), ":1:44", &["fewer than 16", "openssl"])
        .await;
    remarked(&format!("{KEYS}[[callers]]\nname = \"a\"\ntoken = \"fifteen-letters\""), ":5:9", &["fewer than 16"])
        .await;
    for key in &SECRETS[..2] {
        refused_at(&format!("client_tokens = [\"{key}\"]\n{KEYS}"), "1:18", &["is a key of the Gemini API"]).await;
        refused_at(
            &format!("{KEYS}[[callers]]\nname = \"a\"\ntokens = [\"{TOKEN}\", \"{key}\"]"),
            "5:37",
            &["is a key of the Gemini API", "openssl rand"],
        )
        .await;
    }
    let same = format!("{KEYS}[[callers]]\nname = \"{TOKEN}\"\ntoken = \"{TOKEN}\"");
    refused_at(&same, "5:9", &["the caller's name"]).await;
}

#[tokio::test]
async fn names_that_the_list_of_models_does_not_know_are_remarked_on() {
    let fallback = |line: &str| format!("{KEYS}[fallback]\n{line}");
    remarked(
        &fallback("\"gemini-2.5-pro\" = [\"gemini-2.5-flsh\"]"),
        ":4:21",
        &["\"gemini-2.5-flsh\" is not in the list", "is \"gemini-2.5-flash\" meant?"],
    )
    .await;
    remarked(&fallback("\"gemini-2.5-pro\" = [\"other-1@flex\"]"), ":4:21", &["\"other-1\" is not", "each call of it"])
        .await;
    remarked(&fallback("\"gemini-2.5-por\" = [\"gemini-2.5-flash\"]"), ":4:1", &["is \"gemini-2.5-pro\" meant?"]).await;
    for (table, place) in [
        ("[limits.\"gemini-2.5-flsh\"]\nrpm = 1", ":3:9"),
        ("[prices]\n\"gemini-2.5-flsh\" = { input = 1, output = 2 }", ":4:1"),
    ] {
        remarked(&format!("{KEYS}{table}"), place, &["is \"gemini-2.5-flash\" meant?"]).await;
    }
    let caller = format!("{KEYS}[[callers]]\nname = \"a\"\ntoken = \"{TOKEN}\"\nmodels = [\"gemini-2.5-flsh\"]");
    remarked(&caller, ":6:11", &["is \"gemini-2.5-flash\" meant?"]).await;
    // New models come.
    for new in ["gemini-3.9-flash", "gemini-5-pro", "gemini-2.5-flash-preview-01-2027", "gemma-4-27b-it"] {
        assert_eq!(remarks(&format!("{KEYS}[limits.\"{new}\"]\nrpm = 1")).await, [""; 0], "{new}");
    }
}

#[tokio::test]
async fn a_size_has_a_unit() {
    for size in ["32", "33554432", "\"32\"", "\" 32 \""] {
        let says = &["a number without a unit", "MiB\""];
        refused_at(&format!("max_body = {size}\n{KEYS}"), "1:12", says).await;
    }
    for size in ["32MiB", "64 kib", "10MB", "4096B"] {
        assert_eq!(remarks(&format!("max_body = {size:?}\n{KEYS}")).await, [""; 0], "{size}");
    }
}

#[tokio::test]
async fn pairs_that_contradict_each_other_are_refused() {
    for (settings, place, says) in [
        ("listen = \"127.0.0.1:99\"\noperator_listen = \"127.0.0.1:99\"", "2:19", "give each a port"),
        ("listen = \"127.0.0.1:8788\"", "1:10", "give each a port"),
        ("operator_listen = \"0.0.0.0:8787\"", "1:19", "give each a port"),
        (
            "[limits.default]\nrpm = 9\npacing = \"smooth\"\nburst = 5\n[limits.\"gemini-2.5-pro\"]\nrpm = 2",
            "6:7",
            "less than burst, which is 5 in [limits.default]",
        ),
    ] {
        refused_at(&format!("{settings}\n{KEYS}"), place, &[says]).await;
    }
}

#[tokio::test]
async fn pairs_of_which_one_has_no_effect_are_remarked_on() {
    let caller = |more: &str| format!("[[callers]]\nname = \"a\"\ntoken = \"{TOKEN}\"\n{more}");
    let prices = "[prices]\n\"gemini-2.5-pro\" = { input = 1, output = 2 }";
    for (settings, place, says) in [
        ("max_concurrent_per_caller = 50\nmax_concurrent = 10\nmax_queued = 5".to_owned(), ":1:29", "at most 10"),
        ("body_timeout = \"10m\"".to_owned(), ":1:16", "longer than [timeout] total, 4m 45s"),
        ("lame_duck = \"10s\"\ndrain = \"25s\"".to_owned(), ":1:13", "up to 35s, but Kubernetes kills after 30s"),
        ("cache_affinity = false\nsession_header = \"x-a\"".to_owned(), ":2:18", "cache_affinity is false"),
        (
            "[timeout]\nflex_total = \"1m\"\nflex_first_byte = \"1m\"".to_owned(),
            ":2:14",
            "less than total, which is 4m 45s",
        ),
        ("[retry]\nmax_attempts = 1\npersistent = true".to_owned(), ":3:14", "nothing is tried again"),
        ("[retry]\nmax_attempts = 1\nmax_delay = \"30s\"".to_owned(), ":3:13", "nothing is tried again"),
        ("[breaker]\nenabled = false\nopen = \"1s\"".to_owned(), ":3:8", "open has no effect: enabled is false"),
        ("[precheck]\nenabled = false\nmax_output = \"clamp\"".to_owned(), ":3:14", "enabled is false"),
        ("[fallback]\nsticky = \"5s\"".to_owned(), ":2:10", "no model has another one"),
        ("[limits.default]\nrpm = 100\nrpd = 50".to_owned(), ":2:7", "more than rpd, which is 50"),
        (caller("rpm = 100\nrpd = 50"), ":4:7", "more than rpd, which is 50"),
        (caller("tpm = 100\ntpd = 50"), ":4:7", "more than tpd, which is 50"),
        (caller(&format!("money_per_day = 5\nmoney_per_month = 4\n{prices}")), ":4:17", "money_per_month"),
        ("keep_alive = \"60s\"".to_owned(), ":1:14", "many proxies cut"),
    ] {
        remarked(&format!("{settings}\n{KEYS}"), place, &[says]).await;
    }
    let of_keys = remarks(&format!("[[keys]]\nkey = \"another-key\"\n{KEYS}")).await;
    assert!(of_keys[0].starts_with("relay.toml:3:1: 2 keys have no project"), "{of_keys:?}");
}

#[tokio::test]
async fn no_message_repeats_a_secret_wherever_it_stands() {
    for secret in SECRETS {
        for settings in [
            format!("[[keys]]\nname = \"{secret}\"\nkey = \"{secret}\""),
            format!("[[keys]]\nname = \"a\"\nkey = \"{secret}\"\n[[keys]]\nname = \"{secret}\"\nkey = \"{secret}\""),
            format!("[[keys]]\nkey = \"{secret} {secret}\""),
            format!("[[keys]]\nkey = \"env:{secret}\""),
            format!("[[keys]]\nkey = \"${{{secret}}}\""),
            format!("[[keys]]\nkey = {secret}"),
            format!("[[keys]]\nkeys = \"{secret}\""),
            format!("[[keys]]\n{} = \"a\"", secret.replace('.', "-")),
            format!("[[keys]]\n\"{secret}\" = \"a\""),
            format!("key = \"{secret}\"\n{KEYS}"),
            format!("default_project = \"{secret}\"\n{KEYS}"),
            format!("upstream = \"{secret}\"\n{KEYS}"),
            format!("upstream = \"https://{secret}@gate.example\"\n{KEYS}"),
            format!("upstream = \"https://gate.example?key={secret}\"\n{KEYS}"),
            format!("upstream = \"ftp://gate.example/{secret}\"\n{KEYS}"),
            format!("listen = \"{secret}\"\n{KEYS}"),
            format!("allowed_origins = [\"{secret}\"]\n{KEYS}"),
            format!("session_header = \"{secret} x\"\n{KEYS}"),
            format!("openai_errors = \"{secret}\"\n{KEYS}"),
            format!("max_body = \"{secret}\"\n{KEYS}"),
            format!("drain = \"{secret}\"\n{KEYS}"),
            format!("client_tokens = [\"{secret}\", \"{secret}\"]\n{KEYS}"),
            format!("client_tokens = \"{secret}\"\n{KEYS}"),
            format!("{KEYS}[[callers]]\nname = \"{secret}+\"\ntoken = \"{secret}\""),
            format!("{KEYS}[[callers]]\nname = \"a\"\ntoken = \"{secret}\"\npriority = \"{secret}\""),
            format!("{KEYS}[[callers]]\nname = \"a\"\ntoken = \"{secret}\"\nmodels = [\"{secret}/ x\"]"),
            format!("{KEYS}[fallback]\n\"{secret} x\" = [\"{secret}\"]"),
            format!("{KEYS}[limits.\"{secret} x\"]\nrpm = 1"),
            format!("{KEYS}[[callers]]\nname = \"a\"\n[retry]\non_open = \"{secret}\""),
        ] {
            let (code, said) = refused(&settings).await;
            assert_eq!(code, Some(2), "{settings}: {said}");
            assert!(said.starts_with("relay.toml:"), "{settings}: {said}");
            assert!(!said.contains(secret), "{settings}: {said}");
            // In small letters, and without its beginning.
            let (said, part) = (said.to_lowercase(), secret[8..].to_lowercase());
            assert!(!said.contains(&part) && !said.contains(&part.replace('.', "-")), "{settings}: {said}");
        }
        let (code, said, remarks) = checked(&format!("upstream = \"https://gate.example/{secret}\"\n{KEYS}")).await;
        assert!(code == Some(0) && remarks.contains("is put in front"), "{remarks}");
        assert!(!remarks.contains(secret) && !said.contains(secret), "{remarks}{said}");
        let (_, said, remarks) = checked(&format!("{KEYS}[fallback]\n\"gemini-2.5-pro\" = [\"{secret}\"]")).await;
        assert!(!remarks.contains(secret) && !said.contains(secret), "{remarks}{said}");
    }
    // Of any form, where the file says that it is one.
    let (code, said, _) =
        checked(&format!("operator_token = \"{TOKEN}\"\n{KEYS}[fallback]\n\"gemini-2.5-pro\" = [\"{TOKEN}\"]")).await;
    assert!(code == Some(0) && said.contains("[hidden]") && !said.contains(TOKEN), "{said}");
    // A token that only the file knows to be one.
    let known = format!(
        "client_tokens = [\"{TOKEN}\"]\ndefault_project = \"{TOKEN}\"\nopenai_errors = \"key-of-the-relay\"\n{KEYS}"
    );
    let (code, said) = refused(&known).await;
    assert!(code == Some(2) && said.lines().count() == 2, "{said}");
    assert!(!said.contains(TOKEN) && !said.contains("key-of-the-relay"), "{said}");
}
