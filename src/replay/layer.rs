//! The layer and its settings.

use std::fmt;

use tower_layer::Layer;

use super::{
    memory::ReplayMemory,
    service::Replay,
    settings::{Oversize, Settings},
    shares::Caps,
};
use crate::{
    describe::Describe,
    request::readers::{self, Readers},
};

/// A layer that makes request bodies resendable, up to its caps. The [module](super) says what becomes of larger ones.
///
/// Clones, and all services made from one layer, share the cap for all bodies.
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct ReplayLayer {
    settings: Settings,
}

impl ReplayLayer {
    /// The default cap of one body: 32 MiB. Google takes 20 MiB inline, and more on some endpoints.
    pub const MAX_BODY: usize = 32 * 1024 * 1024;
    /// The default cap of all bodies together: 512 MiB, 16 of the largest bodies or thousands of ordinary ones.
    pub const MAX_TOTAL: usize = 512 * 1024 * 1024;

    /// The most values and names of members of a body that is read: 1,048,576. One with more says nothing to the layers
    /// inside ([`body_is_unread`](crate::CallContext::body_is_unread)).
    pub const MAX_VALUES: usize = readers::MAX_VALUES;

    /// Creates a layer that keeps bodies up to the default caps, and streams larger ones.
    pub fn new() -> Self {
        let memory = ReplayMemory::new(Self::MAX_TOTAL);
        Self {
            settings: Settings {
                max_body: Self::MAX_BODY,
                oversize: Oversize::Stream,
                memory,
                readers: Readers::default(),
            },
        }
    }

    /// Sets the cap of one body, in bytes. Default: [`MAX_BODY`](Self::MAX_BODY).
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.settings.max_body = bytes;
        self
    }

    /// Sets the cap of all bodies that are kept at the same time, in bytes. Default: [`MAX_TOTAL`](Self::MAX_TOTAL). A
    /// body that finds no room streams on; it is never refused for that.
    ///
    /// One caller alone keeps at most half of it, so that others find room: [`ReplayMemory`] says how it is shared.
    ///
    /// The layer no longer shares its memory with its earlier clones: call this before cloning.
    pub fn max_total(mut self, bytes: usize) -> Self {
        self.settings.memory = ReplayMemory::with_caps(Caps { total: bytes, ..self.settings.memory.caps() });
        self
    }

    /// Sets the cap of one caller's bodies, in bytes, besides its share. Default: none, the share is enough. A body
    /// that finds no room streams on.
    ///
    /// The layer no longer shares its memory with its earlier clones: call this before cloning.
    pub fn max_per_caller(mut self, bytes: usize) -> Self {
        self.settings.memory = ReplayMemory::with_caps(Caps { per_caller: Some(bytes), ..self.settings.memory.caps() });
        self
    }

    /// Keeps bodies in this memory, with its caps, in place of one of the layer's own. For several layers that share
    /// one, and for caps that change later.
    pub fn keep_in(mut self, memory: ReplayMemory) -> Self {
        self.settings.memory = memory;
        self
    }

    /// Returns the memory in which bodies are kept.
    pub fn memory(&self) -> &ReplayMemory {
        &self.settings.memory
    }

    /// Sets the treatment of a body over [`max_body`](Self::max_body). Default: [`Oversize::Stream`].
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
        Replay { inner, settings: self.settings.clone(), model: None }
    }
}
