//! A read of a body into memory, up to a cap.
//!
//! It serves the few answers that a layer asks for itself: they are untrusted, and may be of any length, or without
//! end.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::Body;

/// A read of a body into memory, with a cap on its bytes.
pub(crate) struct CappedRead {
    read: BytesMut,
    left: usize,
    frames_left: usize,
}

/// The least bytes of a frame, on average, before a body of many frames is given up; a thousand small ones are free.
const FRAME: usize = 64;

/// The extent to which a body has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it has been read.
    Whole,
    /// There is more than the cap; what was read is the beginning.
    Beginning,
}

impl CappedRead {
    /// Reads at most `cap` bytes.
    pub(crate) fn new(cap: usize) -> Self {
        Self { read: BytesMut::new(), left: cap, frames_left: 1_024 + cap / FRAME }
    }

    /// Reads on until the body has ended, has more than the cap, or fails. What was read before it failed is kept.
    ///
    /// The number of frames has a cap, too, or there might be no end of empty ones. A frame of trailers is one of them, and
    /// has no bytes.
    pub(crate) fn poll<B: Body>(
        &mut self,
        cx: &mut Context<'_>,
        mut body: Pin<&mut B>,
    ) -> Poll<Result<Extent, B::Error>> {
        while let Some(frame) = ready!(body.as_mut().poll_frame(cx)?) {
            // Trailers have no bytes that are kept.
            let data = frame.into_data().ok();
            let length = data.as_ref().map_or(0, Buf::remaining);
            if let Some(data) = data {
                self.read.put(data.take(self.left));
            }
            match (self.left.checked_sub(length), self.frames_left.checked_sub(1)) {
                (Some(left), Some(frames_left)) => (self.left, self.frames_left) = (left, frames_left),
                _ => {
                    self.left = 0;
                    return Poll::Ready(Ok(Extent::Beginning));
                }
            }
        }
        Poll::Ready(Ok(Extent::Whole))
    }

    /// Returns what has been read so far.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.read
    }

    /// Returns what has been read.
    pub(crate) fn into_bytes(self) -> Bytes {
        self.read.freeze()
    }

    /// Returns how much of the cap is left.
    pub(crate) fn left(&self) -> usize {
        self.left
    }
}

impl fmt::Debug for CappedRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CappedRead").field("read", &self.read.len()).field("left", &self.left).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, convert::Infallible, pin::pin, task::Waker};

    use http_body::Frame;

    use super::*;

    struct Pieces(VecDeque<Result<Frame<Bytes>, &'static str>>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            Poll::Ready(self.0.pop_front())
        }
    }

    fn read(cap: usize, pieces: &[&'static str]) -> (Result<Extent, &'static str>, Bytes, usize) {
        let frame = |piece: &&'static str| match *piece {
            "error" => Err("broken"),
            "trailers" => Ok(Frame::trailers(http::HeaderMap::new())),
            piece => Ok(Frame::data(Bytes::from_static(piece.as_bytes()))),
        };
        let (mut body, mut read) = (pin!(Pieces(pieces.iter().map(frame).collect())), CappedRead::new(cap));
        let Poll::Ready(extent) = read.poll(&mut Context::from_waker(Waker::noop()), body.as_mut()) else {
            panic!("the body is ready");
        };
        let left = read.left();
        (extent, read.into_bytes(), left)
    }

    #[test]
    fn a_body_is_read_to_its_end_or_to_the_cap() {
        assert_eq!(read(9, &[]), (Ok(Extent::Whole), Bytes::new(), 9));
        assert_eq!(read(9, &["one", "two"]), (Ok(Extent::Whole), "onetwo".into(), 3));
        assert_eq!(read(6, &["one", "two"]), (Ok(Extent::Whole), "onetwo".into(), 0));
        assert_eq!(read(6, &["one", "two", "trailers"]), (Ok(Extent::Whole), "onetwo".into(), 0));
        assert_eq!(read(5, &["one", "two", "three"]), (Ok(Extent::Beginning), "onetw".into(), 0));
        assert_eq!(read(9, &["one", "error", "two"]), (Err("broken"), "one".into(), 6));
    }

    #[test]
    fn frames_without_a_byte_have_an_end() {
        struct Endless;
        impl Body for Endless {
            type Data = Bytes;
            type Error = Infallible;
            fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
                Poll::Ready(Some(Ok(Frame::data(Bytes::new()))))
            }
        }
        let mut read = CappedRead::new(1_000);
        let polled = read.poll(&mut Context::from_waker(Waker::noop()), pin!(Endless));
        assert_eq!((polled, read.bytes()), (Poll::Ready(Ok(Extent::Beginning)), &b""[..]));
    }
}
