//! Runs the proofs that `tower_gemini::proofs` lists, or those whose names contain the argument.

use std::time::Instant;

fn main() {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let mut ran = 0;
    for (name, proof) in tower_gemini::proofs::all().filter(|(name, _)| name.contains(&wanted)) {
        let begun = Instant::now();
        println!("{name} ...");
        proof();
        println!("{name} holds, {:.1?}", begun.elapsed());
        ran += 1;
    }
    assert!(ran > 0, "no proof is called {wanted}");
}
