//! Measures the error of the estimate against the count, on documents that `compare.py --save` has saved.

use tower_gemini::{token_precheck::estimate::Estimate, tokenizer::Tokenizer};

fn main() {
    let saved = std::env::args().nth(1).expect("the directory that compare.py --save has made");
    let lines = std::fs::read_to_string(std::path::Path::new(&saved).join("documents.jsonl")).expect("documents");
    let (mut errors, mut quarters) = (Vec::new(), Vec::new());
    for line in lines.lines() {
        let (_, text): (String, String) = serde_json::from_str(line).expect("a kind and a text");
        let count = Tokenizer::gemma4().count(&text).exact().expect("documents are counted exactly") as f64;
        let mut estimate = Estimate::new();
        estimate.push(&text);
        errors.push(estimate.tokens() as f64 / count - 1.0);
        quarters.push(text.len() as f64 / 4.0 / count - 1.0);
    }
    println!("least, 1 %, 5 %, median, 95 %, 99 %, most");
    for (name, errors) in [("estimate", &mut errors), ("bytes / 4", &mut quarters)] {
        errors.sort_by(f64::total_cmp);
        let at = |part: f64| errors[((errors.len() - 1) as f64 * part) as usize] * 100.0;
        let row: Vec<_> = [0.0, 0.01, 0.05, 0.5, 0.95, 0.99, 1.0].map(|part| format!("{:+.1} %", at(part))).into();
        println!("{name}: {}", row.join(", "));
        errors.iter_mut().for_each(|error| *error = error.abs());
        errors.sort_by(f64::total_cmp);
        println!("{name}: off by {:.1} % in the median", errors[errors.len() / 2] * 100.0);
    }
}
