//! The threads that read large bodies, so that no other call waits for it, and the cap on the values of a body.
//!
//! A worker of the runtime answers nobody while it reads a body: 31 MiB of `{},{},…` take it 0.4 s, and a caller can send
//! many of them. So a body of more than [`INLINE`] bytes is read on a blocking thread, of which each layer keeps no more
//! busy than half of the machine's cores: the others wait for their turn. A smaller body takes less time than the way to
//! another thread would be worth, and is read where it is.
//!
//! A body of more than [`MAX_VALUES`] values and names of members is not read at all: the upstream judges it. That many
//! have no room in the context of any model, whose millions of tokens they would be, and a list of the tokens of any
//! batch of embeddings that an API takes is a third of it; reading more would only cost time.

use std::{
    num::NonZeroUsize,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    thread::available_parallelism,
};

use memchr::memchr2;
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    task::{JoinHandle, spawn_blocking},
};

/// The most bytes of a body that are read where they are: a millisecond's work, whatever is in them.
pub(crate) const INLINE: usize = 128 * 1024;

/// The most values and names of members of a body that is read.
pub(crate) const MAX_VALUES: usize = 1 << 20;

/// The threads that read for a layer. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Readers(Arc<Semaphore>);

impl Default for Readers {
    fn default() -> Self {
        let half = available_parallelism().map_or(1, NonZeroUsize::get) / 2;
        Self(Arc::new(Semaphore::new(half.max(1))))
    }
}

impl Readers {
    /// Returns whether a body of so many bytes has to be read on another thread. Outside of a runtime there is none, and
    /// nobody who would wait.
    #[inline]
    pub(crate) fn are_needed(bytes: usize) -> bool {
        bytes > INLINE && Handle::try_current().is_ok()
    }

    /// Reads on another thread, when there is a turn. A turn that nobody waits for any more is not taken.
    pub(crate) fn read<T, F>(&self, read: F) -> BodyRead<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + Sync + 'static,
    {
        let readers = self.0.clone();
        BodyRead(Box::pin(async move {
            let turn = readers.acquire_owned().await.ok()?;
            let mut job = ReadJob(spawn_blocking(move || {
                // It ends with the reading, which goes on where the call is dropped.
                let _turn = turn;
                read()
            }));
            (&mut job.0).await.ok()
        }))
    }
}

/// The result of reading on another thread, to come. `None`: the reader panicked, or the runtime is shutting down.
pub(crate) struct BodyRead<T>(Pin<Box<dyn Future<Output = Option<T>> + Send + Sync>>);

impl<T> Future for BodyRead<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

/// A job that is not begun where nobody waits for it any more.
struct ReadJob<T>(JoinHandle<T>);

impl<T> Drop for ReadJob<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Returns whether a body has more values than are read. One that is no JSON at its first look has none.
pub(crate) fn has_too_many_values(body: &[u8]) -> bool {
    let may_be_json = || matches!(body.trim_ascii_start().first(), Some(b'{' | b'['));
    body.len() > MAX_VALUES && may_be_json() && has_more_values(body, MAX_VALUES)
}

/// Returns whether a body has more than `most` values and names of members. It takes no notice of mistakes.
fn has_more_values(body: &[u8], most: usize) -> bool {
    let (mut at, mut values, mut in_word) = (0, 0, false);
    while let Some(byte) = body.get(at) {
        at += 1;
        match byte {
            b'"' => {
                at = string_end(body, at);
                in_word = false;
                values += 1;
            }
            b'{' | b'[' => {
                in_word = false;
                values += 1;
            }
            b',' | b':' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n' => in_word = false,
            _ if in_word => continue,
            _ => {
                in_word = true;
                values += 1;
            }
        }
        if values > most {
            return true;
        }
    }
    false
}

/// Returns the place behind the closing quote of a string whose text begins at `at`.
fn string_end(body: &[u8], mut at: usize) -> usize {
    while let Some(found) = body.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found + 1;
        if body[at - 1] == b'"' {
            return at;
        }
        at += 1;
    }
    body.len()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use parking_lot::Mutex;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// Counts values and names of members in a tree.
    fn counted(value: &Value) -> usize {
        1 + match value {
            Value::Array(items) => items.iter().map(counted).sum(),
            Value::Object(members) => members.values().map(|value| 1 + counted(value)).sum(),
            _ => 0,
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-cé\"\\\\\n{},:\\[\\] ]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map("[a\"\\\\:]{0,3}", inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn values_and_names_are_counted_as_a_tree_shows_them(value in values(), is_pretty in any::<bool>()) {
            let text = if is_pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let (text, number) = (text.unwrap(), counted(&value));
            prop_assert!(!has_more_values(text.as_bytes(), number), "{number} in {text}");
            prop_assert!(has_more_values(text.as_bytes(), number - 1), "{number} in {text}");
        }

        #[test]
        fn any_bytes_are_counted_to_an_end(body in prop::collection::vec(any::<u8>(), 0..60)) {
            has_more_values(&body, usize::MAX);
        }
    }

    #[test]
    fn large_requests_that_are_real_are_read() {
        // 2,048 texts of an embedding as tokens, 300,000 in all: OpenAI takes no more. And a hundred vectors.
        let tokens = json!({"model": "m", "input": vec![vec![100_000; 146]; 2_048]}).to_string();
        let vectors = json!({"contents": vec![vec![0.012_345_678; 3_072]; 100]}).to_string();
        let media = json!({"contents": [{"parts": [{"inlineData": {"data": "A".repeat(8 << 20)}}]}]}).to_string();
        for body in [tokens, vectors, media] {
            assert!(!has_too_many_values(body.as_bytes()), "{} bytes", body.len());
        }
        assert!(has_too_many_values("{},".repeat(MAX_VALUES + 1).as_bytes()));
        assert!(!has_too_many_values(format!("--{}", "{},".repeat(MAX_VALUES + 1)).as_bytes()), "a multipart body");
        assert!(!has_too_many_values("{},".repeat(MAX_VALUES).as_bytes()));
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_read_at_a_time_as_there_are_turns_and_a_reading_that_nobody_awaits_is_not_begun() {
        let readers = Readers(Arc::new(Semaphore::new(1)));
        let order = Arc::new(Mutex::new(Vec::new()));
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let note = |number: u8| {
            let order = order.clone();
            move || order.lock().push(number)
        };
        let first = {
            let note = note(1);
            readers.read(move || {
                let _ = wait.lock().recv();
                note();
            })
        };
        let (second, third) = (readers.read(note(2)), readers.read(note(3)));
        let first = tokio::spawn(first);
        let second = tokio::spawn(second);
        let third = tokio::spawn(third);
        tokio::task::yield_now().await;
        second.abort();
        go.send(()).unwrap();
        first.await.unwrap().unwrap();
        assert_eq!(tokio::time::timeout(Duration::from_secs(60), third).await.unwrap().unwrap(), Some(()));
        assert_eq!(*order.lock(), [1, 3]);
    }
}
