//! The contestants: this crate's presets, the peers, and the optimum, each a caller over the same upstream.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt};
use tower_gemini::{Error, GeminiLayer, stack::GeminiBuilder};

use crate::{
    peers::{self, AtOnce, Aws, Doubling, GeminiCli, GoogleGenai, Grpc, Once, TowerBudget},
    upstream::Upstream,
};

/// The end of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Answered,
    /// A failure of the upstream's, or the total clock.
    Failed,
    /// A refusal by the caller's own side, with nothing sent in this attempt.
    Refused,
}

type Ending = Pin<Box<dyn Future<Output = End> + Send>>;

/// Makes calls. Clones share all state: they are one program.
#[derive(Clone)]
pub(crate) struct Caller {
    call: Arc<dyn Fn(Request<Full<Bytes>>) -> Ending + Send + Sync>,
}

impl Caller {
    pub(crate) fn new<F>(call: impl Fn(Request<Full<Bytes>>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = End> + Send + 'static,
    {
        Self { call: Arc::new(move |request| Box::pin(call(request))) }
    }

    /// Makes a call, whose answer is read to its end.
    pub(crate) async fn call(&self, request: Request<Full<Bytes>>) -> End {
        (self.call)(request).await
    }
}

/// Makes the caller of a stack.
pub(crate) fn stack(settings: GeminiBuilder, upstream: &Upstream) -> Caller {
    let service = settings.build().expect("settings that can work").layer(upstream.clone());
    Caller::new(move |request| {
        let service = service.clone();
        async move {
            match service.oneshot(request).await {
                Ok(response) if response.status() == 200 => match response.into_body().collect().await {
                    Ok(_) => End::Answered,
                    Err(_) => End::Failed,
                },
                Ok(_) => End::Failed,
                Err(error) => match Error::find(&*error) {
                    Some(error) if error.never_sent() => End::Refused,
                    _ => End::Failed,
                },
            }
        }
    })
}

/// The preset of a row. A new one is a line in each of these functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preset {
    Interactive,
    Batch,
    Relay,
}

impl Preset {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive()",
            Self::Batch => "batch()",
            Self::Relay => "relay()",
        }
    }

    /// Returns its settings.
    pub(crate) fn builder(self) -> GeminiBuilder {
        match self {
            Self::Interactive => GeminiLayer::interactive(),
            Self::Batch => GeminiLayer::batch(),
            Self::Relay => GeminiLayer::relay(),
        }
    }

    /// Returns its total clock, which all contestants have.
    pub(crate) fn total(self) -> Duration {
        Duration::from_secs(match self {
            Self::Interactive => 60,
            Self::Batch => 3_600,
            Self::Relay => 285,
        })
    }
}

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contestant {
    /// The row's own optimum, if it is not [`AtOnce`].
    Optimum,
    Ours,
    Once,
    GoogleGenai,
    GeminiCli,
    Doubling,
    Aws,
    Grpc,
    TowerBudget,
}

impl Contestant {
    pub(crate) const ALL: [Self; 9] = [
        Self::Optimum,
        Self::Ours,
        Self::Once,
        Self::GoogleGenai,
        Self::GeminiCli,
        Self::Doubling,
        Self::Aws,
        Self::Grpc,
        Self::TowerBudget,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Optimum => "optimum",
            Self::Ours => "tower-gemini",
            Self::Once => "none",
            Self::GoogleGenai => "google-genai",
            Self::GeminiCli => "gemini-cli",
            Self::Doubling => "`2**i`",
            Self::Aws => "AWS",
            Self::Grpc => "gRPC",
            Self::TowerBudget => "tower's budget",
        }
    }

    /// Makes its caller: this crate's with the preset as `set` changes it.
    pub(crate) fn caller_with(
        self,
        preset: Preset,
        set: impl FnOnce(GeminiBuilder) -> GeminiBuilder,
        upstream: &Upstream,
    ) -> Caller {
        let total = preset.total();
        match self {
            Self::Ours => stack(set(preset.builder()), upstream),
            Self::Optimum => peers::caller(AtOnce, total, upstream),
            Self::Once => peers::caller(Once, total, upstream),
            Self::GoogleGenai => peers::caller(GoogleGenai, total, upstream),
            Self::GeminiCli => peers::caller(GeminiCli, total, upstream),
            Self::Doubling => peers::caller(Doubling, total, upstream),
            Self::Aws => peers::caller(Aws::new(), total, upstream),
            Self::Grpc => peers::caller(Grpc::new(), total, upstream),
            Self::TowerBudget => peers::caller(TowerBudget::new(), total, upstream),
        }
    }

    /// Makes its caller: this crate's with the preset as it is.
    pub(crate) fn caller(self, preset: Preset, upstream: &Upstream) -> Caller {
        self.caller_with(preset, |settings| settings, upstream)
    }
}
