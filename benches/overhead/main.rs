//! Measures what one call costs in each layer, beside tower's, tower-http's, tower-resilience's, seatbelt's, failsafe's, recloser's
//! and tower_governor's counterparts.
//!
//! # How it measures
//!
//! The upstream is a service that is always ready and answers at once from memory, so that the rest of a call's time is the
//! layer's. One measured call is: `poll_ready`, `call`, the future polled to its end, the answer's body read frame by frame
//! to its end, everything dropped. The request is made outside of the clock, anew for each call and from fresh strings, as a
//! client or a server makes it: a POST with three headers and 2 KiB of JSON in a `Full<Bytes>` (1 KiB in the groups of the whole
//! stack). The answer has six headers and 2 KiB of JSON, or server-sent events. No runtime is driven: all futures are ready
//! at the first poll, or at the second in the group that says so, except in rows that name a timer.
//!
//! On a machine with other load, two rows are comparable only if they were measured at the same time. So the services of a
//! group take turns, half a millisecond each, 300 times; those of groups on threads 5 ms each, 60 times. "ns" is the median of a row's turns. "over bare" is the median of what a turn
//! took more than the turn of the group's bare service in the same round: the price of the layer. Allocations are counted on one
//! warm call, by another program (`counting.rs`), because a counting allocator takes time.
//!
//! The last groups are the scan that `ClassifyLayer` does while an answer passes: its throughput is that of the whole call,
//! in bytes of the answer over time.
//!
//! # How it is run
//!
//! `cargo bench -p benches --bench overhead` measures all groups and ends with the bars that ratios of the rows have to keep.
//! Behind `--`, a part of the name of a group or a row chooses what is measured, `--bars` makes a bar that is missed, or
//! not measured, an error, `--readme` writes the tables and the picture into `benches/` after a run of all groups, and `--test` makes
//! each call once, without bars. `OVERHEAD_BEFORE` names the program of another build of this bench (cargo prints its path),
//! which measures each group right after this one, for the columns and bars that compare with it.

#[path = "../shared/mod.rs"]
mod shared;

mod allocations;
mod bars;
mod before;
mod groups;
mod measure;
mod peers;
mod picture;
mod rows;
mod run;
mod upstream;

/// The counter of this program: there is none, because a counting allocator takes time.
mod counter {
    pub(crate) fn count(call: impl FnOnce()) -> Option<u64> {
        call();
        None
    }
}

fn main() -> std::process::ExitCode {
    run::main()
}
