use tower_layer::Layer;

use super::ErrorResponse;

/// Turns an error into the answer that Google would have given. See the [module](super) for its shape.
///
/// For servers only, outside of everything else: the service it makes cannot fail, as axum wants it.
#[derive(Clone, Debug, Default)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct ErrorResponseLayer {}

impl ErrorResponseLayer {
    /// Answers in the envelope of the caller's surface.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<S> Layer<S> for ErrorResponseLayer {
    type Service = ErrorResponse<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ErrorResponse { inner, unready: None }
    }
}
