//! A classifier for tower-http's [`TraceLayer`](tower_http::trace::TraceLayer), which gives it this crate's verdicts.
//!
//! `TraceLayer`'s own classifier knows 5xx from the rest, so that a log of a Gemini client is silent about every 429
//! and every dead key. [`GeminiClassifier`] takes its place.

use std::{any::Any, error::Error as StdError, fmt};

use http::{Request, Response};
use tower_http::classify::{ClassifiedResponse, ClassifyResponse, MakeClassifier, NeverClassifyEos};

use crate::{
    context::{BoxError, Error, Outcome},
    failure::Failure,
};

/// A classifier for tower-http that tells what is a failure, and whose fault it is.
///
/// It takes the verdict of the layers inside, where there are any, and else judges by status and headers. A 200
/// that turned out empty or blocked is a failure as well.
///
/// ```
/// use tower::{Service, ServiceBuilder};
/// use tower_gemini::trace::GeminiClassifier;
/// use tower_http::trace::TraceLayer;
///
/// let service = ServiceBuilder::new()
///     .layer(TraceLayer::new(GeminiClassifier))
///     .service_fn(|_: http::Request<String>| async { Ok::<_, tower_gemini::BoxError>(http::Response::new(String::new())) });
/// # fn check<S: Service<http::Request<String>>>(_: S) {}
/// # check(service);
/// ```
///
/// With a log line of your own:
///
/// ```
/// use tower_gemini::{failure::Failure, trace::GeminiClassifier};
/// use tower_http::trace::TraceLayer;
///
/// let layer = TraceLayer::new(GeminiClassifier).on_failure(
///     |failure: Failure, latency: std::time::Duration, _: &tracing::Span| {
///         tracing::warn!(fault = %failure.fault(), kind = %failure.kind(), ?latency, "call failed");
///     },
/// );
/// # let _: TraceLayer<GeminiClassifier, _, _, _, _, _, _> = layer;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct GeminiClassifier;

impl MakeClassifier for GeminiClassifier {
    type Classifier = Self;
    type FailureClass = Failure;
    type ClassifyEos = NeverClassifyEos<Failure>;

    fn make_classifier<B>(&self, _: &Request<B>) -> Self {
        Self
    }
}

impl ClassifyResponse for GeminiClassifier {
    type FailureClass = Failure;
    type ClassifyEos = NeverClassifyEos<Failure>;

    fn classify_response<B>(self, response: &Response<B>) -> ClassifiedResponse<Failure, Self::ClassifyEos> {
        ClassifiedResponse::Ready(match Outcome::of_response(response).failure() {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        })
    }

    fn classify_error<E>(self, error: &E) -> Failure
    where
        E: fmt::Display + 'static,
    {
        let error: &dyn Any = error;
        // `Display` is all that is promised; the types that can come are few.
        let known: Option<&(dyn StdError + 'static)> = if let Some(error) = error.downcast_ref::<BoxError>() {
            Some(&**error)
        } else if let Some(error) = error.downcast_ref::<Error>() {
            Some(error)
        } else if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            Some(error)
        } else if let Some(error) = error.downcast_ref::<hyper::Error>() {
            Some(error)
        } else if let Some(error) = error.downcast_ref::<std::io::Error>() {
            Some(error)
        } else {
            None
        };
        match known {
            Some(error) => {
                Error::find(error).map_or_else(|| Failure::from_error(error), |known| known.failure().clone())
            }
            None => Failure::local(
                crate::failure::Kind::Transport,
                "the service failed with an error of an unknown type; box it as a BoxError to have it read",
            ),
        }
    }
}
