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
            let has = |shown: &Box<str>| project.keys.iter().any(|entry| *entry.key.shown == **shown);
            let is_same = |known: &&ProjectMemory| *known.project == *project.handle.name && known.keys.iter().any(has);
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
