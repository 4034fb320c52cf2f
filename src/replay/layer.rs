use std::fmt;

use tower_layer::Layer;

use super::{
    memory::ReplayMemory,
    service::Replay,
    settings::{Oversize, Settings},
};
use crate::describe::Describe;

/// Makes any request body resendable, up to its caps. See the [module](super) for what happens past them.
///
/// Clones, and all services made from one layer, share the total cap.
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct ReplayLayer {
    settings: Settings,
}

impl ReplayLayer {
    /// The largest body that is kept, by default: 32 MiB. Google takes 20 MiB inline, and more on some endpoints.
    pub const MAX_BODY: usize = 32 * 1024 * 1024;
    /// What is kept in all, by default: 512 MiB, sixteen of the largest bodies or thousands of ordinary ones.
    pub const MAX_TOTAL: usize = 512 * 1024 * 1024;

    /// Keeps bodies up to the default caps and streams what is larger.
    pub fn new() -> Self {
        let memory = ReplayMemory::new(Self::MAX_TOTAL);
        Self { settings: Settings { max_body: Self::MAX_BODY, oversize: Oversize::Stream, memory } }
    }

    /// The largest body that is kept, in bytes.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.settings.max_body = bytes;
        self
    }

    /// How many bytes are kept at a time, in all. A body that finds no room streams on; it is never refused for that.
    ///
    /// Gives this layer an account of its own: call it before cloning.
    pub fn max_total(mut self, bytes: usize) -> Self {
        self.settings.memory = ReplayMemory::new(bytes);
        self
    }

    /// What becomes of a body over [`max_body`](Self::max_body).
    pub fn oversize(mut self, oversize: Oversize) -> Self {
        self.settings.oversize = oversize;
        self
    }
}

impl Default for ReplayLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl Describe for ReplayLayer {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { max_body, oversize, .. } = self.settings;
        let larger = match oversize {
            Oversize::Stream => "streamed, and sent once",
            Oversize::Refuse => "refused",
        };
        write!(f, "keeps bodies up to {max_body} bytes; larger ones are {larger}")
    }
}

impl<S> Layer<S> for ReplayLayer {
    type Service = Replay<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Replay { inner, settings: self.settings.clone() }
    }
}
