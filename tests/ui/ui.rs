//! Stacks that do not compile say what to do.
//!
//! After a change of the compiler's wording: `TRYBUILD=overwrite cargo test -p ui`, and read what it says.

/// The counterpart that compiles. It is compiled here and not by trybuild, which then has to check only, and not to build.
#[allow(dead_code, reason = "it is there to be compiled")]
mod replay_layer_present;

#[test]
fn retrying_a_streaming_body_names_the_layer_that_is_missing() {
    trybuild::TestCases::new().compile_fail("cases/*.rs");
}
