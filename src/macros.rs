//! Code that every room has, and that need not be read eleven times.

/// Implements `get_ref`, `get_mut` and `into_inner` for a service whose inner service is its field `inner`.
macro_rules! accessors {
    ($service:ident) => {
        impl<S> $service<S> {
            /// Returns a reference to the inner service.
            pub fn get_ref(&self) -> &S {
                &self.inner
            }

            /// Returns a mutable reference to the inner service.
            pub fn get_mut(&mut self) -> &mut S {
                &mut self.inner
            }

            /// Returns the inner service, without this one.
            pub fn into_inner(self) -> S {
                self.inner
            }
        }
    };
}

pub(crate) use accessors;
