//! A question on its way to the server, and the telling of what the server has lost.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use redis::RedisResult;
use tokio::time::{Instant, timeout};

use super::{
    handle::StoreHandle,
    health::DecideBy,
    link::{Link, in_full, integers, reason_of},
    patience::{Awaited, awaited},
    report::AwayReason,
    scope::{Decided, DecidedBy, Replied},
    script::{Correct, Take, TakeReply, TellReply, Verdict},
    shared::{ScopeEntry, StoreShared, add},
};
use crate::quota::{Answer, Correction, Question, window::Amount};

/// The times of one call for which charges are told: there may be many, and a reply that is lost makes them count twice.
const TELL_TIMES: u32 = 5;

/// The time after which an answer that is late is no longer awaited at all.
const TOO_LATE: std::time::Duration = std::time::Duration::from_secs(5);

/// The scopes that are told in one pipeline.
const TOLD_AT_ONCE: usize = 32;

/// A question on its way. Dropped before its answer, it gives back what the answer will take.
pub(super) struct Asking {
    work: Option<Pin<Box<dyn Future<Output = Answer> + Send>>>,
    has_begun: bool,
    asked: Asked,
}

#[derive(Clone)]
struct Asked {
    store: Arc<StoreHandle>,
    entry: Arc<ScopeEntry>,
    question: Question,
}

impl Asking {
    pub(super) fn new(
        store: Arc<StoreHandle>,
        entry: Arc<ScopeEntry>,
        question: Question,
        (take, hold): (Take, Option<Instant>),
        link: Link,
    ) -> Self {
        let wish = (take.wish_requests > 0).then(|| WishGuard(entry.clone()));
        let asked = Asked { store, entry, question };
        let work = ask(asked.clone(), take, hold, link, wish);
        Self { work: Some(Box::pin(work)), has_begun: false, asked }
    }
}

impl Future for Asking {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        self.has_begun = true;
        let Some(work) = &mut self.work else { return Poll::Pending };
        let answer = std::task::ready!(work.as_mut().poll(cx));
        self.work = None;
        Poll::Ready(answer)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let Some(work) = self.work.take().filter(|_| self.has_begun) else { return };
        let Asked { store, entry, question } = self.asked.clone();
        self.asked.store.shared.runtime.spawn(async move {
            if let Answer::Granted(grant) = work.await {
                let refund = Correction::refund(question.requests, question.tokens);
                store.correct_entry(&entry, grant.charge, refund);
            }
        });
    }
}

/// The right to wish for a lease, which only one question has at a time.
struct WishGuard(Arc<ScopeEntry>);

impl Drop for WishGuard {
    fn drop(&mut self) {
        self.0.state.lock().asked_wish();
    }
}

/// Asks the server, and decides by the share if it does not answer in time.
async fn ask(
    Asked { store, entry, question }: Asked,
    mut take: Take,
    hold: Option<Instant>,
    mut link: Link,
    wish: Option<WishGuard>,
) -> Answer {
    let shared = store.shared.clone();
    let begun = Instant::now();
    let until = begun + shared.settings.call_timeout;
    for _ in 0..2 {
        let sent = Instant::now();
        let mut call = {
            let (link, entry) = (link.clone(), entry.clone());
            Box::pin(async move { link.run(&entry.key, &take.encode()).await })
        };
        let (reply, is_slow) = match awaited(&mut call, until, shared.settings.call_timeout / 2).await {
            Awaited::InTime(reply) => (reply, false),
            Awaited::Slow(reply) => (reply, true),
            Awaited::Never => {
                add(&shared.tally.timed_out);
                shared.failed(Instant::now(), AwayReason::TimedOut);
                shared.runtime.spawn(give_back_late(store.clone(), entry.clone(), take, call));
                break;
            }
        };
        let reply = reply.map_err(|error| reason_of(&error));
        let reply = reply.and_then(|reply| TakeReply::decode(&reply).ok_or(AwayReason::Error));
        let now = Instant::now();
        let reply = match reply {
            Ok(reply) => reply,
            Err(reason) => {
                add(&shared.tally.failed);
                shared.failed(now, reason);
                break;
            }
        };
        shared.learn(reply.now_ms, sent, now, &link);
        if is_slow {
            // The answer is as good as any, and the next one would be slow, too.
            shared.failed(now, AwayReason::TimedOut);
        }
        let (cx, current) = shared.context(now);
        let (replied, rest) = entry.state.lock().replied(&question, (&take, hold), &reply, sent, &cx);
        store.correct_later(&entry, rest);
        match replied {
            Replied::Answer { answer, is_lease } => {
                if is_lease {
                    add(&shared.tally.leases);
                }
                store.count(Decided { answer, by: DecidedBy::Server });
                return answer;
            }
            Replied::Lost(answer) => {
                shared.runtime.spawn(tell_lost(shared.clone(), link, entry));
                store.count(Decided { answer, by: DecidedBy::Server });
                return answer;
            }
            Replied::Late => {
                add(&shared.tally.late);
                // The server's clock may have been set: its time is known anew now.
                let Some(current) = current.filter(|_| now < begun + (until - begun) / 2) else {
                    shared.failed(now, AwayReason::TimedOut);
                    break;
                };
                (take.deadline_ms, link) = (reply.now_ms + (until - now).as_millis() as u64, current);
            }
        }
    }
    drop(wish);
    let (cx, _) = shared.context(Instant::now());
    entry.state.lock().unanswered(&question, &cx);
    store.by_share(&entry, &question)
}

/// Awaits an answer for which nobody waits any more, and gives back what it has taken.
async fn give_back_late(
    store: Arc<StoreHandle>,
    entry: Arc<ScopeEntry>,
    take: Take,
    call: Pin<Box<impl Future<Output = RedisResult<Vec<i64>>>>>,
) {
    let Ok(Ok(reply)) = timeout(TOO_LATE, call).await else { return };
    let Some(TakeReply { key, verdict, used, .. }) = TakeReply::decode(&reply) else { return };
    // It tells what the others have taken meanwhile, too.
    entry.state.lock().late(Instant::now(), used, take.day_end);
    if let Verdict::Granted { slot, lease_requests, lease_tokens, .. } = verdict {
        let amount = Amount { requests: take.requests, tokens: take.tokens };
        let back = amount.plus(Amount { requests: lease_requests, tokens: lease_tokens });
        let correct = Correct {
            key,
            slot,
            day_end: take.day_end,
            requests_back: back.requests,
            tokens_before: back.tokens,
            tokens_after: 0,
        };
        store.correct_later(&entry, Some(correct));
    }
}

/// Tells the charges of one scope that the server has lost.
async fn tell_lost(shared: Arc<StoreShared>, link: Link, entry: Arc<ScopeEntry>) {
    if let Err(reason) = tell(&shared, &link, &[entry]).await {
        shared.failed(Instant::now(), reason);
    }
}

/// Tells the charges of these scopes that the server does not have. A scope that is being told already is left out.
pub(super) async fn tell(shared: &StoreShared, link: &Link, entries: &[Arc<ScopeEntry>]) -> Result<(), AwayReason> {
    let time = shared.settings.call_timeout * TELL_TIMES;
    for some in entries.chunks(TOLD_AT_ONCE) {
        let now = Instant::now();
        let day = shared.day(now).0;
        let clock = shared.server.lock().clock;
        let mut told = Vec::with_capacity(some.len());
        for entry in some {
            let Some(guard) = TellGuard::of(entry) else { continue };
            let telling = entry.state.lock().tell(now, day, time, clock);
            told.push((guard, telling));
        }
        let arguments: Vec<_> = told.iter().map(|(guard, telling)| (&*guard.0.key, telling.tell.encode())).collect();
        // The reply is awaited beyond the server's deadline.
        let replies = timeout(time * 2, run_all(link, &arguments)).await.map_err(|_| AwayReason::TimedOut)??;
        for ((guard, telling), reply) in told.iter().zip(replies) {
            let reply = TellReply::decode(&reply).ok_or(AwayReason::Error)?;
            if !reply.is_told {
                return Err(AwayReason::TimedOut);
            }
            guard.0.state.lock().told(Instant::now(), telling, reply.key);
            add(&shared.tally.retold);
        }
    }
    Ok(())
}

/// The right to tell a scope's charges, which only one has at a time.
struct TellGuard<'a>(&'a ScopeEntry);

impl<'a> TellGuard<'a> {
    fn of(entry: &'a ScopeEntry) -> Option<Self> {
        let was_telling = std::mem::replace(&mut entry.state.lock().is_telling, true);
        // A guard that is made in vain would end the telling of another.
        if was_telling { None } else { Some(Self(entry)) }
    }
}

impl Drop for TellGuard<'_> {
    fn drop(&mut self) {
        self.0.state.lock().is_telling = false;
    }
}

/// Runs the script on several keys. A pipeline does not load it where it is missing.
pub(super) async fn run_all(link: &Link, arguments: &[(&str, Vec<u8>)]) -> Result<Vec<Vec<i64>>, AwayReason> {
    let commands: Vec<_> = arguments.iter().map(|(key, argument)| link.script(key, argument)).collect();
    let values = link.call_all(&commands).await.map_err(|error| reason_of(&error))?;
    let mut replies = Vec::with_capacity(values.len());
    for (value, (key, argument)) in values.into_iter().zip(arguments) {
        let is_missing = matches!(&value, redis::Value::ServerError(error) if error.code() == "NOSCRIPT");
        let value = if is_missing { link.call(&in_full(key, argument)).await } else { value.extract_error() };
        replies.push(value.and_then(integers).map_err(|error| reason_of(&error))?);
    }
    Ok(replies)
}

impl StoreHandle {
    /// Decides by this instance's share.
    pub(super) fn by_share(&self, entry: &ScopeEntry, question: &Question) -> Answer {
        let now = Instant::now();
        let (mut cx, _) = self.shared.context(now);
        // It may be back already; then this call is the only one.
        if !matches!(cx.by, DecideBy::Share(_)) {
            cx.by = DecideBy::Share(now);
        }
        let decided = entry.state.lock().by_share(question, &cx);
        self.count(decided);
        decided.answer
    }
}
