//! The wait for an answer.
//!
//! An answer that does not come in time means that the server is away. But a process that was stalled itself, by its own load,
//! finds all its time-outs over before it reads the answers that came meanwhile; and to take its share then, without what those
//! answers say, would be to take what others have been granted.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

/// The lateness of a timer from which this process was stalled. Timers are a millisecond late at most by nature.
const STALLED: Duration = Duration::from_millis(3);

/// The end of a wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Awaited<T> {
    /// The answer came in time, or was read late because this process was stalled.
    InTime(T),
    /// The answer came a little late.
    Slow(T),
    /// No answer came.
    Never,
}

/// Awaits an answer until a time, and for the grace after that.
pub(super) async fn awaited<F: Future + Unpin>(call: &mut F, until: Instant, grace: Duration) -> Awaited<F::Output> {
    if let Ok(answer) = timeout_at(until, &mut *call).await {
        return Awaited::InTime(answer);
    }
    let is_stalled = Instant::now().saturating_duration_since(until) > STALLED;
    match timeout(grace, call).await {
        Ok(answer) if is_stalled => Awaited::InTime(answer),
        Ok(answer) => Awaited::Slow(answer),
        Err(_) => Awaited::Never,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_in_time_slow_or_none() {
        let wait = async |answers: Duration| {
            let mut call = Box::pin(async move { sleep(answers).await });
            awaited(&mut call, Instant::now() + 20 * MS, 10 * MS).await
        };
        assert_eq!(wait(19 * MS).await, Awaited::InTime(()));
        assert_eq!(wait(25 * MS).await, Awaited::Slow(()));
        assert_eq!(wait(31 * MS).await, Awaited::Never);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_was_there_while_the_process_was_stalled_is_in_time() {
        let (answer, mut answered) = tokio::sync::oneshot::channel();
        let until = Instant::now() + 20 * MS;
        let wait = tokio::spawn(async move { awaited(&mut answered, until, 10 * MS).await });
        tokio::task::yield_now().await;
        // The timer is over before the answer is read.
        advance(60 * MS).await;
        tokio::task::yield_now().await;
        answer.send(7).unwrap();
        assert_eq!(wait.await.unwrap(), Awaited::InTime(Ok(7)));
    }
}
