//! The instruments of recent records, each looked up in the recorder once for many of them.
//!
//! A recorder finds an instrument by its name and all of its labels, which takes longer than what is recorded in it. So the
//! instruments of records with the same labels are kept, but for [`KEPT`] only: a recorder may drop an instrument that nobody
//! has used for some time, and what is recorded in it later is lost.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    ptr,
    sync::Arc,
    time::Duration,
};

use metrics::{Counter, Histogram, Label, SharedString};
use parking_lot::RwLock;
use tokio::time::Instant;

/// The time for which instruments are kept. Exporters drop idle ones after minutes.
///
/// Recorders are told apart by their addresses only: a local recorder that within this time takes the place in memory of another
/// one, which has ended, is taken for it, and lacks what is recorded in the instruments that are kept until then.
const KEPT: Duration = Duration::from_secs(1);

/// The most series whose instruments are kept.
const MOST: usize = 256;

/// The values by which the labels of one record differ from those of another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SeriesLabels {
    pub(super) operation: &'static str,
    pub(super) provider: &'static str,
    pub(super) asked: SharedString,
    pub(super) answered: Option<SharedString>,
    pub(super) outcome: &'static str,
    pub(super) error: Option<&'static str>,
    pub(super) tier_asked: &'static str,
    pub(super) tier_served: &'static str,
}

impl Hash for SeriesLabels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Of one model and outcome there are a few series at most, and comparing them takes less than hashing each label.
        (&self.asked, self.outcome).hash(state);
    }
}

/// The instruments of the records that have the same labels, by their names and what tells those of one name apart.
#[derive(Debug, Default)]
pub(super) struct Series {
    counters: RwLock<Vec<(InstrumentName, Counter)>>,
    histograms: RwLock<Vec<(InstrumentName, Histogram)>>,
}

type InstrumentName = (&'static str, &'static str);

/// The series of recent records. A cheap handle: all clones have the same.
#[derive(Clone, Debug, Default)]
pub(super) struct RecentSeries(Arc<RwLock<KeptSeries>>);

#[derive(Debug, Default)]
struct KeptSeries {
    /// The recorder that the instruments are of, by its address, and the time since when they are kept.
    source: Option<(usize, Instant)>,
    series: HashMap<SeriesLabels, Arc<Series>>,
}

impl KeptSeries {
    fn are_of(&self, recorder: usize, now: Instant) -> bool {
        self.source.is_some_and(|(of, since)| of == recorder && now < since + KEPT)
    }
}

impl RecentSeries {
    /// Returns the series of a record.
    pub(super) fn of(&self, key: SeriesLabels, now: Instant) -> Arc<Series> {
        let recorder = metrics::with_recorder(|recorder| ptr::from_ref(recorder).cast::<()>().addr());
        {
            let kept = self.0.read();
            if let Some(series) = kept.series.get(&key).filter(|_| kept.are_of(recorder, now)) {
                return series.clone();
            }
        }
        let mut kept = self.0.write();
        if !kept.are_of(recorder, now) {
            kept.series.clear();
            kept.source = Some((recorder, now));
        }
        if kept.series.len() >= MOST {
            return Arc::default();
        }
        kept.series.entry(key).or_default().clone()
    }
}

impl Series {
    /// Adds to the counter of that name and part.
    pub(super) fn count(&self, name: &'static str, part: &'static str, by: u64, labels: impl FnOnce() -> Vec<Label>) {
        kept(&self.counters, (name, part), || metrics::counter!(name, labels())).increment(by);
    }

    /// Records a value in the histogram of that name and part.
    pub(super) fn record(
        &self,
        name: &'static str,
        part: &'static str,
        value: f64,
        labels: impl FnOnce() -> Vec<Label>,
    ) {
        kept(&self.histograms, (name, part), || metrics::histogram!(name, labels())).record(value);
    }
}

/// Returns an instrument, and keeps it if it is new. No lock is held while a recorder is asked.
fn kept<T: Clone>(
    instruments: &RwLock<Vec<(InstrumentName, T)>>,
    slot: InstrumentName,
    look_up: impl FnOnce() -> T,
) -> T {
    let find =
        |kept: &[(InstrumentName, T)]| kept.iter().find(|(known, _)| *known == slot).map(|(_, kept)| kept.clone());
    if let Some(known) = find(&instruments.read()) {
        return known;
    }
    let new = look_up();
    let mut kept = instruments.write();
    // Another thread may have been faster.
    if find(&kept).is_none() {
        kept.push((slot, new.clone()));
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(operation: &'static str) -> SeriesLabels {
        SeriesLabels { operation, ..SeriesLabels::default() }
    }

    fn is_kept(series: &RecentSeries, operation: &'static str, now: Instant, other: &Arc<Series>) -> bool {
        Arc::ptr_eq(&series.of(key(operation), now), other)
    }

    #[test]
    fn instruments_are_kept_for_a_second_and_for_one_recorder() {
        let (series, now) = (RecentSeries::default(), Instant::now());
        let first = series.of(key("a"), now);
        assert!(is_kept(&series, "a", now + KEPT - Duration::from_millis(1), &first));
        assert!(!is_kept(&series, "b", now, &first));
        let recorder = metrics_util::debugging::DebuggingRecorder::new();
        metrics::with_local_recorder(&recorder, || assert!(!is_kept(&series, "a", now, &first)));
        let second = series.of(key("a"), now);
        assert!(!is_kept(&series, "a", now + KEPT, &second));
    }

    #[test]
    fn law_10_the_number_of_series_is_bounded() {
        let (series, now) = (RecentSeries::default(), Instant::now());
        for nth in 0..2 * MOST {
            let asked = SharedString::from_owned(nth.to_string());
            series.of(SeriesLabels { asked, ..SeriesLabels::default() }, now);
        }
        assert_eq!(series.0.read().series.len(), MOST);
    }

    #[test]
    fn an_instrument_is_looked_up_once() {
        let (series, mut looked_up) = (Series::default(), 0);
        for _ in 0..3 {
            series.count("calls", "", 1, || {
                looked_up += 1;
                Vec::new()
            });
        }
        series.count("calls", "text", 1, Vec::new);
        assert_eq!((looked_up, series.counters.read().len()), (1, 2));
    }
}
