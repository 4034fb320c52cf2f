//! Reads JSON, one value a line: a text, or the object of a request. Prints the bounds of each one's tokens, by Gemma 3's and
//! by Gemma 4's vocabulary.

use std::io::{BufRead, BufWriter, Write, stdin, stdout};

use tower_gemini::tokenizer::Tokenizer;

fn main() {
    let (input, mut output) = (stdin().lock(), BufWriter::new(stdout().lock()));
    for line in input.lines() {
        let line = line.expect("a line");
        for tokenizer in [Tokenizer::gemma3(), Tokenizer::gemma4()] {
            let count = if line.starts_with('{') {
                tokenizer.count_request(line.as_bytes()).expect("a request")
            } else {
                tokenizer.count(&serde_json::from_str::<String>(&line).expect("a string"))
            };
            write!(output, "{} {} ", count.at_least, count.at_most).expect("output");
        }
        writeln!(output).expect("output");
    }
}
