//! The data of `/status`, as JSON has them.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use serde::{Serialize, Serializer};
use tokio::time::Instant;
use tower_gemini::{
    caller_limit::CallerReport,
    context::Priority,
    key_pool::{DisabledReason, KeyReport, KeyState, Part},
    model_fallback::ChainReport,
    rate_limit::{BlockReport, DimensionReport, ScopeReport, WaitingReport},
};

use crate::show::{advice::FailureAdvice, failures::FailureRecord};

/// The time for which a call counts in the quota of a minute.
const MINUTE: Duration = Duration::from_secs(60);

/// The quota of a model in a project.
#[derive(Serialize)]
pub(crate) struct LimitView {
    pub(crate) project: String,
    pub(crate) blocked_for_s: Option<f64>,
    /// The refusals of the API that are believed.
    pub(crate) parked: Vec<ParkView>,
    /// The number of calls that wait for their turn.
    pub(crate) waiting: usize,
    pub(crate) waiting_by_priority: BTreeMap<&'static str, usize>,
    pub(crate) dimensions: Vec<DimensionView>,
}

impl LimitView {
    pub(crate) fn of(report: &ScopeReport) -> Self {
        // The usage of all, as it was last told, while that still counts.
        let by_all =
            report.shared.filter(|shared| shared.age.is_some_and(|age| age < MINUTE)).map(|shared| shared.used);
        let dimension = |(nth, of): (usize, &DimensionReport)| DimensionView {
            of: of.dimension.as_str(),
            used: by_all.map_or(of.used, |used| used[nth].max(of.used)),
            used_here: report.shared.map(|_| of.used),
            max: of.limit,
        };
        let priorities = [Priority::Interactive, Priority::Normal, Priority::Batch];
        Self {
            project: report.scope.project().to_owned(),
            blocked_for_s: report.blocked_for.map(seconds),
            parked: report.blocks.iter().map(ParkView::of).collect(),
            waiting: report.waiting,
            waiting_by_priority: priorities.map(Priority::as_str).into_iter().zip(report.waiting_by_priority).collect(),
            dimensions: report.dimensions.iter().enumerate().map(dimension).collect(),
        }
    }
}

/// A refusal that is believed, until its end or until one call shows that it no longer holds.
#[derive(Serialize)]
pub(crate) struct ParkView {
    /// The part that rests: `model` or `grounded_calls`.
    #[serde(serialize_with = "by_name")]
    pub(crate) part: Part,
    /// The kind of the refusal.
    pub(crate) reason: &'static str,
    /// The time until it ends by itself.
    pub(crate) back_in_s: f64,
    /// The time until one call may look whether it still holds.
    pub(crate) asked_again_in_s: f64,
}

impl ParkView {
    fn of(report: &BlockReport) -> Self {
        Self {
            part: if report.grounded { Part::Grounded } else { Part::Model },
            reason: report.kind.as_str(),
            back_in_s: seconds(report.ends),
            asked_again_in_s: seconds(report.look),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct DimensionView {
    /// "requests a minute" and the like.
    pub(crate) of: &'static str,
    /// The usage: of all relays, where they share the quota.
    pub(crate) used: u64,
    /// The part of it that has gone through this relay, where others share the quota.
    pub(crate) used_here: Option<u64>,
    pub(crate) max: Option<u64>,
}

impl DimensionView {
    pub(crate) fn is_of_a_minute(&self) -> bool {
        self.of.ends_with("a minute")
    }

    pub(crate) fn percent(&self) -> Option<u64> {
        let max = self.max.filter(|max| *max > 0)?;
        Some(self.used.saturating_mul(100) / max)
    }
}

/// The limits of a caller, and what it has used of them.
#[derive(Serialize)]
pub(crate) struct CallerView {
    pub(crate) caller: String,
    pub(crate) limits: Vec<CallerLimitView>,
}

#[derive(Serialize)]
pub(crate) struct CallerLimitView {
    /// "requests a minute" and the like; money is dollars.
    pub(crate) of: &'static str,
    pub(crate) used: f64,
    pub(crate) max: f64,
    /// The time until it has used less again.
    pub(crate) resets_in_s: f64,
}

impl CallerView {
    pub(crate) fn of(report: &CallerReport) -> Self {
        let limits = report.dimensions.iter().filter_map(|report| {
            let max = report.limit?.as_f64();
            let (of, used) = (report.dimension.as_str(), report.used.as_f64());
            Some(CallerLimitView { of, used, max, resets_in_s: seconds(report.resets_in) })
        });
        Self { caller: report.caller.to_string(), limits: limits.collect() }
    }
}

/// The calls of a caller that wait for their turn, in all projects.
#[derive(Serialize)]
pub(crate) struct QueueView {
    pub(crate) caller: Option<String>,
    pub(crate) priority: &'static str,
    pub(crate) waiting: usize,
}

impl QueueView {
    pub(crate) fn of(report: &WaitingReport) -> Self {
        Self {
            caller: report.caller.as_deref().map(str::to_owned),
            priority: report.priority.as_str(),
            waiting: report.waiting,
        }
    }
}

/// A key, by name and fingerprint.
#[derive(Serialize)]
pub(crate) struct KeyView {
    pub(crate) fingerprint: String,
    pub(crate) name: Option<String>,
    pub(crate) project: String,
    pub(crate) state: &'static str,
    /// The reason why it is disabled, or why its whole project rests.
    pub(crate) reason: Option<String>,
    /// A flag: its whole project rests, as it has spent what it may.
    pub(crate) project_rests: bool,
    /// The time until all that is cooling or exhausted is back; of a project that rests as a whole, until it is asked
    /// again.
    pub(crate) back_in_s: Option<f64>,
    pub(crate) disabled_for_s: Option<f64>,
    pub(crate) what_to_do: Option<&'static str>,
    /// The models for which its project currently has no quota.
    pub(crate) models: Vec<OutOfQuota>,
    pub(crate) calls: u64,
}

impl KeyView {
    pub(crate) fn of(report: &KeyReport) -> Self {
        let disabled = match report.state {
            KeyState::Disabled { reason, since } => Some((reason, since)),
            _ => None,
        };
        let out = report.models.iter().map(|report| OutOfQuota {
            model: report.model.to_string(),
            part: report.part,
            state: report.state.as_str(),
            reason: report.reason.as_str(),
            // Nobody knows when a model opens.
            back_in_s: back_in(report.state).filter(|_| report.part != Part::Closed),
            asked_again_in_s: seconds(report.look),
        });
        let spending = report.spending.as_ref().filter(|_| disabled.is_none());
        let reason = disabled.map(|(reason, _)| reason.to_string());
        let remedy = disabled.map(|(reason, _)| match reason {
            DisabledReason::Refused(kind) => kind.advice().remedy,
            _ => "Enable the key when it is to serve again: it was disabled by hand.",
        });
        Self {
            fingerprint: report.fingerprint.to_string(),
            name: report.name.as_deref().map(str::to_owned),
            project: report.project.to_string(),
            state: report.state.as_str(),
            reason: reason.or_else(|| spending.map(|spending| spending.reason.to_string())),
            project_rests: spending.is_some(),
            back_in_s: spending.map_or_else(|| back_in(report.state), |spending| Some(seconds(spending.look))),
            disabled_for_s: disabled.map(|(_, since)| seconds(since)),
            what_to_do: remedy.or_else(|| spending.map(|spending| spending.reason.advice().remedy)),
            models: out.collect(),
            calls: report.uses,
        }
    }

    /// Returns the key's name as people know it.
    pub(crate) fn label(&self) -> String {
        match &self.name {
            Some(name) => format!("{name} ({})", self.fingerprint),
            None => self.fingerprint.clone(),
        }
    }
}

/// A model for which a key's project has no quota.
#[derive(Serialize)]
pub(crate) struct OutOfQuota {
    pub(crate) model: String,
    /// The part that rests: `model`, `grounded_calls` or `closed_model`.
    #[serde(serialize_with = "by_name")]
    pub(crate) part: Part,
    pub(crate) state: &'static str,
    /// The kind of the refusal.
    pub(crate) reason: &'static str,
    /// The time until it is back, if it comes back by itself.
    pub(crate) back_in_s: Option<f64>,
    /// The time until one call may look whether the refusal still holds.
    pub(crate) asked_again_in_s: f64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
pub(crate) fn by_name<S: Serializer>(part: &Part, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(part.as_str())
}

/// A chain of fallback models.
#[derive(Serialize)]
pub(crate) struct ChainView {
    pub(crate) model: String,
    /// The model that answers currently.
    pub(crate) current: String,
    pub(crate) away_for_s: Option<f64>,
}

impl ChainView {
    pub(crate) fn of(report: &ChainReport) -> Self {
        Self {
            model: report.model().to_owned(),
            current: report.current().to_owned(),
            away_for_s: report.away_for().map(seconds),
        }
    }
}

/// A failure that a caller has seen.
#[derive(Serialize)]
pub(crate) struct FailureView {
    pub(crate) time: String,
    pub(crate) ago_s: f64,
    /// The number of calls that have failed like that; the rest here is of the last.
    pub(crate) calls: u64,
    pub(crate) calls_in_5_min: u64,
    pub(crate) caller: Option<String>,
    pub(crate) model: String,
    pub(crate) fault: &'static str,
    pub(crate) kind: &'static str,
    /// It is the caller's own mistake, whichever layer has found it.
    pub(crate) by_caller: bool,
    pub(crate) code: u16,
    pub(crate) message: String,
    pub(crate) attempts: u32,
    pub(crate) key: Option<String>,
    pub(crate) in_the_answer: bool,
    pub(crate) what_to_do: Cow<'static, str>,
}

impl FailureView {
    pub(crate) fn of(record: &FailureRecord, now: Instant) -> Self {
        let FailureAdvice { kind, fault, what_to_do } = FailureAdvice::of(record);
        Self {
            time: humantime::format_rfc3339_seconds(record.time).to_string(),
            ago_s: seconds(now.saturating_duration_since(record.at)),
            calls: record.calls.all,
            calls_in_5_min: record.calls.lately(now),
            caller: record.caller.clone(),
            model: record.model.clone(),
            fault,
            kind,
            by_caller: record.is_by_caller(),
            code: record.code,
            message: record.message.clone(),
            attempts: record.attempts,
            key: record.key.clone(),
            in_the_answer: record.in_the_answer,
            what_to_do,
        }
    }
}

fn back_in(state: KeyState) -> Option<f64> {
    match state {
        KeyState::Cooling { left } | KeyState::Exhausted { left } => Some(seconds(left)),
        _ => None,
    }
}

/// Rounds to tenths of a second: a person needs no more.
pub(crate) fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Returns a key that serves, whose project has no quota for these models.
    pub(crate) fn key(project: &str, models: Vec<OutOfQuota>) -> KeyView {
        KeyView {
            fingerprint: format!("of-{project}"),
            name: None,
            project: project.to_owned(),
            state: "active",
            reason: None,
            project_rests: false,
            back_in_s: None,
            disabled_for_s: None,
            what_to_do: None,
            models,
            calls: 1,
        }
    }

    /// Returns that `flash` has no quota.
    pub(crate) fn out(part: Part) -> OutOfQuota {
        OutOfQuota {
            model: "flash".to_owned(),
            part,
            state: "exhausted",
            reason: "quota_day",
            back_in_s: Some(40_000.0).filter(|_| part != Part::Closed),
            asked_again_in_s: 60.0,
        }
    }

    /// Returns the limits of a model in a project that refuses it.
    pub(crate) fn parked(project: &str, part: Part, back_in_s: f64) -> LimitView {
        LimitView {
            project: project.to_owned(),
            blocked_for_s: Some(back_in_s),
            parked: vec![ParkView { part, reason: "quota_day", back_in_s, asked_again_in_s: 30.0 }],
            waiting: 0,
            waiting_by_priority: BTreeMap::new(),
            dimensions: Vec::new(),
        }
    }
}
