//! The contract's view of a room: it wraps any service.

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower::{Service, ServiceExt, util::BoxCloneService};
use tower_gemini::{BoxError, Outcome, failure::Failure};

use crate::support::AnyBody;

/// The service of a room, with its types erased.
pub(crate) type Outer = BoxCloneService<Request<Full<Bytes>>, Response<AnyBody>, BoxError>;

/// A room. `B` is the body that it sends inward.
pub(crate) trait Room<B>: Copy + Send + Sync + 'static {
    fn wrap<S>(self, inner: S) -> Outer
    where
        S: Service<Request<B>, Response = Response<AnyBody>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static;
}

/// An inner service, with its types erased.
pub(crate) type Inner<B> = BoxCloneService<Request<B>, Response<AnyBody>, BoxError>;

/// A room that wraps an erased service, so that a law is compiled once for all rooms, and a room once for all laws.
pub(crate) struct ErasedRoom<B>(pub(crate) fn(Inner<B>) -> Outer);

impl<B> Clone for ErasedRoom<B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for ErasedRoom<B> {}

impl<B: 'static> Room<B> for ErasedRoom<B> {
    fn wrap<S>(self, inner: S) -> Outer
    where
        S: Service<Request<B>, Response = Response<AnyBody>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
    {
        (self.0)(Inner::new(inner.map_err(Into::into)))
    }
}

/// A body that a room may send inward.
pub(crate) trait Inward: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static {}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static> Inward for B {}

/// Returns the failure of a call: `ErrorResponse` answers with it, the other rooms return it as an error.
pub(crate) fn failure(result: &Result<Response<AnyBody>, BoxError>) -> Option<Failure> {
    Outcome::of(result).failure().cloned()
}

/// Makes a module for each room, with a test for each law.
macro_rules! rooms {
    ($($name:ident: $inward:ty => $layer:expr;)*) => { $(
        mod $name {
            #[allow(unused_imports, reason = "each room uses a part of it")]
            use super::*;
            use $crate::{contract::{self, room::Outer}, support::AnyBody};

            #[derive(Clone, Copy)]
            struct Room;

            impl contract::room::Room<$inward> for Room {
                fn wrap<S>(self, inner: S) -> Outer
                where
                    S: tower::Service<http::Request<$inward>, Response = http::Response<AnyBody>>,
                    S: Clone + Send + 'static,
                    S::Error: Into<tower_gemini::BoxError>,
                    S::Future: Send + 'static,
                {
                    let service = tower::Layer::layer(&$layer, inner);
                    let service = tower::ServiceExt::map_response(service, |response| {
                        http::Response::map(response, $crate::support::any)
                    });
                    Outer::new(tower::ServiceExt::map_err(service, Into::into))
                }
            }

            const ERASED: contract::room::ErasedRoom<$inward> =
                contract::room::ErasedRoom(|inner| contract::room::Room::wrap(Room, inner));

            contract::room::law!(law_1_hands_the_request_on, shape);
            contract::room::law!(law_1_hands_the_answer_on, shape);
            contract::room::law!(law_1_passes_a_redirect_and_an_upgrade_on, shape);
            contract::room::law!(law_2_readiness_is_the_inner_services, readiness);
            contract::room::law!(law_2_unreadiness_goes_out_as_an_error, readiness);
            contract::room::law!(law_2_calls_the_service_that_is_ready, readiness);
            contract::room::law!(law_2_one_permit_is_enough_for_all, readiness);
            contract::room::law!(law_2_holds_no_permit_while_it_waits, readiness);
            contract::room::law!(law_2_works_over_a_buffer, readiness);
            contract::room::law!(law_3_spawns_no_task, tasks);
            contract::room::law!(law_3_leaks_nothing, tasks);
            contract::room::law!(law_4_a_paused_clock_drives_it, clock);
            contract::room::law!(law_5_dropped_at_any_poll_leaves_nothing, cancellation);
            contract::room::law!(law_5_a_dropped_body_drops_the_upstreams, cancellation);
            contract::room::law!(law_6_chunks_pass_one_by_one_and_untouched, streaming);
            contract::room::law!(law_6_size_hints_and_trailers_stay, streaming);
            contract::room::law!(law_6_an_empty_body_is_known_to_be_empty, streaming);
            contract::room::law!(law_6_sends_nothing_again_after_the_commit, streaming);
            contract::room::law!(law_7_an_earlier_deadline_stays, deadline);
            contract::room::law!(law_8_what_is_encoded_passes_untouched, encoding);
            contract::room::law!(law_10_no_more_is_read_ahead_than_may_be_held, bounds);

            #[tokio::test(start_paused = true)]
            async fn law_1_takes_any_error() {
                contract::shape::law_1_takes_an_io_error(Room).await;
                contract::shape::law_1_takes_an_error_that_is_none_of_std(Room).await;
            }

            #[test]
            fn law_1_has_the_shape_of_a_room() {
                let layer = contract::shape::a_layer($layer);
                let mut service = tower::Layer::layer(&layer, contract::shape::Plain);
                contract::shape::a_service::<_, $inward>(&service);
                let _: &contract::shape::Plain = service.get_ref();
                let _: &mut contract::shape::Plain = service.get_mut();
                let _: contract::shape::Plain = service.into_inner();
            }

            #[test]
            fn law_3_futures_are_send_and_sync() {
                let mut service = tower::Layer::layer(&$layer, contract::shape::Plain);
                contract::tasks::a_future(&tower::Service::call(&mut service, $crate::support::post("/")));
            }

            #[test]
            fn law_4_needs_no_timer_unless_something_is_pending() {
                contract::clock::without_a_runtime(ERASED);
            }

            #[tokio::test(start_paused = true)]
            async fn law_9_nothing_that_is_debugged_shows_a_key_or_a_body() {
                contract::secrets::debugged($layer).await;
            }

            #[tokio::test(start_paused = true)]
            async fn law_9_no_error_shows_a_key() {
                contract::secrets::displayed(ERASED).await;
            }
        }
    )* };
}

macro_rules! law {
    ($law:ident, $module:ident) => {
        #[tokio::test(start_paused = true)]
        async fn $law() {
            contract::$module::$law(ERASED).await;
        }
    };
}

pub(crate) use {law, rooms};
