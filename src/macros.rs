//! What every room has and nobody wants to read eleven times.

/// `get_ref`, `get_mut` and `into_inner`, for a service whose inner service is its field `inner`.
macro_rules! accessors {
    ($service:ident) => {
        impl<S> $service<S> {
            /// The inner service.
            pub fn get_ref(&self) -> &S {
                &self.inner
            }

            /// The inner service, to be changed.
            pub fn get_mut(&mut self) -> &mut S {
                &mut self.inner
            }

            /// The inner service, without this one.
            pub fn into_inner(self) -> S {
                self.inner
            }
        }
    };
}

pub(crate) use accessors;
