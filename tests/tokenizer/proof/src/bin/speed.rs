//! Measures the counter's speed and memory on documents of each kind that `compare.py --save` has saved.

#![allow(clippy::disallowed_methods, reason = "a stopwatch is no clock that a test would pause")]

use std::{
    collections::BTreeMap,
    hint::black_box,
    time::{Duration, Instant},
};

use tower_gemini::{token_precheck::estimate::Estimate, tokenizer::Tokenizer};

fn main() {
    let saved = std::env::args().nth(1).expect("the directory that compare.py --save has made");
    let before = resident();
    let start = Instant::now();
    Tokenizer::prepare();
    println!("start: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    black_box(Tokenizer::gemma3().count("first"));
    let after = resident();

    let lines = std::fs::read_to_string(std::path::Path::new(&saved).join("documents.jsonl")).expect("documents");
    let mut corpora: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines.lines() {
        let (kind, text): (String, String) = serde_json::from_str(line).expect("a kind and a text");
        corpora.entry("all".into()).or_default().push(text.clone());
        corpora.entry(kind).or_default().push(text);
    }
    let counter = resident();
    for (kind, texts) in corpora.iter().filter(|(_, texts)| texts.len() > 10) {
        row(kind, texts, |text| Tokenizer::gemma3().count(text).at_least);
    }
    row("all, estimated", &corpora["all"], |text| {
        let mut estimate = Estimate::new();
        estimate.push(text);
        estimate.tokens()
    });
    println!(
        "resident: {} KiB for the vocabulary and one counter, {} KiB more after all",
        after - before,
        resident() - counter
    );
}

fn row(name: &str, texts: &[String], count: impl Fn(&str) -> u64) {
    let bytes: usize = texts.iter().map(String::len).sum();
    let times = (0..5).map(|_| {
        let start = Instant::now();
        texts.iter().for_each(|text| _ = black_box(count(text)));
        start.elapsed()
    });
    let best = times.min().unwrap_or(Duration::MAX);
    println!("{name:16} {bytes:9} bytes {:7.1} MB/s", bytes as f64 / best.as_secs_f64() / 1e6);
}

/// Returns the memory in KiB, where /proc has it.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
