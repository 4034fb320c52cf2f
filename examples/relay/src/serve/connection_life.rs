//! The life of one connection: its calls under way, what of their answers waits to be written, and the clocks that end a
//! connection that nobody uses or reads.
//!
//! hyper hands a small answer to its buffers whole and has then done with it, so that neither its timers nor those of a
//! body see that the caller never reads. Here each answer counts until its last byte has gone to the kernel: a call is
//! *unread* while bytes of it wait, or while hyper asks for no more of it. Time in which the relay waits for the upstream
//! does not count.

use std::{sync::Arc, task::Waker, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::serve::connections::Tally;

/// The bytes of all answers of a connection that may wait to be written, before an answer that has some among them is
/// asked for no more. A long answer in text is smaller; pieces of one are 64 KiB or less as a rule.
const MOST_WAITING: usize = 256 * 1_024;

/// The bytes that a caller has to take of an answer for its clock to begin again. Without it, a caller that opens the
/// window of HTTP/2 by a byte now and then would be read to for hours.
const PROGRESS: usize = 4 * 1_024;

/// The times that a connection gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// The time without a call, after which it is closed.
    pub(crate) idle: Duration,
    /// The time in which nothing of an answer is read, after which it is closed.
    pub(crate) unread: Duration,
}

/// The decision about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It stays, and is looked at again then.
    Stays(Instant),
    /// Some answers are not read, and others are: it takes no more calls, and is looked at again then.
    PartlyUnread(Instant),
    /// There was no call for the idle time.
    Idle,
    /// None of its answers is read.
    Unread,
}

/// The state of a connection. It is told the time.
#[derive(Debug)]
struct Life {
    calls: Vec<Call>,
    next: u64,
    /// The bytes of all answers that wait to be written.
    waiting: usize,
    idle_since: Instant,
    /// The time since which the kernel has taken nothing of what is written.
    blocked_since: Option<Instant>,
}

#[derive(Debug)]
struct Call {
    id: u64,
    /// The parts of the relay that hold it: its answer, and the rest of its request.
    held: u8,
    /// Nothing of its answer is left that hyper has not asked for.
    asked: bool,
    waiting: usize,
    /// The bytes taken since `unread_since`.
    taken: usize,
    unread_since: Option<Instant>,
    /// An answer that pauses because too much waits already.
    paused: Option<Waker>,
}

impl Life {
    fn new(now: Instant) -> Self {
        Self { calls: Vec::new(), next: 0, waiting: 0, idle_since: now, blocked_since: None }
    }

    fn begin(&mut self) -> u64 {
        let id = self.next;
        self.next += 1;
        let (asked, waiting, taken) = (true, 0, 0);
        self.calls.push(Call { id, held: 1, asked, waiting, taken, unread_since: None, paused: None });
        id
    }

    fn call(&mut self, id: u64) -> Option<&mut Call> {
        // The newest call is the busiest as a rule.
        self.calls.iter_mut().rfind(|call| call.id == id)
    }

    /// Notes that the answer's head has come: hyper is to ask for its body.
    fn answered(&mut self, id: u64, now: Instant) {
        if let Some(call) = self.call(id) {
            call.asked = false;
            call.unread_from(now);
        }
    }

    /// Notes that hyper has asked for more than there is yet.
    fn asked(&mut self, id: u64) {
        if let Some(call) = self.call(id) {
            call.asked = true;
            if call.waiting == 0 {
                call.unread_since = None;
            }
        }
    }

    /// Notes that hyper was given bytes.
    fn handed(&mut self, id: u64, bytes: usize, now: Instant) {
        self.waiting += bytes;
        if let Some(call) = self.call(id) {
            call.asked = false;
            call.waiting += bytes;
            if call.unread_since.is_none() {
                call.unread_from(now);
            }
        }
    }

    /// Returns whether an answer has to pause, because of what waits.
    fn pauses(&mut self, id: u64, waker: &Waker) -> bool {
        let full = self.waiting >= MOST_WAITING;
        let Some(call) = self.call(id) else { return false };
        // Without the second condition, one stream that is not read would stop all others of its connection.
        let pauses = full && call.waiting > 0;
        call.paused = pauses.then(|| waker.clone());
        pauses
    }

    /// Notes that bytes were written, or thrown away. Returns an answer to wake.
    fn taken(&mut self, id: u64, bytes: usize, now: Instant) -> Option<Waker> {
        self.waiting -= bytes;
        let call = self.call(id)?;
        call.waiting -= bytes;
        call.taken += bytes;
        let paused = call.paused.take();
        if call.waiting == 0 && call.asked {
            call.unread_since = None;
        } else if call.waiting == 0 || call.taken >= PROGRESS {
            call.unread_from(now);
        }
        self.sweep(id, now);
        paused
    }

    /// Notes that the answer has ended or was dropped; what waits of it is still to be written.
    fn answer_ended(&mut self, id: u64, now: Instant) {
        self.asked(id);
        self.let_go(id, now);
    }

    fn hold(&mut self, id: u64) {
        if let Some(call) = self.call(id) {
            call.held += 1;
        }
    }

    fn let_go(&mut self, id: u64, now: Instant) {
        if let Some(call) = self.call(id) {
            call.held -= 1;
        }
        self.sweep(id, now);
    }

    fn sweep(&mut self, id: u64, now: Instant) {
        let before = self.calls.len();
        self.calls.retain(|call| call.id != id || call.held > 0 || call.waiting > 0);
        if before > 0 && self.calls.is_empty() {
            self.idle_since = now;
        }
    }

    /// Returns whether nothing is to be done for the caller.
    fn is_quiet(&self) -> bool {
        self.calls.is_empty() && self.blocked_since.is_none()
    }

    fn judge(&self, now: Instant, patience: Patience) -> Verdict {
        let Patience { idle, unread } = patience;
        if let Some(blocked) = self.blocked_since
            && blocked + unread <= now
        {
            return Verdict::Unread;
        }
        if self.is_quiet() {
            let end = self.idle_since + idle;
            // A call that begins after this look may be unread from then on.
            return if end <= now { Verdict::Idle } else { Verdict::Stays(end.min(now + unread)) };
        }
        // The same of a call that ends, and begins the idle time.
        let mut next = now + idle.min(unread);
        let mut stuck = 0;
        for since in self.calls.iter().filter_map(|call| call.unread_since).chain(self.blocked_since) {
            if since + unread <= now {
                stuck += 1;
            } else {
                next = next.min(since + unread);
            }
        }
        match stuck {
            0 => Verdict::Stays(next),
            _ if stuck == self.calls.len() => Verdict::Unread,
            _ => Verdict::PartlyUnread(next),
        }
    }
}

impl Call {
    fn unread_from(&mut self, now: Instant) {
        self.unread_since = Some(now);
        self.taken = 0;
    }
}

/// A connection's life, shared by what serves it.
pub(crate) struct Connection {
    life: Mutex<Life>,
    /// Told when nothing is left to be done.
    quiet: Notify,
    tally: Arc<Tally>,
}

impl Connection {
    /// Begins a life without calls.
    pub(crate) fn new(tally: Arc<Tally>) -> Arc<Self> {
        Arc::new(Self { life: Mutex::new(Life::new(Instant::now())), quiet: Notify::new(), tally })
    }

    /// Begins a call, which ends when the handle is dropped and its answer written.
    pub(crate) fn begin(self: &Arc<Self>) -> CallHandle {
        let id = self.change(Life::begin);
        CallHandle { connection: self.clone(), id }
    }

    /// Notes that the kernel takes nothing.
    pub(crate) fn blocked(&self) {
        self.life.lock().blocked_since.get_or_insert_with(Instant::now);
    }

    /// Notes that the kernel has taken something. It does so in steps of half of what may be unsent, so that a caller
    /// that reads byte by byte makes no progress.
    pub(crate) fn unblocked(&self) {
        self.change(|life| life.blocked_since = None);
    }

    /// Decides whether the connection goes on.
    pub(crate) fn judge(&self, patience: Patience) -> Verdict {
        self.life.lock().judge(Instant::now(), patience)
    }

    /// Returns whether nothing is to be done for the caller.
    pub(crate) fn is_quiet(&self) -> bool {
        self.life.lock().is_quiet()
    }

    /// Waits until that may be so.
    pub(crate) async fn quiet(&self) {
        self.quiet.notified().await;
    }

    /// Changes the life, and tells those who wait for its calls.
    fn change<T>(&self, change: impl FnOnce(&mut Life) -> T) -> T {
        let mut life = self.life.lock();
        let (was_busy, was_quiet) = (!life.calls.is_empty(), life.is_quiet());
        let changed = change(&mut life);
        let quiet = life.is_quiet();
        // Still under the lock, so that the counts come in their order.
        match (was_busy, !life.calls.is_empty()) {
            (false, true) => self.tally.became_busy(),
            (true, false) => self.tally.became_free(),
            _ => {}
        }
        drop(life);
        if quiet && !was_quiet {
            self.quiet.notify_one();
        }
        changed
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.life.get_mut().calls.is_empty() {
            self.tally.became_free();
        }
    }
}

/// The answer of a call, from the request on.
pub(crate) struct CallHandle {
    connection: Arc<Connection>,
    id: u64,
}

impl CallHandle {
    /// Holds the call for the rest of its request.
    pub(crate) fn request(&self) -> RequestHandle {
        self.connection.life.lock().hold(self.id);
        RequestHandle { connection: self.connection.clone(), id: self.id }
    }

    /// Notes that the answer's head has come.
    pub(crate) fn answered(&self) {
        self.connection.life.lock().answered(self.id, Instant::now());
    }

    /// Notes that hyper has asked for more than there is yet.
    pub(crate) fn asked(&self) {
        self.connection.life.lock().asked(self.id);
    }

    /// Returns whether the answer has to pause, because of what waits; it is woken then.
    pub(crate) fn pauses(&self, waker: &Waker) -> bool {
        self.connection.life.lock().pauses(self.id, waker)
    }

    /// Notes that hyper was given bytes, which wait until the returned handle is told that they were taken.
    pub(crate) fn handed(&self, bytes: usize) -> WaitingBytes {
        self.connection.life.lock().handed(self.id, bytes, Instant::now());
        WaitingBytes { connection: self.connection.clone(), id: self.id }
    }
}

impl Drop for CallHandle {
    fn drop(&mut self) {
        self.connection.change(|life| life.answer_ended(self.id, Instant::now()));
    }
}

/// The rest of a request: its call lasts as long.
pub(crate) struct RequestHandle {
    connection: Arc<Connection>,
    id: u64,
}

impl Drop for RequestHandle {
    fn drop(&mut self) {
        self.connection.change(|life| life.let_go(self.id, Instant::now()));
    }
}

/// Bytes that wait to be written.
pub(crate) struct WaitingBytes {
    connection: Arc<Connection>,
    id: u64,
}

impl WaitingBytes {
    /// Notes that bytes were written, or thrown away.
    pub(crate) fn taken(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let paused = self.connection.change(|life| life.taken(self.id, bytes, Instant::now()));
        if let Some(paused) = paused {
            paused.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const PATIENCE: Patience = Patience { idle: Duration::from_secs(10), unread: Duration::from_secs(60) };

    fn life() -> (Life, Instant) {
        let now = Instant::now();
        (Life::new(now), now)
    }

    #[test]
    fn a_connection_without_calls_ends_after_the_idle_time() {
        let (mut life, start) = life();
        assert_eq!(life.judge(start, PATIENCE), Verdict::Stays(start + PATIENCE.idle));
        let call = life.begin();
        assert_eq!(
            life.judge(start + 100 * SECOND, PATIENCE),
            Verdict::Stays(start + 110 * SECOND),
            "upstream is slow"
        );
        life.answered(call, start + 100 * SECOND);
        life.answer_ended(call, start + 101 * SECOND);
        assert_eq!(life.judge(start + 102 * SECOND, PATIENCE), Verdict::Stays(start + 111 * SECOND));
        assert_eq!(life.judge(start + 111 * SECOND, PATIENCE), Verdict::Idle);
    }

    #[test]
    fn a_look_comes_in_time_for_a_call_that_begins_after_it() {
        let (life, start) = life();
        let patience = Patience { idle: 30 * SECOND, unread: SECOND };
        assert_eq!(life.judge(start, patience), Verdict::Stays(start + SECOND));
    }

    #[test]
    fn an_answer_that_has_ended_is_unread_until_its_last_byte_is_written() {
        let (mut life, start) = life();
        let call = life.begin();
        life.answered(call, start);
        life.handed(call, 100, start);
        life.answer_ended(call, start);
        assert_eq!(life.judge(start + 59 * SECOND, PATIENCE), Verdict::Stays(start + 60 * SECOND));
        assert_eq!(life.judge(start + 60 * SECOND, PATIENCE), Verdict::Unread);
        assert!(life.taken(call, 99, start + 60 * SECOND).is_none());
        assert_eq!(life.judge(start + 60 * SECOND, PATIENCE), Verdict::Unread, "99 bytes are no progress");
        life.taken(call, 1, start + 60 * SECOND);
        assert!(life.is_quiet());
    }

    #[test]
    fn a_reader_that_takes_enough_goes_on_however_long_it_takes() {
        let (mut life, start) = life();
        let call = life.begin();
        life.handed(call, 10 * PROGRESS, start);
        for step in 1..10 {
            let now = start + step * 59 * SECOND;
            assert!(matches!(life.judge(now, PATIENCE), Verdict::Stays(_)));
            life.taken(call, PROGRESS, now);
        }
    }

    #[test]
    fn the_time_of_the_upstream_counts_for_nobody() {
        let (mut life, start) = life();
        let call = life.begin();
        life.answered(call, start);
        life.handed(call, 100, start);
        life.asked(call);
        life.taken(call, 100, start + SECOND);
        assert!(matches!(life.judge(start + 1_000 * SECOND, PATIENCE), Verdict::Stays(_)));
        life.handed(call, 100, start + 1_000 * SECOND);
        assert!(matches!(life.judge(start + 1_059 * SECOND, PATIENCE), Verdict::Stays(_)), "its clock began anew");
        assert_eq!(life.judge(start + 1_060 * SECOND, PATIENCE), Verdict::Unread);
    }

    #[test]
    fn a_stream_whose_window_is_closed_is_unread_though_nothing_waits() {
        let (mut life, start) = life();
        let call = life.begin();
        life.answered(call, start);
        assert_eq!(life.judge(start + PATIENCE.unread, PATIENCE), Verdict::Unread);
    }

    #[test]
    fn one_unread_answer_ends_no_other_of_its_connection() {
        let (mut life, start) = life();
        let (unread, read) = (life.begin(), life.begin());
        life.handed(unread, 100, start);
        let later = start + PATIENCE.unread;
        assert!(matches!(life.judge(later, PATIENCE), Verdict::PartlyUnread(_)));
        life.answer_ended(read, later);
        assert_eq!(life.judge(later, PATIENCE), Verdict::Unread);
    }

    #[test]
    fn a_write_that_the_kernel_does_not_take_ends_it_with_all_calls() {
        let (mut life, start) = life();
        life.begin();
        life.blocked_since = Some(start);
        assert!(!life.is_quiet());
        assert_eq!(life.judge(start + PATIENCE.unread, PATIENCE), Verdict::Unread);
    }

    #[test]
    fn too_much_that_waits_pauses_the_answers_that_it_is_of() {
        let (mut life, start) = life();
        let (large, small) = (life.begin(), life.begin());
        assert!(!life.pauses(large, Waker::noop()));
        life.handed(large, MOST_WAITING, start);
        assert!(life.pauses(large, Waker::noop()));
        assert!(!life.pauses(small, Waker::noop()), "it has nothing waiting");
        assert!(life.taken(large, 1, start).is_some(), "it is woken");
        assert!(!life.pauses(large, Waker::noop()));
    }

    #[test]
    fn a_call_lasts_until_its_request_is_read() {
        let (mut life, start) = life();
        let call = life.begin();
        life.hold(call);
        life.answer_ended(call, start);
        assert!(!life.is_quiet());
        life.let_go(call, start);
        assert!(life.is_quiet());
    }
}
