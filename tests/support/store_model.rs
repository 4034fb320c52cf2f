//! The plain model of a quota store: the list of all charges that there ever were, counted again at each question. It runs
//! over any store, on whatever clock that has.

use std::time::Duration;

use proptest::prelude::*;
use tower_gemini::quota::{
    Answer, Closing, Correction, Dimension, Grant, Limits, Question, QuotaStore, Reply, Scope, StoreCharge,
};

/// A step of those who ask. `client` chooses the store's handle, `which` one of the charges that are still open.
#[derive(Clone, Debug)]
pub(crate) enum StoreStep {
    Wait(u64),
    Ask { client: usize, requests: u64, tokens: u64 },
    Settle { client: usize, which: usize, tokens: u64 },
    Refund { client: usize, which: usize },
    Close { client: usize, look: u64, ends: u64 },
    Open { client: usize },
}

/// Makes steps whose waits have at most `longest_wait` milliseconds.
pub(crate) fn store_steps(longest_wait: u64, most: usize) -> impl Strategy<Value = Vec<StoreStep>> {
    let client = || 0usize..8;
    let step = prop_oneof![
        4 => (0..longest_wait / 10).prop_map(StoreStep::Wait),
        1 => (0..longest_wait).prop_map(StoreStep::Wait),
        10 => (client(), 1u64..4, 0u64..60).prop_map(|(client, requests, tokens)| StoreStep::Ask { client, requests, tokens }),
        2 => (client(), any::<usize>(), 0u64..80).prop_map(|(client, which, tokens)| StoreStep::Settle { client, which, tokens }),
        2 => (client(), any::<usize>()).prop_map(|(client, which)| StoreStep::Refund { client, which }),
        1 => (client(), 0..longest_wait / 5, 0..longest_wait).prop_map(|(client, look, ends)| StoreStep::Close { client, look, ends }),
        1 => client().prop_map(|client| StoreStep::Open { client }),
    ];
    proptest::collection::vec(step, 1..most)
}

/// The clock of a store: the time since some moment, and a way to let it pass.
pub(crate) trait StoreClock {
    fn now(&self) -> Duration;
    async fn pass(&mut self, time: Duration);
}

/// tokio's clock, paused.
pub(crate) struct PausedClock(pub(crate) tokio::time::Instant);

impl StoreClock for PausedClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    async fn pass(&mut self, time: Duration) {
        tokio::time::advance(time).await;
    }
}

/// Asks, and waits for the answer.
pub(crate) async fn asked(store: &dyn QuotaStore, scope: &Scope, question: Question) -> Answer {
    match store.take(scope, question) {
        Reply::Now(answer) => answer,
        Reply::Later(answer) => answer.await,
        reply => panic!("{reply:?}"),
    }
}

#[derive(Clone, Copy, Debug)]
struct ModelCharge {
    at: Duration,
    charge: StoreCharge,
    requests: u64,
    tokens: u64,
    is_open: bool,
}

/// The calls that a closing of the model allows.
#[derive(Clone, Copy, Debug)]
struct ModelClosing {
    look_at: Duration,
    ends: Duration,
    looked: Option<(Duration, StoreCharge)>,
}

/// The plain model over the handles of one store.
pub(crate) struct StoreModel<'a, C> {
    stores: &'a [&'a dyn QuotaStore],
    scope: Scope,
    limits: Limits,
    /// The longest time for which a charge may count. It counts for a minute at least.
    counts_most: Duration,
    /// The time by which the store's clock may differ from this one's between a question and its look at the time.
    jitter: Duration,
    clock: C,
    charges: Vec<ModelCharge>,
    closing: Option<ModelClosing>,
    pub(crate) granted: usize,
    pub(crate) refused: usize,
}

const MINUTE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_secs(30);

impl<'a, C: StoreClock> StoreModel<'a, C> {
    pub(crate) fn new(
        stores: &'a [&'a dyn QuotaStore],
        scope: Scope,
        limits: Limits,
        counts_most: Duration,
        jitter: Duration,
        clock: C,
    ) -> Self {
        let (charges, closing) = (Vec::new(), None);
        Self { stores, scope, limits, counts_most, jitter, clock, charges, closing, granted: 0, refused: 0 }
    }

    fn store(&self, client: usize) -> &'a dyn QuotaStore {
        self.stores[client % self.stores.len()]
    }

    /// Returns the requests and tokens that were charged in the last `since`.
    fn counting(&self, since: Duration) -> (u64, u64) {
        let now = self.clock.now();
        let counts = self.charges.iter().filter(|charge| charge.at + since > now);
        counts.fold((0, 0), |(requests, tokens), charge| (requests + charge.requests, tokens + charge.tokens))
    }

    fn today(&self) -> u64 {
        self.charges.iter().map(|charge| charge.requests).sum()
    }

    fn fits(&self, requests: u64, tokens: u64, since: Duration) -> bool {
        let limit = |dimension| self.limits.get(dimension).unwrap_or(u64::MAX);
        let used = self.counting(since);
        used.0 + requests <= limit(Dimension::RequestsPerMinute)
            && used.1 + tokens <= limit(Dimension::InputTokensPerMinute)
            && self.today() + requests <= limit(Dimension::RequestsPerDay)
    }

    fn pick(&self, which: usize) -> Option<usize> {
        let open: Vec<usize> = (0..self.charges.len()).filter(|at| self.charges[*at].is_open).collect();
        open.get(which.checked_rem(open.len())?).copied()
    }

    /// Returns the time from which a call may look, if the scope is closed.
    fn look_at(&self) -> Option<(Duration, Duration)> {
        let closing = self.closing.filter(|closing| closing.ends > self.clock.now())?;
        Some((closing.looked.map_or(closing.look_at, |(at, _)| at + LOOK).min(closing.ends), closing.ends))
    }

    /// Makes a step, and checks the answer.
    pub(crate) async fn step(&mut self, step: StoreStep) {
        match step {
            StoreStep::Wait(ms) => self.clock.pass(Duration::from_millis(ms)).await,
            StoreStep::Ask { client, requests, tokens } => self.ask(client, requests, tokens).await,
            StoreStep::Settle { client, which, tokens } => {
                let Some(at) = self.pick(which) else { return };
                let charge = self.charges[at];
                // Only down, so that the limit still holds afterwards.
                let tokens = tokens.min(charge.tokens);
                self.store(client).correct(&self.scope, charge.charge, Correction::settle(charge.tokens, tokens));
                (self.charges[at].tokens, self.charges[at].is_open) = (tokens, false);
            }
            StoreStep::Refund { client, which } => {
                let Some(at) = self.pick(which) else { return };
                let ModelCharge { charge, requests, tokens, .. } = self.charges.remove(at);
                self.store(client).correct(&self.scope, charge, Correction::refund(requests, tokens));
                if let Some(closing) = &mut self.closing {
                    closing.looked = closing.looked.filter(|(_, look)| *look != charge);
                }
            }
            StoreStep::Close { client, look, ends } => {
                let (look, ends) = (Duration::from_millis(look.min(ends)), Duration::from_millis(ends));
                self.store(client).close(&self.scope, Closing::of(ends).look(look));
                let now = self.clock.now();
                let known = self.closing.filter(|known| known.looked.is_none() && now < known.look_at);
                let known = known.unwrap_or(ModelClosing { look_at: now, ends: now, looked: None });
                self.closing = Some(ModelClosing {
                    look_at: known.look_at.max(now + look),
                    ends: known.ends.max(now + ends),
                    looked: None,
                });
            }
            StoreStep::Open { client } => {
                self.store(client).open(&self.scope);
                self.closing = None;
            }
        }
    }

    async fn ask(&mut self, client: usize, requests: u64, tokens: u64) {
        let question = Question::new(requests, tokens).limits(self.limits);
        let (before, look) = (self.clock.now(), self.look_at());
        match asked(self.store(client), &self.scope, question).await {
            Answer::Granted(grant) => {
                assert!(look.is_none_or(|(look_at, _)| before + self.jitter >= look_at), "it passed a closing");
                assert!(self.fits(requests, tokens, MINUTE), "one too many: {:?}", self.counting(MINUTE));
                self.granted(before, grant, requests, tokens, look.is_some());
            }
            Answer::Full { wait, dimension } => {
                self.refused += 1;
                assert!(wait > Duration::ZERO && dimension.is_some());
                assert!(
                    !self.fits(requests, tokens, self.counts_most + self.jitter),
                    "it was refused although it fits"
                );
                let is_of_the_day = dimension == Some(Dimension::RequestsPerDay);
                assert_eq!(is_of_the_day, wait > self.counts_most, "{dimension:?} {wait:?}");
                if !is_of_the_day && self.look_at().is_none() {
                    // At the time that was named, and no sooner, it fits.
                    self.clock.pass(wait.saturating_sub(self.jitter.max(Duration::from_millis(1)))).await;
                    let early = asked(self.store(client), &self.scope, question).await;
                    if let Answer::Granted(grant) = early {
                        panic!("{:?} before its time: {grant:?}", self.jitter);
                    }
                    self.clock.pass(self.jitter.max(Duration::from_millis(1)) * 2).await;
                    let before = self.clock.now();
                    match asked(self.store(client + 1), &self.scope, question).await {
                        Answer::Granted(grant) => self.granted(before, grant, requests, tokens, false),
                        answer => panic!("it was told to wait for {wait:?}: {answer:?}"),
                    }
                }
            }
            Answer::Closed(closing) => {
                self.refused += 1;
                let (look_at, ends) = look.expect("nobody has closed it");
                let near = |said: Duration, known: Duration| {
                    (before + said).abs_diff(known) <= self.jitter + Duration::from_millis(1)
                };
                assert!(near(closing.look, look_at) && near(closing.ends, ends), "{closing:?} {look:?} {before:?}");
            }
            answer => panic!("{answer:?}"),
        }
    }

    fn granted(&mut self, at: Duration, grant: Grant, requests: u64, tokens: u64, is_look: bool) {
        let charge = grant.charge;
        self.charges.push(ModelCharge { at, charge, requests, tokens, is_open: true });
        self.granted += 1;
        assert_eq!(grant.is_look, is_look);
        // The sums of all are exact, but for the charges of the edge.
        let (least, most) = (self.counting(MINUTE), self.counting(self.counts_most + self.jitter));
        assert!((least.0..=most.0).contains(&grant.requests), "{} of {least:?} to {most:?}", grant.requests);
        assert!((least.1..=most.1).contains(&grant.tokens), "{} of {least:?} to {most:?}", grant.tokens);
        assert_eq!(grant.today, self.today());
        if let Some(closing) = self.closing.as_mut().filter(|_| is_look) {
            closing.looked = Some((at, charge));
        }
    }
}
