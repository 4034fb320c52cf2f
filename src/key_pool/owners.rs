//! The owners of resources: learned from the answers, bounded.

use std::sync::Arc;

use crate::{bounded::ByAge, resource::Resource};

/// The most names that are remembered; the oldest are forgotten first.
pub(super) const MAX_NAMES: usize = 16_384;

/// The project that created each resource.
pub(super) struct Owners(ByAge<Resource, Arc<str>>);

impl Default for Owners {
    fn default() -> Self {
        Self(ByAge::new(MAX_NAMES))
    }
}

impl Owners {
    /// Returns the project that has created a resource, if it is remembered.
    pub(super) fn of(&self, resource: &Resource) -> Option<&Arc<str>> {
        self.0.get(resource)
    }

    /// Remembers the project that has created a resource. The first one stays.
    pub(super) fn learn(&mut self, resource: Resource, project: &Arc<str>) {
        if self.of(&resource).is_none() {
            self.0.insert(resource, project.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_names_are_forgotten_first() {
        let (mut owners, project) = (Owners::default(), Arc::from("p1"));
        let name = |nth: usize| Resource::in_name(&format!("files/{nth}")).unwrap();
        (0..MAX_NAMES + 10).for_each(|nth| owners.learn(name(nth), &project));
        assert_eq!(owners.0.len(), MAX_NAMES);
        assert!(owners.of(&name(9)).is_none() && owners.of(&name(10)).is_some());
        owners.learn(name(10), &Arc::from("p2"));
        assert_eq!(owners.of(&name(10)), Some(&project));
    }
}
