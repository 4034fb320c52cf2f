//! The measurement: services of a group take turns, and every row is beside its bare control.

use std::{
    future::Future,
    hint::black_box,
    pin::pin,
    sync::Barrier,
    task::{Context, Waker},
    time::Duration,
};

use http::Response;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::runtime::Runtime;
use tower::{Service, ServiceExt};

use crate::{
    before::Before,
    counter,
    rows::{Row, Rows},
    upstream::{Sent, Upstream},
};

/// The number of turns of each service in a group.
const TURNS: usize = 300;

/// The length of a turn.
const TURN: Duration = Duration::from_micros(500);

/// The turns of services that are called on threads, which have to be started for each of them.
const THREADED_TURNS: usize = 60;
const THREADED_TURN: Duration = Duration::from_millis(5);

/// A run: its settings, and the rows that it has measured.
pub(crate) struct Bench<'a> {
    pub(crate) runtime: &'a Runtime,
    /// Set if each row is one call, to see that it works.
    pub(crate) once: bool,
    /// The text that the name of a group or a row has to contain.
    pub(crate) filter: Option<String>,
    /// The name of the only group that is measured.
    pub(crate) only: Option<String>,
    /// Another build of this bench, which measures each group after this one.
    pub(crate) before: Option<Before>,
    pub(crate) rows: Rows,
}

/// Services that are compared with each other.
pub(crate) struct Group<'a, 'b> {
    bench: &'a mut Bench<'b>,
    name: &'static str,
    upstream: Upstream,
    cases: Vec<Case<'b>>,
    turns: (usize, Duration),
}

struct Case<'a> {
    name: &'static str,
    allocations: Option<u64>,
    /// Makes the given number of calls and returns the time that they took.
    run: Box<dyn FnMut(u64) -> Duration + 'a>,
}

/// The end that a call is to have.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Answered,
    Refused,
}

impl<'b> Bench<'b> {
    pub(crate) fn group<'a>(&'a mut self, name: &'static str, upstream: &Upstream) -> Group<'a, 'b> {
        Group { bench: self, name, upstream: upstream.clone(), cases: Vec::new(), turns: (TURNS, TURN) }
    }
}

impl<'b> Group<'_, 'b> {
    /// Adds a service that answers.
    pub(crate) fn call<S, R>(&mut self, name: &'static str, service: S)
    where
        S: Service<Sent, Response = Response<R>> + 'b,
        R: Body,
    {
        self.case(name, service, End::Answered, |run| run());
    }

    /// Adds a service that refuses every call: with an error, or with a status that says so.
    pub(crate) fn refused<S, R>(&mut self, name: &'static str, service: S)
    where
        S: Service<Sent, Response = Response<R>> + 'b,
        R: Body,
    {
        self.case(name, service, End::Refused, |run| run());
    }

    /// Adds a service whose calls are all run by `around`.
    pub(crate) fn call_within<S, R>(&mut self, name: &'static str, service: S, around: impl Fn(&mut dyn FnMut()) + 'b)
    where
        S: Service<Sent, Response = Response<R>> + 'b,
        R: Body,
    {
        self.case(name, service, End::Answered, around);
    }

    fn case<S, R>(&mut self, name: &'static str, mut service: S, end: End, around: impl Fn(&mut dyn FnMut()) + 'b)
    where
        S: Service<Sent, Response = Response<R>> + 'b,
        R: Body,
    {
        let (runtime, upstream) = (self.bench.runtime, self.upstream.clone());
        let mut counted = None;
        around(&mut || counted = allocations(runtime, &mut service, &upstream, end));
        let mut timed = move |calls: u64| {
            let mut elapsed = Duration::ZERO;
            let mut left = calls;
            while left > 0 {
                // As many as stay in the cache.
                let requests: Vec<_> = (0..left.min(64)).map(|_| upstream.request()).collect();
                left -= requests.len() as u64;
                let begun = now();
                requests.into_iter().for_each(|request| drive(runtime, one_call(&mut service, request, end)));
                elapsed += begun.elapsed();
            }
            elapsed
        };
        let run = move |calls: u64| {
            let mut elapsed = Duration::ZERO;
            around(&mut || elapsed = timed(calls));
            elapsed
        };
        self.cases.push(Case { name, allocations: counted, run: Box::new(run) });
    }

    /// Adds a service that is called on several threads at once, each with a service of its own; a call's time is the one that
    /// its thread sees.
    pub(crate) fn threads<S, R>(&mut self, name: &'static str, threads: usize, service: impl Fn() -> S)
    where
        S: Service<Sent, Response = Response<R>> + Send + 'b,
        R: Body,
    {
        self.turns = (THREADED_TURNS, THREADED_TURN);
        let upstream = self.upstream.clone();
        let clock = self.bench.runtime.handle().clone();
        let mut services: Vec<_> = (0..threads).map(|_| service()).collect();
        let allocations = allocations(self.bench.runtime, &mut services[0], &upstream, End::Answered);
        let run = move |calls: u64| {
            let barrier = Barrier::new(services.len());
            std::thread::scope(|scope| {
                let running: Vec<_> = services
                    .iter_mut()
                    .map(|service| {
                        scope.spawn(|| {
                            let _clock = clock.enter();
                            on_a_thread(service, &upstream, &barrier, calls)
                        })
                    })
                    .collect();
                let elapsed = running.into_iter().map(|thread| thread.join().expect("a thread that ends"));
                elapsed.sum::<Duration>() / threads as u32
            })
        };
        self.cases.push(Case { name, allocations, run: Box::new(run) });
    }

    /// Measures the group, if the command line does not leave it out.
    pub(crate) fn measure(self) {
        let Self { bench, name, upstream, mut cases, turns } = self;
        if let Some(filter) = bench.filter.as_ref().filter(|filter| !name.contains(&***filter)) {
            // A row that is left alone has its control.
            let named = cases.iter().any(|case| case.name.contains(&**filter) && !is_bare(case.name));
            cases.retain(|case| named && (is_bare(case.name) || case.name.contains(&**filter)));
        }
        if cases.is_empty() || bench.only.as_ref().is_some_and(|only| only != name) {
            return;
        }
        let samples = take_turns(&mut cases, if bench.once { None } else { Some(turns) });
        let mut bare = 0;
        for (nth, case) in cases.iter().enumerate() {
            if is_bare(case.name) {
                bare = nth;
            }
            bench.rows.push(Row {
                group: name.into(),
                name: case.name.into(),
                nanos: median(samples[nth].iter().copied()),
                over: median(samples[nth].iter().zip(&samples[bare]).map(|(with, without)| with - without)),
                allocations: case.allocations,
                more_allocations: case
                    .allocations
                    .zip(cases[bare].allocations)
                    .map(|(with, without)| with.saturating_sub(without)),
                bytes: upstream.len(),
                frames: upstream.frames(),
            });
        }
        if let Some(before) = &mut bench.before {
            before.measure(name);
        }
    }
}

/// Returns whether a row is the control of those that follow.
pub(crate) fn is_bare(name: &str) -> bool {
    name.starts_with("bare")
}

/// Makes calls while the other threads make theirs.
fn on_a_thread<S, R>(service: &mut S, upstream: &Upstream, barrier: &Barrier, calls: u64) -> Duration
where
    S: Service<Sent, Response = Response<R>>,
    R: Body,
{
    let mut elapsed = Duration::ZERO;
    let mut left = calls;
    while left > 0 {
        let requests: Vec<_> = (0..left.min(64)).map(|_| upstream.request()).collect();
        left -= requests.len() as u64;
        barrier.wait();
        let begun = now();
        requests.into_iter().for_each(|request| spin(one_call(service, request, End::Answered)));
        elapsed += begun.elapsed();
    }
    elapsed
}

/// Makes a call to its end, as often as a service has to be warmed up, or its state filled.
pub(crate) fn warm<S, R>(service: &mut S, upstream: &Upstream, calls: usize)
where
    S: Service<Sent, Response = Response<R>>,
    R: Body,
{
    (0..calls).for_each(|_| spin(one_call(service, upstream.request(), End::Answered)));
}

/// Polls a future to its end: nothing here waits, except for a lock that another thread holds.
fn spin(future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    while future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        std::thread::yield_now();
    }
}

/// Returns the times of each case's turns, in nanoseconds a call; without turns, of one call each.
fn take_turns(cases: &mut [Case<'_>], turns: Option<(usize, Duration)>) -> Vec<Vec<f64>> {
    let calls: Vec<_> = cases
        .iter_mut()
        .map(|case| {
            let one = (case.run)(1).min((case.run)(1)).as_nanos().max(1);
            turns.map_or(1, |(_, turn)| (turn.as_nanos() / one).clamp(1, 10_000) as u64)
        })
        .collect();
    let mut samples = vec![Vec::new(); cases.len()];
    for _ in 0..turns.map_or(1, |(turns, _)| turns) {
        for ((case, calls), samples) in cases.iter_mut().zip(&calls).zip(&mut samples) {
            samples.push((case.run)(*calls).as_nanos() as f64 / *calls as f64);
        }
    }
    samples
}

/// Counts the allocations of a warm call, in the program that can.
fn allocations<S, R>(runtime: &Runtime, service: &mut S, upstream: &Upstream, end: End) -> Option<u64>
where
    S: Service<Sent, Response = Response<R>>,
    R: Body,
{
    (0..2).for_each(|_| drive(runtime, one_call(service, upstream.request(), end)));
    let request = upstream.request();
    counter::count(|| drive(runtime, one_call(service, request, end)))
}

async fn one_call<S, R>(service: &mut S, request: Sent, end: End)
where
    S: Service<Sent, Response = Response<R>>,
    R: Body,
{
    let Ok(service) = service.ready().await else { panic!("the upstream is always ready") };
    let response = service.call(request).await;
    let answered = response.as_ref().is_ok_and(|response| response.status().is_success());
    assert!(answered == (end == End::Answered), "an answer where a refusal was due, or a refusal for an answer");
    let Ok(response) = response else { return };
    let mut body = pin!(response.into_body());
    while let Some(frame) = body.frame().await {
        black_box(frame.is_ok());
    }
}

/// Polls twice, which is nearly always enough.
fn drive(runtime: &Runtime, future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    if future.as_mut().poll(&mut cx).is_pending() && future.as_mut().poll(&mut cx).is_pending() {
        runtime.block_on(future);
    }
}

#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

fn median(samples: impl Iterator<Item = f64>) -> f64 {
    let mut samples: Vec<_> = samples.collect();
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
