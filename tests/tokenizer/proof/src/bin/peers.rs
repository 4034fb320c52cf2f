//! Compares the counter with other implementations of the same vocabularies, in one run on one core.
//!
//! `README.md` above this directory says how to run it.

#![allow(clippy::disallowed_methods, reason = "a stopwatch is no clock that a test would pause")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tower_gemini::tokenizer::Tokenizer;

fn main() {
    let saved = std::env::args().nth(1).expect("the directory that compare.py --save has made");
    let saved = Path::new(&saved);
    let lines = std::fs::read_to_string(saved.join("documents.jsonl")).expect("documents");
    let texts: Vec<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<(String, String)>(line).expect("a kind and a text").1)
        // Some of the implementations are slow.
        .step_by(6)
        .collect();
    println!("{} documents, {} bytes", texts.len(), texts.iter().map(String::len).sum::<usize>());

    let gemini = gemini_tokenizer::LocalTokenizer::new("gemini-2.5-flash").expect("it has its model");
    let kitoken = kitoken::Kitoken::from_sentencepiece_file(saved.join("gemma3.model")).expect("Gemma 3's model");
    let tokenizers = tokenizers::Tokenizer::from_file(saved.join("gemma4.json")).expect("Gemma 4's tokenizer");
    Tokenizer::prepare();

    let three: Vec<u64> = row("tower-gemini, Gemma 3", &texts, None, |text| exact(Tokenizer::gemma3(), text));
    let four: Vec<u64> = row("tower-gemini, Gemma 4", &texts, None, |text| exact(Tokenizer::gemma4(), text));
    row("kitoken 0.11, Gemma 3", &texts, Some(&three), |text| {
        kitoken.encode(text, false).expect("tokens").len() as u64
    });
    row("tokenizers 0.23, Gemma 4", &texts, Some(&four), |text| {
        tokenizers.encode(text, false).expect("tokens").len() as u64
    });
    row("gemini-tokenizer 0.2, Gemma 3", &texts, Some(&three), |text| {
        gemini.count_tokens(text, None).total_tokens as u64
    });
}

fn exact(tokenizer: Tokenizer, text: &str) -> u64 {
    tokenizer.count(text).exact().expect("documents are counted exactly")
}

/// Counts everything three times, and takes the least time.
fn row(name: &str, texts: &[String], expected: Option<&[u64]>, count: impl Fn(&str) -> u64) -> Vec<u64> {
    let (mut counts, mut best) = (Vec::new(), Duration::MAX);
    for _ in 0..3 {
        let start = Instant::now();
        counts = texts.iter().map(|text| count(text)).collect();
        best = best.min(start.elapsed());
    }
    let bytes = texts.iter().map(String::len).sum::<usize>();
    let other = expected.map_or(0, |expected| expected.iter().zip(&counts).filter(|(a, b)| a != b).count());
    println!("{name:30} {:7.1} MB/s, {other} counts differ", bytes as f64 / best.as_secs_f64() / 1e6);
    counts
}
