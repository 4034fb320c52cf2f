//! `KeepAliveLayer` costs a stream that is never silent one allocation in all, and its pieces cost next to none.

mod support;

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use tokio_test::task;
use tower::{Layer, ServiceExt, service_fn};
use tower_gemini::{CallContext, KeepAliveLayer, call::Call};

use crate::support::{CHAT, GENERATE, STREAM, Upstream, any, fed, post, secs, sse};

const EVENTS: usize = 1_000;
const EVENT: &[u8] =
    b"data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hello\"}],\"role\":\"model\"}}]}\r\n\r\n";

/// A body of many events, each after a poll without one.
#[derive(Default)]
struct Events {
    polls: usize,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.polls += 1;
        match self.polls {
            polls if polls % 2 == 1 => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            polls if polls <= 2 * EVENTS => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(EVENT))))),
            _ => Poll::Ready(None),
        }
    }
}

/// Counts the allocations of a call and of the reading of its answer.
fn allocations(layer: &KeepAliveLayer, request: Request<Full<Bytes>>) -> u64 {
    let answer = |_: Request<Full<Bytes>>| {
        let response = Response::builder().header("content-type", "text/event-stream").body(Events::default());
        std::future::ready(Ok::<_, Infallible>(response.unwrap()))
    };
    let service = layer.layer(service_fn(answer));
    allocation_counter::measure(|| {
        let mut call = task::spawn(service.oneshot(request));
        let Poll::Ready(response) = call.poll() else { panic!("it waits") };
        let mut body = std::pin::pin!(response.unwrap().into_body());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut events = 0;
        loop {
            match body.as_mut().poll_frame(&mut cx) {
                Poll::Ready(Some(frame)) => events += usize::from(frame.is_ok()),
                Poll::Ready(None) => break,
                Poll::Pending => {}
            }
        }
        assert_eq!(events, EVENTS);
    })
    .count_total
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_never_silent_costs_one_allocation_and_other_calls_none() {
    let (without, with) = (KeepAliveLayer::disabled(), KeepAliveLayer::new(secs(15)));
    // The first timer of a runtime may cost something.
    allocations(&with, post(STREAM));
    let bare = allocations(&without, post(STREAM));
    assert_eq!(allocations(&with, post(STREAM)), bare + 1, "the box of the call");
    assert_eq!(allocations(&with, post(GENERATE)), bare);
    // A layer outside has read that this chat does not stream.
    let mut chat = post(CHAT);
    let call = Call::new(chat.method(), chat.uri()).read_body(b"{\"model\":\"gemini-2.5-flash\",\"messages\":[]}");
    CallContext::update(chat.extensions_mut(), |context| context.set_call(call));
    assert_eq!(allocations(&with, chat), bare);
}

#[tokio::test(start_paused = true)]
async fn blank_lines_on_an_open_line_cost_nothing_for_the_fields_that_are_kept() {
    let id = format!("id: {}\n\n", "x".repeat(3_900));
    for (line, most) in [("\n", 0), ("event: x\n\n", 64 * 1_024)] {
        let (feed, body) = fed();
        let body = parking_lot::Mutex::new(Some(any(body)));
        let upstream = Upstream::at_once(move |_| Ok(sse(body.lock().take().expect("asked once"))));
        let service = KeepAliveLayer::new(Duration::from_secs(15)).layer(upstream);
        let mut body = Box::pin(service.oneshot(post(STREAM)).await.unwrap().into_body());
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "data: ");
        feed.data(id.clone());
        assert!(task::spawn(body.frame()).poll().is_pending());
        feed.data(line.repeat(2_000));
        let cost = allocation_counter::measure(|| assert!(task::spawn(body.frame()).poll().is_pending()));
        assert!(cost.bytes_total <= most + 1_024, "{line:?} cost {} bytes", cost.bytes_total);
        feed.data("data: {}\n\n");
        assert_eq!(
            body.frame().await.unwrap().unwrap().into_data().unwrap(),
            format!("{{}}\n{}\n", id.trim_end().to_owned() + "\n")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_piece_costs_no_allocation_but_the_first() {
    let upstream =
        service_fn(|_: Request<Full<Bytes>>| std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>());
    let service = KeepAliveLayer::new(Duration::from_secs(15)).layer(upstream);
    let mut body = Box::pin(service.oneshot(post(STREAM)).await.unwrap().into_body());
    let mut next = async || body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(next().await, "data: ");
    for _ in 0..10 {
        let mut piece = Bytes::new();
        let mut waiting = task::spawn(next());
        assert!(waiting.poll().is_pending());
        tokio::time::advance(secs(15)).await;
        let cost = allocation_counter::measure(|| {
            if let Poll::Ready(data) = waiting.poll() {
                piece = data;
            }
        });
        assert_eq!((piece, cost.count_total), (Bytes::from_static(b" "), 0));
    }
}
