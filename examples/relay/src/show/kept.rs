//! The memory for kept bodies, and the line that says when it has no room.

use serde::Serialize;
use tower_gemini::replay::ReplayReport;

use crate::show::{
    problems::{Level, Problem, time},
    view::seconds,
};

/// The time for which a body that found no room is news, in seconds.
const NEWS: f64 = 300.0;

/// The memory in which requests' bodies are kept, so that their calls can be sent again.
#[derive(Serialize)]
pub(crate) struct KeptView {
    pub(crate) used_bytes: usize,
    pub(crate) max_bytes: usize,
    pub(crate) bodies: usize,
    pub(crate) callers: usize,
    /// The caller that keeps most, by its name or address, and its bytes.
    pub(crate) largest_caller: Option<String>,
    pub(crate) largest_caller_bytes: usize,
    /// The bodies that were not kept, by reason.
    pub(crate) too_large: u64,
    pub(crate) no_room: u64,
    pub(crate) caller_share: u64,
    /// The time since one was not kept for want of room.
    pub(crate) without_room_s: Option<f64>,
}

impl KeptView {
    pub(crate) fn of(report: &ReplayReport) -> Self {
        let (largest, bytes) = report.largest.clone().unwrap_or_default();
        Self {
            used_bytes: report.used,
            max_bytes: report.max,
            bodies: report.bodies,
            callers: report.callers,
            largest_caller: largest.map(|name| name.to_string()),
            largest_caller_bytes: bytes,
            too_large: report.unkept.too_large,
            no_room: report.unkept.no_room,
            caller_share: report.unkept.caller_share,
            without_room_s: report.last_without_room.map(seconds),
        }
    }

    /// Returns the problem that bodies find no room, if one has found none lately.
    pub(crate) fn problem(&self) -> Option<Problem> {
        let last = self.without_room_s.filter(|last| *last < NEWS)?;
        let so_far = self.no_room + self.caller_share;
        let bodies = if so_far == 1 { "1 body".to_owned() } else { format!("{so_far} bodies") };
        let [used, max, of_one] = [self.used_bytes, self.max_bytes, self.largest_caller_bytes].map(mib);
        let most = match &self.largest_caller {
            Some(caller) => format!(", {of_one} by {caller} alone"),
            None => String::new(),
        };
        Some(Problem {
            level: Level::Warn,
            what: format!(
                "{bodies} of requests found no room to be kept, the last {} ago: such a call has one attempt, without retry, another \
                 key or fallback. {used} of {max} are in use{most}.",
                time(last)
            ),
            what_to_do:
                "Raise max_kept where the machine has memory, or let the caller send fewer large requests at a time \
                         (max_concurrent_per_caller, max_kept_per_caller)."
                    .to_owned(),
        })
    }
}

fn mib(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing_kept() -> KeptView {
        KeptView {
            used_bytes: 0,
            max_bytes: 1 << 29,
            bodies: 0,
            callers: 0,
            largest_caller: None,
            largest_caller_bytes: 0,
            too_large: 9,
            no_room: 0,
            caller_share: 0,
            without_room_s: None,
        }
    }

    #[test]
    fn bodies_that_found_no_room_are_said_while_they_are_news() {
        let said = |kept: &KeptView| kept.problem().map(|problem| problem.what).unwrap_or_default();
        assert!(said(&nothing_kept()).is_empty(), "large ones are no problem");
        let mut kept = KeptView { no_room: 1, without_room_s: Some(20.0), ..nothing_kept() };
        assert!(said(&kept).starts_with("1 body of requests found no room to be kept, the last 20 s ago"));
        assert!(said(&kept).ends_with("0.0 MiB of 512.0 MiB are in use."));
        kept = KeptView {
            used_bytes: 300 << 20,
            caller_share: 2,
            largest_caller: Some("jobs".to_owned()),
            largest_caller_bytes: 256 << 20,
            ..kept
        };
        assert!(said(&kept).ends_with("300.0 MiB of 512.0 MiB are in use, 256.0 MiB by jobs alone."));
        assert!(said(&KeptView { without_room_s: Some(NEWS), ..kept }).is_empty());
    }
}
