use tower_layer::Layer;

use super::ErrorResponse;
use crate::redact::Secrets;

/// Turns an error into the answer that Google would have given. See the [module](super) for its shape.
///
/// For servers only, outside of everything else: the service it makes cannot fail, as axum wants it.
#[derive(Clone, Debug, Default)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct ErrorResponseLayer {
    secrets: Secrets,
}

impl ErrorResponseLayer {
    /// Answers in the envelope of the caller's surface.
    pub fn new() -> Self {
        Self::default()
    }

    /// A credential of the server's own, such as the key that it sends upstream: wherever an upstream's failure repeats
    /// it, in a header or in the text, it is overwritten with asterisks.
    ///
    /// Keys of Google's shapes (`AIza…`, `AQ.…`, `ya29.…`) are known without; fewer than 8 characters are no secret.
    pub fn secret(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.secrets = self.secrets.with(secret.as_ref());
        self
    }
}

impl<S> Layer<S> for ErrorResponseLayer {
    type Service = ErrorResponse<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ErrorResponse { inner, secrets: self.secrets.clone(), unready: None }
    }
}
