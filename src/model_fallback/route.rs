//! The models that a call may still go to, in their order.

use std::{iter::Chain, ops::Range};

/// The numbers of a chain's models, each once.
#[derive(Clone, Debug)]
pub(super) struct Route(Chain<Range<usize>, Range<usize>>);

impl Route {
    /// Makes a route over `all`, from `at` on. Models before `at` come last: when the others are down, these may be
    /// back.
    pub(super) fn from(at: usize, all: Range<usize>) -> Self {
        Self((at..all.end).chain(all.start..at))
    }

    /// Makes a route over these models only.
    pub(super) fn only(models: Range<usize>) -> Self {
        Self(models.chain(0..0))
    }

    /// Makes a route without models.
    pub(super) fn nowhere() -> Self {
        Self::only(0..0)
    }

    /// Makes a route to the model that was asked for, if that is still to come.
    pub(super) fn asked(&self) -> Self {
        let is_left = self.0.clone().any(|at| at == 0);
        Self::only(0..usize::from(is_left))
    }

    /// Returns the number of models that are left.
    pub(super) fn left(&self) -> u32 {
        u32::try_from(self.0.size_hint().0).unwrap_or(u32::MAX)
    }

    /// Takes the next model.
    pub(super) fn next(&mut self) -> Option<usize> {
        self.0.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut route: Route) -> Vec<usize> {
        assert_eq!(route.left() as usize, route.0.clone().count());
        std::iter::from_fn(|| route.next()).collect()
    }

    #[test]
    fn what_is_before_the_beginning_comes_last() {
        assert_eq!(all(Route::from(0, 0..3)), [0, 1, 2]);
        assert_eq!(all(Route::from(1, 0..3)), [1, 2, 0]);
        assert_eq!(all(Route::from(2, 0..3)), [2, 0, 1]);
        assert!(all(Route::nowhere()).is_empty());
        assert_eq!(all(Route::only(3..5)), [3, 4]);
    }

    #[test]
    fn the_one_that_was_asked_for_comes_once() {
        let mut route = Route::from(1, 0..3);
        assert_eq!(all(route.asked()), [0]);
        route.next();
        assert_eq!(all(route.asked()), [0]);
        let mut route = Route::from(0, 0..3);
        route.next();
        assert!(all(route.asked()).is_empty());
    }
}
