//! The store that several relays share, as it is shown: its state, its counts, and the lines that say when it is away or in
//! danger.

use serde::Serialize;
use tower_gemini::redis_store::{AwayReason, NewsReport, Overshoot, RedisStore, SharedNews, StoreReport, StoreState};

use crate::show::{
    problems::{Level, Problem, time},
    view::seconds,
};

/// The handles of the store in force.
#[derive(Clone)]
pub(crate) struct ShownStore {
    pub(crate) store: RedisStore,
    pub(crate) news: SharedNews,
}

/// The state of the store, as `/status` has it.
#[derive(Serialize)]
pub(crate) struct StoreView {
    connected: bool,
    /// The reason why the server does not count.
    away: Option<&'static str>,
    #[serde(skip)]
    what_to_do: &'static str,
    away_for_s: Option<f64>,
    connected_for_s: Option<f64>,
    /// The last time without the server that is over, unless that was the start.
    last_outage: Option<OutageView>,
    /// The server's hosts, without a password.
    address: String,
    /// The server's name and version, once it has been reached.
    server: Option<String>,
    /// The name of this relay among those that share the quota.
    instance: String,
    instances: u32,
    /// The part of each quota that this relay takes while the server is away.
    share: f64,
    /// The projects and models that are counted.
    scopes: usize,
    /// The setting of the server by which it may forget counts.
    eviction: Option<String>,
    takes: u64,
    granted: u64,
    refused: u64,
    /// Those of `takes` that were decided by the share.
    by_share: u64,
    /// Those of `takes` that were granted from a lease.
    leased: u64,
    timeouts: u64,
    failures: u64,
    outages: u64,
    retold: u64,
    /// The refusals of the upstream for quota in spite of a grant.
    overshoot: Vec<OvershootView>,
    news: NewsView,
}

/// The facts about keys, parks and breakers that relays tell each other.
#[derive(Serialize)]
struct NewsView {
    told: u64,
    heard: u64,
    /// Those of `heard` that have changed something here.
    taken_up: u64,
}

/// A time without the server that is over.
#[derive(Serialize)]
struct OutageView {
    reason: &'static str,
    lasted_s: f64,
    ended_ago_s: f64,
}

/// The refusals in minutes that were so full.
#[derive(Serialize)]
struct OvershootView {
    /// The most percent of the fullest limit that were used. `None`: any more, or unknown.
    up_to_percent: Option<u64>,
    refusals: u64,
}

impl StoreView {
    pub(crate) fn of(report: &StoreReport, news: NewsReport) -> Self {
        let away = away(report);
        let counts = &report.counts;
        let had_others = counts.outages > u64::from(away.is_some());
        let bands = Overshoot::BANDS.iter().map(|band| Some(*band)).chain([None]);
        let overshoot = bands.zip(report.overshoot.counts);
        Self {
            connected: away.is_none(),
            away: away.map(|(reason, _)| reason.as_str()),
            what_to_do: away.map_or("", |(reason, _)| advice(reason)),
            away_for_s: away.map(|(_, since)| since),
            connected_for_s: report.last_outage.filter(|_| away.is_none()).map(|last| seconds(last.ended)),
            last_outage: report.last_outage.filter(|_| had_others).map(|last| OutageView {
                reason: last.reason.as_str(),
                lasted_s: seconds(last.lasted),
                ended_ago_s: seconds(last.ended),
            }),
            address: report.address.to_string(),
            server: report.server.as_deref().map(str::to_owned),
            instance: report.instance.to_string(),
            instances: report.instances,
            share: report.share,
            scopes: report.scopes,
            eviction: report.eviction.as_deref().map(str::to_owned),
            takes: counts.takes,
            granted: counts.granted,
            refused: counts.refused,
            by_share: counts.shared,
            leased: counts.leased,
            timeouts: counts.timed_out,
            failures: counts.failed,
            outages: counts.outages,
            retold: counts.retold,
            news: NewsView { told: news.told, heard: news.heard, taken_up: news.taken_up },
            overshoot: overshoot.map(|(up_to_percent, refusals)| OvershootView { up_to_percent, refusals }).collect(),
        }
    }

    /// Returns the problems: the server is away, or may forget what it has counted.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut all = Vec::new();
        if let (Some(reason), Some(since)) = (self.away, self.away_for_s) {
            let (address, share, instances) = (&self.address, percent(self.share), self.instances);
            all.push(Problem {
                level: Level::Warn,
                what: format!(
                    "The store at {address} is away for {} ({reason}): of what its limits have left this relay takes no more than {share}, as \
                     one of {instances}.",
                    time(since)
                ),
                what_to_do: format!(
                    "{} Calls go on meanwhile and none is lost, but some wait longer; the relay is back by itself.",
                    self.what_to_do
                ),
            });
        }
        if let Some(policy) = &self.eviction {
            all.push(Problem {
                level: Level::Warn,
                what: format!("The store at {} may drop what it has counted when its memory is full ({policy}).", self.address),
                what_to_do: "Set maxmemory-policy noeviction there: a relay whose counts are gone tells its own again, which takes a second."
                    .to_owned(),
            });
        }
        all
    }
}

/// Returns why and for how many seconds the server does not count.
fn away(report: &StoreReport) -> Option<(AwayReason, f64)> {
    match report.state {
        StoreState::Away { since, reason } => Some((reason, seconds(since))),
        _ => None,
    }
}

/// Returns what an operator can do about a server that does not count.
fn advice(reason: AwayReason) -> &'static str {
    match reason {
        AwayReason::OutOfMemory => "Give the server more memory (maxmemory), or one of its own.",
        AwayReason::ReadOnly => "It is a replica: name the master in [store], or the Sentinels that know it.",
        AwayReason::Denied => "Correct the user and the password in [store], or what that user may do on the server.",
        AwayReason::TimedOut | AwayReason::Busy => "See what keeps the server busy, or how far away it is.",
        _ => "Start the server, or correct [store].",
    }
}

fn percent(share: f64) -> String {
    match share * 100.0 {
        percent if percent < 10.0 => format!("{percent:.1} %"),
        percent => format!("{percent:.0} %"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn report() -> StoreReport {
        let mut report = StoreReport::default();
        (report.address, report.instances, report.share) = ("valkey:6379".into(), 4, 0.2);
        report
    }

    #[test]
    fn a_server_that_is_away_is_a_problem_and_one_that_may_forget_is_another() {
        let mut report = report();
        let said = |report: &StoreReport| {
            StoreView::of(report, NewsReport::default())
                .problems()
                .into_iter()
                .map(|problem| problem.what)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            said(&report),
            [
                "The store at valkey:6379 is away for 0 s (not reached yet): of what its limits have left this relay takes no more \
              than 20 %, as one of 4."
            ]
        );
        let advised = |reason| {
            let mut report = StoreReport::default();
            report.state = StoreState::Away { since: Duration::ZERO, reason };
            StoreView::of(&report, NewsReport::default()).problems().remove(0).what_to_do
        };
        assert!(advised(AwayReason::Unreachable).starts_with("Start the server"));
        assert!(
            advised(AwayReason::OutOfMemory).contains("maxmemory") && advised(AwayReason::Denied).contains("password")
        );
        report.state = StoreState::Connected;
        assert_eq!(said(&report), [""; 0]);
        report.eviction = Some("allkeys-lru".into());
        assert!(said(&report)[0].contains("may drop what it has counted") && said(&report)[0].contains("allkeys-lru"));
    }
}
