//! The last reload of the settings, as it is shown: whether it was good, and since when the settings are in force.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;
use tower_gemini::clock;

use crate::show::{
    problems::{Level, Problem},
    view::seconds,
};

/// The most mistakes that are kept of a reload that has failed.
const MOST: usize = 20;

/// The last reload of the settings. Their first reading, at the start, counts as a good one.
#[derive(Clone, Debug)]
pub(crate) struct Reloads(Arc<Mutex<LastReload>>);

#[derive(Debug)]
struct LastReload {
    /// The time of the last good one.
    good: Moment,
    /// The last one, if it has failed.
    failed: Option<FailedReload>,
}

#[derive(Clone, Debug)]
struct FailedReload {
    at: Moment,
    mistakes: Vec<String>,
}

/// A moment, on the wall's clock and on the one that measures.
#[derive(Clone, Copy, Debug)]
struct Moment(SystemTime, Instant);

impl Moment {
    fn now() -> Self {
        Self(clock::wall(), Instant::now())
    }

    fn shown(self) -> String {
        humantime::format_rfc3339_seconds(self.0).to_string()
    }
}

/// The state of the settings, as `/status` has it.
#[derive(Serialize)]
pub(crate) struct SettingsView {
    /// A flag: the last reload was good, or there was none.
    pub(crate) reloaded: bool,
    /// The time of the last good reload, or of the start.
    since: String,
    since_s: f64,
    /// The time of the last reload, if it has failed.
    failed_at: Option<String>,
    failed_ago_s: Option<f64>,
    mistakes: Vec<String>,
}

impl Reloads {
    /// Notes that the settings in force were read just now.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(LastReload { good: Moment::now(), failed: None })))
    }

    /// Notes that new settings are in force.
    pub(crate) fn succeeded(&self) {
        *self.0.lock() = LastReload { good: Moment::now(), failed: None };
    }

    /// Notes that new settings have these mistakes, which are fit to be shown.
    pub(crate) fn failed(&self, mistakes: &[String]) {
        let mistakes = mistakes.iter().take(MOST).cloned().collect();
        self.0.lock().failed = Some(FailedReload { at: Moment::now(), mistakes });
    }

    /// Returns whether the last reload was good.
    pub(crate) fn is_good(&self) -> bool {
        self.0.lock().failed.is_none()
    }

    /// Returns the time of the last good reload, since 1970.
    pub(crate) fn last_good(&self) -> Duration {
        self.0.lock().good.0.duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    pub(crate) fn view(&self, now: Instant) -> SettingsView {
        let last = self.0.lock();
        let failed = last.failed.as_ref();
        let ago = |moment: Moment| seconds(now.saturating_duration_since(moment.1));
        SettingsView {
            reloaded: failed.is_none(),
            since: last.good.shown(),
            since_s: ago(last.good),
            failed_at: failed.map(|failed| failed.at.shown()),
            failed_ago_s: failed.map(|failed| ago(failed.at)),
            mistakes: failed.map(|failed| failed.mistakes.clone()).unwrap_or_default(),
        }
    }

    /// Returns the problem, if the last reload has failed.
    pub(crate) fn problem(&self) -> Option<Problem> {
        let last = self.0.lock();
        let failed = last.failed.as_ref()?;
        let (at, since) = (failed.at.shown(), last.good.shown());
        let mistakes = failed.mistakes.join("; ");
        Some(Problem {
            level: Level::Warn,
            what: format!("The settings were not reloaded at {at}, as they are wrong; those of {since} are in force."),
            what_to_do: format!("Correct them and send the relay SIGHUP, or POST /reload: {mistakes}"),
        })
    }
}
