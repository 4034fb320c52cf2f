//! What does not compile says what to do.
//!
//! After a change of the compiler's wording: `TRYBUILD=overwrite cargo test -p ui`, and read what it says.

#[test]
fn retrying_a_streaming_body_names_the_layer_that_is_missing() {
    let cases = trybuild::TestCases::new();
    cases.pass("cases/replay_layer_present.rs");
    cases.compile_fail("cases/replay_layer_forgotten.rs");
    cases.compile_fail("cases/replay_layer_forgotten_under_axum.rs");
}
