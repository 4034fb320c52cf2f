//! The project that a call has to go to: the one that owns the resources it names.

use std::{
    borrow::Cow,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use http::{Method, Request};
use tokio::time::Instant;

use super::{marks::Needs, pool::Shared, registry::KeyEntry};
use crate::{
    body::{Resend, in_memory},
    call::{Idempotency, Operation, Shape, Surface},
    context::{CallContext, LargeBody, Tried},
    resource::{MAX_NAMED, Mention, Mentions, Resource},
};

/// The part of an answer that the pool reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Teaches {
    Nothing,
    /// The tokens with which it may go on.
    Tokens,
    /// The names of resources, of which those that the answer is about were made by the call, or shown.
    Names {
        made: bool,
        collection: Option<&'static str>,
    },
}

/// The project that a call has to go to.
#[derive(Debug)]
pub(super) struct RequiredProject {
    pub(super) project: Arc<str>,
    /// True if the call makes something there only to have it with the others: it may be made elsewhere for a good
    /// reason.
    pub(super) may_leave: bool,
}

/// Returns the body of a call, as far as it is to be searched: behind one project none is.
pub(super) fn searched_body<'a, B>(shared: &Shared, request: &'a Request<B>) -> Option<Cow<'a, Bytes>>
where
    B: Resend<Data = Bytes>,
{
    let is_searched = *request.method() != Method::GET && shared.projects.load(Ordering::Relaxed) > 1;
    if is_searched { in_memory(request.body()) } else { None }
}

/// Returns the project that a call has to go to. `None`: any. `tried` is what was of no use to earlier attempts; `body` is
/// the body, where that is to be searched.
pub(super) fn required_project<B>(
    shared: &Shared,
    request: &Request<B>,
    shape: Shape,
    model: &str,
    tried: &[Tried],
    body: Option<&[u8]>,
) -> Option<RequiredProject> {
    if let Some(project) = named(shared, request, shape, model, body) {
        return Some(RequiredProject { project, may_leave: false });
    }
    if !model.is_empty() || !is_collection(request, shape) {
        return None;
    }
    let creates = *request.method() == Method::POST;
    let project = default_project(shared)?;
    // A listing elsewhere would be another list; a resource that is created elsewhere is found again.
    let elsewhere = creates && (shared.spread_creations || !serves(shared, &project, Needs::of(shape, model), tried));
    (!elsewhere).then_some(RequiredProject { project, may_leave: creates })
}

/// Decides what there is to learn from the answer to a call.
pub(super) fn teaches<B>(
    shared: &Shared,
    request: &Request<B>,
    shape: Shape,
    place: Option<&RequiredProject>,
) -> Teaches {
    if shared.projects.load(Ordering::Relaxed) <= 1 {
        return Teaches::Nothing;
    }
    let names = |made| Teaches::Names { made, collection: Resource::asked_collection(request.uri().path()) };
    let makes = *request.method() == Method::POST || *request.method() == Method::PUT;
    match shape.operation {
        Operation::Upload | Operation::Write => names(makes),
        Operation::CreateInteraction => Teaches::Names { made: true, collection: Some("interactions") },
        // A response of the OpenAI-compatible surface that is kept.
        Operation::GenerateContent if shape.idempotency == Idempotency::Unsafe => names(true),
        Operation::GenerateContent if shape.surface != Surface::OpenAi => Teaches::Tokens,
        // The results of batches and operations, and what was made before this program began.
        Operation::Read if place.is_some() => names(false),
        _ => Teaches::Nothing,
    }
}

/// Returns the project of the resources that the call names: the owner of the first one with a known owner, or else the
/// default project.
fn named<B>(shared: &Shared, request: &Request<B>, shape: Shape, model: &str, body: Option<&[u8]>) -> Option<Arc<str>> {
    let plain = shape.pays_quota() || matches!(shape.operation, Operation::CountTokens | Operation::ComputeTokens);
    let in_uri = if plain && !model.starts_with("tunedModels/") { None } else { Resource::in_uri(request.uri()) };
    let in_uri = in_uri.map(|resource| Mention { resource, is_certain: true });
    let context = CallContext::of(request);
    match context.and_then(CallContext::large_body).filter(|_| body.is_some()) {
        // It was searched where nobody waits for it, and is not searched again for each attempt.
        Some(LargeBody::Read { mentions }) => owner_of(shared, in_uri.into_iter().chain(mentions.iter().cloned())),
        Some(LargeBody::Unread) => owner_of(shared, in_uri),
        None if context.is_some_and(CallContext::names_nothing) => owner_of(shared, in_uri),
        None => owner_of(shared, in_uri.into_iter().chain(body.into_iter().flat_map(Mentions::new))),
    }
}

/// Returns the owner of the first resource with a known owner, or else the default project. `None`: no resource is
/// named, or only what may be anybody's.
fn owner_of(shared: &Shared, named: impl IntoIterator<Item = Mention>) -> Option<Arc<str>> {
    let mut is_certain = false;
    let known = named.into_iter().take(MAX_NAMED).find_map(|mention| {
        is_certain |= mention.is_certain;
        // The lock is not held while the body is searched on: it may be long.
        shared.owners.lock().of(&mention.resource).cloned()
    });
    known
        .filter(|project| shared.registry.lock().project_named(project).is_some())
        .or_else(|| if is_certain { default_project(shared) } else { None })
}

/// Returns the default project: the configured one, as long as it has a key, or else the first.
fn default_project(shared: &Shared) -> Option<Arc<str>> {
    let registry = shared.registry.lock();
    let configured = shared.default_project.as_ref().and_then(|project| registry.project_named(project));
    configured.or_else(|| registry.projects.first()).map(|project| project.handle.name.clone())
}

/// Returns whether a project can take a call: it is not blocked, and has a key that is neither disabled nor tried.
fn serves(shared: &Shared, project: &str, needs: Needs<'_>, tried: &[Tried]) -> bool {
    let now = Instant::now();
    let registry = shared.registry.lock();
    registry.project_named(project).is_some_and(|project| {
        let name = &project.handle.name;
        let has_tried = |entry: &KeyEntry| {
            tried.iter().any(|tried| match tried {
                Tried::Key(shown) => *shown == entry.key.shown,
                Tried::Project(project) => project == name,
            })
        };
        let mut keys = project.keys.iter();
        project.marks.left(needs, now).is_zero()
            && keys.any(|entry| entry.health.disabled.is_none() && !has_tried(entry))
    })
}

/// Returns whether the call creates something in a collection of the project, or lists the collection.
fn is_collection<B>(request: &Request<B>, shape: Shape) -> bool {
    let path = request.uri().path();
    match shape.operation {
        Operation::Upload => true,
        Operation::Write => Resource::is_collection(path),
        Operation::Read => Resource::collection_in_path(path).is_some(),
        _ => false,
    }
}
