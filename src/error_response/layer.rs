//! The layer, which has the settings.

use tower_layer::Layer;

use super::{ErrorResponse, OpenAiErrors, StreamEnding, settings::Settings};

/// A layer that turns an error into the answer that Google would have given. See the [module](super) for its shape.
///
/// It is for servers only, outside of all other layers: its service cannot fail, as axum wants it.
#[derive(Clone, Debug, Default)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct ErrorResponseLayer {
    settings: Settings,
}

impl ErrorResponseLayer {
    /// Makes a layer that answers in the envelope of the caller's surface.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a credential of the server's own, such as the key that it sends upstream: in the headers and the text of an
    /// upstream's failure it is overwritten with asterisks.
    ///
    /// Keys of Google's shapes (`AIza…`, `AQ.…`, `ya29.…`) are known without it. A secret of fewer than 8 characters is
    /// ignored.
    pub fn secret(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.settings.secrets = self.settings.secrets.with(secret.as_ref());
        self
    }

    /// Sets the end of a stream that has begun and that breaks. Default: [`StreamEnding::EventThenBreak`].
    pub fn stream_ending(mut self, ending: StreamEnding) -> Self {
        self.settings.ending = ending;
        self
    }

    /// Sets the shape of errors on the OpenAI-compatible surface. Default: [`OpenAiErrors::Objects`].
    pub fn openai_errors(mut self, errors: OpenAiErrors) -> Self {
        self.settings.openai = errors;
        self
    }
}

impl<S> Layer<S> for ErrorResponseLayer {
    type Service = ErrorResponse<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ErrorResponse { inner, settings: self.settings.clone(), unready: None }
    }
}
