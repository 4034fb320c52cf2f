//! Tests of the token counter against counts of Google's and Hugging Face's tokenizers, and of its bounds of time and
//! memory.
//!
//! `tests/tokenizer/README.md` says where the counts come from, and how to compare more.

use std::thread;

use serde_json::Value;
use tower_gemini::tokenizer::{Counter, Exactness, Tokenizer};

const FIXTURES: &str = include_str!("tokenizer/fixtures.jsonl");

fn fixtures() -> impl Iterator<Item = Vec<Value>> {
    FIXTURES.lines().map(|line| serde_json::from_str(line).unwrap())
}

#[test]
fn texts_count_as_the_reference_counts_them() {
    let mut compared = 0;
    for fixture in fixtures() {
        if let [Value::String(text), gemma3, gemma4] = &fixture[..] {
            assert_eq!(Tokenizer::gemma3().count(text).exact(), gemma3.as_u64(), "Gemma 3: {text:?}");
            assert_eq!(Tokenizer::gemma4().count(text).exact(), gemma4.as_u64(), "Gemma 4: {text:?}");
            compared += 1;
        }
    }
    assert!(compared >= 300, "{compared}");
}

#[test]
fn requests_count_as_the_reference_counts_them() {
    let mut compared = 0;
    for fixture in fixtures() {
        if let [request @ Value::Object(_), gemma3] = &fixture[..] {
            for body in [request.clone(), serde_json::json!({"generateContentRequest": request})] {
                let count = Tokenizer::gemma3().count_request(body.to_string().as_bytes()).unwrap();
                assert_eq!(count.exact(), gemma3.as_u64(), "{body}");
            }
            compared += 1;
        }
    }
    assert!(compared >= 50, "{compared}");
}

#[test]
fn models_have_the_vocabulary_that_googles_sdk_gives_them() {
    use Exactness::{Estimate, Exact};
    let (gemma3, gemma4) = (Tokenizer::gemma3(), Tokenizer::gemma4());
    for (model, expected) in [
        ("gemini-2.5-pro", (gemma3, Exact)),
        ("models/gemini-2.5-flash", (gemma3, Exact)),
        ("publishers/google/models/gemini-2.0-flash-lite-001", (gemma3, Exact)),
        ("gemini-2.5-flash-lite-preview-06-17", (gemma3, Exact)),
        ("gemini-live-2.5-flash", (gemma3, Exact)),
        ("gemini-3-flash-preview", (gemma3, Exact)),
        ("gemini-3.1-pro-preview", (gemma4, Exact)),
        ("gemini-3.1-flash-lite", (gemma4, Exact)),
        ("gemini-3.5-flash", (gemma4, Exact)),
        ("gemini-3.5-flash-lite", (gemma4, Estimate)),
        ("gemini-2.5-flash-image", (gemma3, Estimate)),
        ("gemini-2.5-pro-", (gemma3, Estimate)),
        ("gemini-2.5-pro2", (gemma3, Estimate)),
        ("gemma-3-27b-it", (gemma3, Estimate)),
        ("gemini-4-argon", (gemma4, Estimate)),
        ("gemini-flash-latest", (gemma4, Estimate)),
        ("", (gemma4, Estimate)),
    ] {
        assert_eq!(Tokenizer::for_model(model), expected, "{model}");
    }
}

#[test]
fn only_gemma_3_takes_tags_whole() {
    for (text, gemma3, gemma4) in
        [("<table>", 1, 3), ("</li>", 1, 3), ("<unused6241>", 1, 7), ("<bos>", 3, 1), ("<|turn>", 4, 1), ("[i]", 3, 3)]
    {
        assert_eq!(Tokenizer::gemma3().count(text).exact(), Some(gemma3), "{text}");
        assert_eq!(Tokenizer::gemma4().count(text).exact(), Some(gemma4), "{text}");
    }
}

#[test]
fn a_limit_ends_the_count() {
    let text = "word ".repeat(10_000);
    let count = Tokenizer::gemma4().count_until(&text, 100);
    assert_eq!((count.at_least, count.at_most, count.exact()), (101, u64::MAX, None));
    // A count at the limit is not over it.
    let exact = Tokenizer::gemma4().count(&text).exact().unwrap();
    assert_eq!(Tokenizer::gemma4().count_until(&text, exact).exact(), Some(exact));
    assert_eq!(Tokenizer::gemma4().count_until(&text, exact - 1).exact(), None);

    let mut counter = Tokenizer::gemma4().counter().limit(100);
    counter.push(&text);
    assert!(counter.is_stopped());
    // Later texts are not looked at.
    counter.push(&text);
    assert_eq!(counter.count().at_least, 101);
}

#[test]
fn a_stretch_without_a_cut_is_bounded_not_merged() {
    let longest = "a".repeat(Counter::LONGEST_STRETCH);
    assert_eq!(Tokenizer::gemma4().count(&longest).exact(), Some(128));
    let count = Tokenizer::gemma4().count(&"a".repeat(1_000_000));
    assert_eq!((count.at_least, count.at_most), (62_500, 1_000_000));
    // Many shorter ones are not merged either, but those of 32 always are.
    let mut counter = Tokenizer::gemma4().counter();
    let line = format!("{}1", "a".repeat(64));
    let lines = (Counter::ALLOWANCE / 64) as u64;
    for _ in 0..lines {
        counter.push(&line);
    }
    assert_eq!(counter.count().exact(), Some(lines * 9));
    counter.push(&line);
    assert_eq!((counter.count().at_least, counter.count().at_most), (lines * 9 + 5, lines * 9 + 65));
    counter.push(&"a".repeat(32));
    assert_eq!((counter.count().at_least, counter.count().at_most), (lines * 9 + 9, lines * 9 + 69));
}

#[test]
fn many_count_at_once() {
    let text: String = fixtures().filter_map(|fixture| fixture[0].as_str().map(str::to_owned)).collect();
    let expected = Tokenizer::gemma3().count(&text);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..5).for_each(|_| assert_eq!(Tokenizer::gemma3().count(&text), expected)));
        }
    });
}

/// A coarse check against quadratic time, which would take minutes. The benchmark has the real times.
#[test]
fn no_megabyte_takes_long() {
    let letters = |size: usize, cut: usize| -> String {
        let mut state = 1u64;
        let mut letter = |at: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if at.is_multiple_of(cut) { '1' } else { char::from(b'a' + (state >> 33) as u8 % 26) }
        };
        (0..size).map(&mut letter).collect()
    };
    let size = 1 << 20;
    let texts = [
        "a".repeat(size),
        "ab".repeat(size / 2),
        "<".repeat(size),
        " ".repeat(size),
        "\u{2581} ".repeat(size / 4),
        "\u{301}".repeat(size / 2),
        "漢字".repeat(size / 6),
        letters(size, usize::MAX),
        letters(size, 32),
        letters(size, 1024),
    ];
    let start = tokio::time::Instant::now();
    texts.iter().for_each(|text| _ = Tokenizer::gemma3().count(text));
    assert!(start.elapsed().as_secs() < 30);
}
