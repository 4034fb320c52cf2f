//! Counts the allocations of the calls that `overhead` measures: a program of its own, because a counting allocator takes time.
//!
//! `overhead` runs it by itself. A buffer that grows counts as one more allocation.

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

/// The counter of this program.
mod counter {
    pub(crate) fn count(call: impl FnOnce()) -> Option<u64> {
        Some(allocation_counter::measure(call).count_total)
    }
}

fn main() -> std::process::ExitCode {
    run::main()
}
