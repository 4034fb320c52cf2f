//! The owners of resources: learned from the answers, bounded.

use std::sync::Arc;

use crate::{bounded::ByAge, resource::Resource};

/// The most names that are remembered of each sort; the oldest are forgotten first.
pub(super) const MAX_NAMES: usize = 16_384;

/// The project that created each resource.
///
/// Interactions, uploads and the like come with ordinary calls, and have a memory of their own: they would make the
/// pool forget its files within minutes.
pub(super) struct Owners {
    lasting: ByAge<Resource, Arc<str>>,
    passing: ByAge<Resource, Arc<str>>,
}

impl Default for Owners {
    fn default() -> Self {
        Self { lasting: ByAge::new(MAX_NAMES), passing: ByAge::new(MAX_NAMES) }
    }
}

impl Owners {
    /// Returns the project that has created a resource, if it is remembered.
    pub(super) fn of(&self, resource: &Resource) -> Option<&Arc<str>> {
        let of_its_sort = if resource.is_passing() { &self.passing } else { &self.lasting };
        // Nobody has to ask for a batch before its results: a webhook may have told their name.
        of_its_sort.get(resource).or_else(|| self.lasting.get(&resource.batch_of_results()?))
    }

    /// Remembers the project that has just created a resource. An earlier one of that name is gone: callers choose the
    /// names of agents, models and files.
    pub(super) fn made(&mut self, resource: Resource, project: &Arc<str>) {
        let of_its_sort = if resource.is_passing() { &mut self.passing } else { &mut self.lasting };
        of_its_sort.insert(resource, project.clone());
    }

    /// Remembers the project that has answered with a resource, unless its owner is known.
    pub(super) fn seen(&mut self, resource: Resource, project: &Arc<str>) {
        if self.of(&resource).is_none() {
            self.made(resource, project);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(collection: &str, nth: usize) -> Resource {
        Resource::in_name(&format!("{collection}/{nth}")).unwrap()
    }

    #[test]
    fn the_oldest_names_of_a_sort_are_forgotten_first() {
        let (mut owners, project) = (Owners::default(), Arc::from("p1"));
        (0..MAX_NAMES + 10).for_each(|nth| owners.made(name("files", nth), &project));
        (0..MAX_NAMES + 20).for_each(|nth| owners.seen(name("interactions", nth), &project));
        assert_eq!((owners.lasting.len(), owners.passing.len()), (MAX_NAMES, MAX_NAMES));
        assert!(owners.of(&name("files", 9)).is_none() && owners.of(&name("files", 10)).is_some());
        assert!(owners.of(&name("interactions", 19)).is_none() && owners.of(&name("interactions", 20)).is_some());
    }

    #[test]
    fn whoever_makes_a_thing_owns_it_and_whoever_shows_it_only_if_nobody_does() {
        let (mut owners, one, other) = (Owners::default(), Arc::from("p1"), Arc::from("p2"));
        owners.seen(name("agents", 1), &one);
        owners.seen(name("agents", 1), &other);
        assert_eq!(owners.of(&name("agents", 1)), Some(&one));
        owners.made(name("agents", 1), &other);
        assert_eq!(owners.of(&name("agents", 1)), Some(&other));
    }
}
