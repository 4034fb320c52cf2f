//! The knowledge of a pool in a form that outlives the process.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{KeyPool, health::HealthMemory, marks::MarkMemory, pool::log_disabled};
use crate::clock::TimeAnchor;

/// The knowledge of a [`KeyPool`] in a form that outlives the process, from [`KeyPool::memory`]: the keys that are disabled or
/// were refused, and the blocks of each project. Keys are in it by their fingerprints alone.
///
/// It is written with serde, in a format that describes itself, such as JSON. What a later version adds is missing in an older memory, and counts as
/// not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyPoolMemory {
    keys: Vec<KeyMemory>,
    projects: Vec<ProjectMemory>,
}

/// The state of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KeyMemory {
    fingerprint: Box<str>,
    #[serde(flatten)]
    health: HealthMemory,
}

/// The blocks of one project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ProjectMemory {
    project: Box<str>,
    /// The fingerprints of its keys: a project of the same name with none of them is another one.
    keys: Vec<Box<str>>,
    blocks: Vec<MarkMemory>,
}

impl KeyPool {
    /// Returns everything that the pool knows of its keys and projects and that holds for another process too, for
    /// [`restore`](Self::restore). Reads wall time.
    ///
    /// ```
    /// use tower_gemini::key_pool::{ApiKey, Key, KeyPool, KeyPoolMemory, KeyState};
    ///
    /// let pool = || KeyPool::builder().key(Key::new(ApiKey::new("AIza-nobodys")?)).build();
    /// let before = pool()?;
    /// before.disable(&before.snapshot()[0].fingerprint);
    /// let kept = serde_json::to_string(&before.memory())?;
    /// // In the next process:
    /// let after = pool()?;
    /// after.restore(&serde_json::from_str::<KeyPoolMemory>(&kept)?);
    /// assert!(matches!(after.snapshot()[0].state, KeyState::Disabled { .. }));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn memory(&self) -> KeyPoolMemory {
        let (now, anchor) = (Instant::now(), TimeAnchor::read());
        let registry = self.shared.registry.lock();
        let keys = registry.entries().filter_map(|entry| {
            let health = entry.health.memory(anchor)?;
            Some(KeyMemory { fingerprint: (&*entry.key.shown).into(), health })
        });
        let projects = registry.projects.iter().filter_map(|project| {
            let blocks = project.marks.memory(anchor, now);
            let keys = || project.keys.iter().map(|entry| (&*entry.key.shown).into()).collect();
            let known = |blocks| ProjectMemory { project: (&*project.handle.name).into(), keys: keys(), blocks };
            Some(blocks).filter(|blocks| !blocks.is_empty()).map(known)
        });
        KeyPoolMemory { keys: keys.collect(), projects: projects.collect() }
    }

    /// Takes up what a pool of another process knew of keys and projects that this one has too: for a program that has just
    /// started. Reads wall time, and logs each key that is disabled by that.
    ///
    /// A key that was disabled after refusals is [checked](Self::recheck) soon. Blocks end when they would have, and no later
    /// than a refusal of this moment would; those of a project are taken up if at least one of its keys is still in it. What
    /// this pool has seen itself goes before.
    pub fn restore(&self, memory: &KeyPoolMemory) {
        let (now, anchor) = (Instant::now(), TimeAnchor::read());
        let mut disabled = Vec::new();
        let mut registry = self.shared.registry.lock();
        for project in &mut registry.projects {
            for entry in &mut project.keys {
                let known = memory.keys.iter().find(|known| *known.fingerprint == *entry.key.shown);
                let Some(known) = known else { continue };
                if let Some(reason) = entry.change(|health| health.restore(&known.health, anchor, now)) {
                    disabled.push((entry.key.clone(), reason));
                }
            }
            let is_same = |known: &&ProjectMemory| {
                let mut keys = project.keys.iter();
                let has_one = keys.any(|entry| known.keys.iter().any(|key| **key == *entry.key.shown));
                *known.project == *project.handle.name && has_one
            };
            if let Some(known) = memory.projects.iter().find(is_same) {
                project.marks.restore(&known.blocks, anchor, now);
            }
            project.publish();
        }
        drop(registry);
        if !disabled.is_empty() {
            self.shared.disabled.notify_one();
        }
        for (key, reason) in disabled {
            log_disabled(&key, reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, time::Duration};

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Empty;
    use tokio::time::timeout;

    use super::*;
    use crate::{
        block::Claim,
        failure::Kind,
        key_pool::{ApiKey, DisabledReason, Key, KeyState, Part},
    };

    fn pool(keys: &[(&str, &str)]) -> KeyPool {
        let key = |(key, project): &(&str, &str)| Key::new(ApiKey::new(*key).unwrap()).project(*project);
        keys.iter().map(key).fold(KeyPool::builder(), |pool, key| pool.key(key)).build().unwrap()
    }

    fn refuse(pool: &KeyPool, at: usize) {
        let fingerprint = pool.snapshot()[at].fingerprint;
        let mut registry = pool.shared.registry.lock();
        let (project, key) = registry.find(fingerprint).unwrap();
        assert!(project.keys[key].change(|health| health.refused(Kind::AuthKeyInvalid, true, Instant::now())));
    }

    fn block(pool: &KeyPool, at: usize, model: &str) {
        let (now, midnight) = (Instant::now(), Instant::now() + Duration::from_secs(50_000));
        let mut registry = pool.shared.registry.lock();
        registry.projects[at].marks.block(Part::Model, &model.into(), Claim::day(), now, midnight);
    }

    fn kept(pool: &KeyPool) -> KeyPoolMemory {
        serde_json::from_str(&serde_json::to_string(&pool.memory()).unwrap()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_was_refused_is_checked_soon_after_a_restart_and_one_that_was_taken_out_is_not() {
        let keys = [("one", "p1"), ("other", "p1"), ("third", "p1")];
        let before = pool(&keys);
        refuse(&before, 0);
        before.disable(&before.snapshot()[1].fingerprint);
        let after = pool(&keys);
        // The checks are under way already, and wait for a key to be disabled.
        let good = tower::service_fn(|_: Request<Empty<Bytes>>| async {
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let mut recheck = Box::pin(after.recheck(good));
        assert!(timeout(Duration::from_secs(1), &mut recheck).await.is_err());
        after.restore(&kept(&before));
        let states = || after.snapshot().into_iter().map(|report| report.state).collect::<Vec<_>>();
        let refused = |state: &KeyState| matches!(state, KeyState::Disabled { reason: DisabledReason::Refused(_), .. });
        let by_hand = |state: &KeyState| matches!(state, KeyState::Disabled { reason: DisabledReason::ByHand, .. });
        assert!(refused(&states()[0]) && by_hand(&states()[1]) && states()[2] == KeyState::Active);
        assert!(timeout(Duration::from_secs(62), recheck).await.is_err());
        assert!(states()[0] == KeyState::Active && by_hand(&states()[1]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_project_of_which_no_key_is_left_is_another_one() {
        let before = pool(&[("one", "p1"), ("other", "p1"), ("third", "p2")]);
        block(&before, 0, "m");
        block(&before, 1, "m");
        let after = pool(&[("other", "p1"), ("new", "p1"), ("newer", "p2"), ("third", "p3")]);
        after.restore(&kept(&before));
        let parked: Vec<_> = after.snapshot().iter().map(|report| report.models.len()).collect();
        assert_eq!(parked, [1, 1, 0, 0]);
        // A block that is news to this process stays as it is.
        let states = |pool: &KeyPool| pool.snapshot()[0].models[0].look;
        tokio::time::advance(Duration::from_secs(10)).await;
        let newer = states(&after);
        after.restore(&kept(&before));
        assert_eq!(states(&after), newer);
        assert_eq!(kept(&after).projects.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_secret_and_nothing_unknown_is_kept() {
        let pool = pool(&[("a-secret-key", "p1")]);
        assert_eq!(pool.memory(), KeyPoolMemory::default());
        refuse(&pool, 0);
        block(&pool, 0, "m");
        let text = serde_json::to_string(&pool.memory()).unwrap();
        assert!(text.contains(&pool.snapshot()[0].fingerprint.to_string()) && !text.contains("a-secret-key"), "{text}");
        pool.restore(&serde_json::from_str("{}").unwrap());
    }
}
