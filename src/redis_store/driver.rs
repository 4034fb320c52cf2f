//! The task of a store: looks at the server from time to time, and brings it what nobody waits for.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep_until, timeout},
};

use super::{
    ask::run_all,
    health::probe_after,
    link::Link,
    probe::Probe,
    registry,
    report::AwayReason,
    script::{Correct, encode_close, encode_open},
    shared::{ScopeEntry, StoreShared},
};
use crate::{clock::FAR, quota::Closing};

/// The orders that are sent in one pipeline.
const AT_ONCE: usize = 256;

/// The time for which corrections wait for others of their slot: nearly each call has one, and the server would be asked twice
/// for each otherwise.
const GATHER: Duration = Duration::from_millis(25);

/// The times of one call for which the replies to orders are awaited.
const ORDER_TIMES: u32 = 5;

/// An order to the server, which nobody waits for.
pub(super) enum Order {
    Correct(Arc<ScopeEntry>, Correct),
    /// The times of the look and of the end.
    Close(Arc<ScopeEntry>, Instant, Instant),
    Open(Arc<ScopeEntry>),
}

impl Order {
    pub(super) fn close(entry: Arc<ScopeEntry>, now: Instant, closing: Closing) -> Self {
        Self::Close(entry, now + closing.look.min(FAR), now + closing.ends.min(FAR))
    }
}

/// Runs until the last handle is dropped.
pub(super) async fn run(shared: Arc<StoreShared>, mut orders: mpsc::Receiver<Order>) {
    serve(&shared, &mut orders).await;
    if let Some(link) = shared.connected() {
        let leave = registry::leave(&shared.settings.prefix, &shared.settings.instance);
        // The others find it out without that, too, a little later.
        let _ = timeout(shared.settings.call_timeout, link.call(&leave)).await;
    }
    // Calls that are on their way may hold the state for a while.
    shared.server.lock().link = None;
}

async fn serve(shared: &Arc<StoreShared>, orders: &mut mpsc::Receiver<Order>) {
    let mut probe = Probe::new(shared.clone());
    let mut batch = Vec::new();
    let mut next = Instant::now();
    loop {
        let link = shared.connected();
        tokio::select! {
            biased;
            () = sleep_until(next) => {
                // While the server is away, orders wait: nobody else would notice that the last handle is gone.
                if orders.is_closed() && (orders.is_empty() || link.is_none()) {
                    return;
                }
                probe.look().await;
                while !probe.orders.is_empty() && let Some(link) = shared.connected() {
                    let some = probe.orders.split_off(probe.orders.len().saturating_sub(AT_ONCE));
                    bring(shared, &link, some).await;
                }
                next = Instant::now() + probe_after(shared.settings.probe_every, fastrand::f64());
            }
            count = orders.recv_many(&mut batch, AT_ONCE), if link.is_some() => {
                if count == 0 {
                    return;
                }
                gather(orders, &shared.urgent, &mut batch).await;
                if let Some(link) = link {
                    bring(shared, &link, std::mem::take(&mut batch)).await;
                }
            }
        }
    }
}

/// Waits for more corrections, unless a closing or an opening is to be brought. No correction wakes this task, because a call
/// would pay for that.
async fn gather(orders: &mut mpsc::Receiver<Order>, urgent: &Notify, batch: &mut Vec<Order>) {
    if batch.iter().all(|order| matches!(order, Order::Correct(..))) {
        let _ = timeout(GATHER, urgent.notified()).await;
    }
    while batch.len() < AT_ONCE
        && let Ok(order) = orders.try_recv()
    {
        batch.push(order);
    }
}

/// Brings orders to the server. Those that fail are lost: what they would have given back counts until its minute is over.
async fn bring(shared: &StoreShared, link: &Link, orders: Vec<Order>) {
    let now = Instant::now();
    let orders = merged(orders);
    // A closing that is over by now would be none.
    let orders: Vec<_> =
        orders.into_iter().filter(|order| !matches!(order, Order::Close(_, _, ends) if *ends <= now)).collect();
    let arguments: Vec<_> = orders.iter().map(|order| order.argument(now)).collect();
    let time = shared.settings.call_timeout * ORDER_TIMES;
    let brought = timeout(time, run_all(link, &arguments)).await.unwrap_or(Err(AwayReason::TimedOut));
    if let Err(reason) = brought {
        let lost = arguments.len() as u64;
        shared.tally.corrections_dropped.fetch_add(lost, std::sync::atomic::Ordering::Relaxed);
        shared.failed(Instant::now(), reason);
    }
}

impl Order {
    fn argument(&self, now: Instant) -> (&str, Vec<u8>) {
        let left = |until: Instant| until.saturating_duration_since(now);
        match self {
            Self::Correct(entry, correct) => (&entry.key, correct.encode()),
            Self::Close(entry, look, ends) => {
                (&entry.key, encode_close(Closing { look: left(*look), ends: left(*ends) }))
            }
            Self::Open(entry) => (&entry.key, encode_open()),
        }
    }
}

/// Adds up the corrections of one slot. All else keeps its order.
fn merged(orders: Vec<Order>) -> Vec<Order> {
    let mut merged: Vec<Order> = Vec::with_capacity(orders.len());
    let mut places = HashMap::new();
    for order in orders {
        let Order::Correct(entry, correct) = &order else {
            merged.push(order);
            continue;
        };
        let Correct { key, slot, day_end, requests_back, tokens_before, tokens_after } = *correct;
        let place = *places.entry((Arc::as_ptr(entry), key.0, slot, day_end)).or_insert(merged.len());
        match merged.get_mut(place) {
            Some(Order::Correct(_, sum)) => {
                sum.requests_back = sum.requests_back.saturating_add(requests_back);
                sum.tokens_before = sum.tokens_before.saturating_add(tokens_before);
                sum.tokens_after = sum.tokens_after.saturating_add(tokens_after);
            }
            _ => merged.push(order),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use tokio::time::sleep;

    use super::*;
    use crate::redis_store::{
        scope::ScopeState,
        script::{DayEnd, KeyId, Slot},
        shared::ScopeEntry,
    };

    #[tokio::test(start_paused = true)]
    async fn corrections_wait_for_others_of_their_slot_and_a_closing_does_not() {
        const FIRST: Duration = Duration::from_millis(10);
        let ((send, mut orders), urgent) = (mpsc::channel(8), Notify::new());
        let entry = Arc::new(ScopeEntry::for_test(Mutex::new(ScopeState::new(Instant::now()))));
        let day_end = DayEnd(3_600);
        let correct =
            Correct { key: KeyId(7), slot: Slot(1), day_end, requests_back: 1, tokens_before: 0, tokens_after: 0 };
        let order = || Order::Correct(entry.clone(), correct);
        let (first, second, third) = (order(), order(), order());
        let closing = Order::close(entry.clone(), Instant::now(), Closing::of(Duration::from_secs(1)));
        let begun = Instant::now();
        let sending = async {
            sleep(FIRST).await;
            send.send(second).await.unwrap();
            sleep(GATHER).await;
            send.send(third).await.unwrap();
            send.send(closing).await.unwrap();
            urgent.notify_one();
        };
        let gathering = async {
            let mut batch = vec![first];
            gather(&mut orders, &urgent, &mut batch).await;
            assert_eq!((batch.len(), begun.elapsed()), (2, GATHER));
            batch.clear();
            orders.recv_many(&mut batch, 1).await;
            gather(&mut orders, &urgent, &mut batch).await;
            assert_eq!((batch.len(), begun.elapsed()), (2, FIRST + GATHER));
        };
        tokio::join!(sending, gathering);
    }

    #[test]
    fn corrections_of_one_slot_are_one_and_the_rest_keeps_its_order() {
        let now = Instant::now();
        let entry = || Arc::new(ScopeEntry::for_test(Mutex::new(ScopeState::new(now))));
        let (one, other) = (entry(), entry());
        let correct = |slot, requests_back| Correct {
            key: KeyId(7),
            slot: Slot(slot),
            day_end: DayEnd(3_600),
            requests_back,
            tokens_before: 10,
            tokens_after: 3,
        };
        let orders = merged(vec![
            Order::Correct(one.clone(), correct(1, 1)),
            Order::close(one.clone(), now, Closing::of(Duration::from_secs(1))),
            Order::Correct(one.clone(), correct(2, 1)),
            Order::Correct(other.clone(), correct(1, 1)),
            Order::Correct(one.clone(), correct(1, 4)),
            Order::Open(one.clone()),
        ]);
        let said = orders.iter().map(|order| match order {
            Order::Correct(entry, correct) => {
                let who = if Arc::ptr_eq(entry, &one) { "one" } else { "other" };
                format!(
                    "{who} {} {} {} {}",
                    correct.slot.0, correct.requests_back, correct.tokens_before, correct.tokens_after
                )
            }
            Order::Close(..) => "close".to_owned(),
            Order::Open(_) => "open".to_owned(),
        });
        let said: Vec<_> = said.collect();
        assert_eq!(said, ["one 1 5 20 6", "close", "one 2 1 10 3", "other 1 1 10 3", "open"]);
    }
}
