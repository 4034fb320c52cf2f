//! Calls on interactions: made, read, continued, cancelled, deleted.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::{
    exchange::{ApiCaller, Exchange},
    respond::KEPT_PROMPT,
};
use crate::emulator::{
    script::{
        plan::{BodyStep, ResponsePlan},
        trouble::Trouble,
    },
    state::{
        models::EmulatedModel,
        stored::{ResourceKind, StoredInteraction, StoredResource},
    },
    wire::{
        cut::cut,
        errors::ApiError,
        interaction_call::{InteractionCall, NewInteraction},
        interactions::{self, InteractionView, Progress},
        resources::{deleted, timestamp},
    },
};

/// Google keeps interactions for 55 days, and for one on the free tier.
const LIFE: Duration = Duration::from_secs(55 * 24 * 3600);
const FREE_LIFE: Duration = Duration::from_secs(24 * 3600);
/// The length of an interaction's id behind `v1_`.
const ID: usize = 48;

impl Exchange<'_> {
    /// Carries out a call and plans its answer.
    pub(super) fn respond_to_interaction(
        &self,
        call: &InteractionCall,
        caller: &ApiCaller<'_>,
        model: Option<&EmulatedModel>,
        trouble: Option<&Trouble>,
    ) -> ResponsePlan {
        let body = match call {
            InteractionCall::Create(new) => return self.create_interaction(new, caller, model, trouble),
            InteractionCall::Get { id, stream, after, with_input } => match self.stored_interaction(id, caller) {
                Some(stored) if *stream => return self.streamed_again(&stored, *after, caller, trouble),
                Some(stored) => Ok(self.with_view(&stored, *with_input, interactions::interaction)),
                None => Err(ApiError::not_found()),
            },
            InteractionCall::Cancel { id } => self.cancel_interaction(id, caller),
            InteractionCall::Delete { id } => {
                let now = self.shared.elapsed();
                match self.shared.state.lock().storage.delete(&name_of(id), &caller.project, now) {
                    true => Ok(deleted()),
                    false => Err(ApiError::not_found()),
                }
            }
        };
        match body {
            Ok(body) => self.whole(body, self.shared.settings.before_headers, trouble),
            Err(error) => self.refuse(&error, Duration::ZERO),
        }
    }

    fn create_interaction(
        &self,
        new: &NewInteraction,
        caller: &ApiCaller<'_>,
        model: Option<&EmulatedModel>,
        trouble: Option<&Trouble>,
    ) -> ResponsePlan {
        let settings = &self.shared.settings;
        let now = self.shared.elapsed();
        let mut answer = self.compose(&new.prompt, model, trouble);
        let prompt = cut(new.prompt.last_turn(), KEPT_PROMPT);
        self.promise_continuation(&mut answer, &prompt, caller);
        let id = format!("v1_{}", self.shared.state.lock().storage.new_id(ID));
        answer.id.clone_from(&id);
        let ready = if new.background { now.saturating_add(settings.background) } else { now };
        let (called, previous) = (new.called.clone(), new.previous.clone());
        let interaction = StoredInteraction { called, answer, previous, prompt, ready, cancelled: false };
        let stored = if new.store {
            let kind = ResourceKind::Interaction(Box::new(interaction.clone()));
            let life = if settings.paid { LIFE } else { FREE_LIFE };
            let storage = &mut self.shared.state.lock().storage;
            // A new id is not taken.
            storage.make("interactions", Some(id), &caller.project, kind, now, life).ok()
        } else {
            None
        };
        let mut view = InteractionView::of(&interaction, self.times(now, now), now);
        view.stored = stored.is_some();
        if new.stream {
            let frames = interactions::frames(&view, 0);
            return self.streamed(frames, interaction.answer.tier, caller, model, trouble);
        }
        if new.background {
            // Even an interaction that takes no time is under way in the answer to its making.
            view.progress = Progress::Running;
            return self.whole(interactions::interaction(&view), settings.before_headers, trouble);
        }
        self.in_one_piece(interactions::interaction(&view), &interaction.answer, trouble)
    }

    /// Streams an interaction that was made before, from the event behind the number `after` on, when it is ready.
    fn streamed_again(
        &self,
        stored: &StoredResource,
        after: u64,
        caller: &ApiCaller<'_>,
        trouble: Option<&Trouble>,
    ) -> ResponsePlan {
        let ResourceKind::Interaction(interaction) = &stored.kind else {
            return self.refuse(&ApiError::not_found(), Duration::ZERO);
        };
        let now = self.shared.elapsed();
        let end = interaction.ready.max(now);
        let view = InteractionView::of(interaction, self.times(stored.made, end), end);
        let frames = interactions::frames(&view, after);
        let mut plan = self.streamed(frames, interaction.answer.tier, caller, None, trouble);
        if let (ResponsePlan::Answer { body, .. }, false) = (&mut plan, interaction.cancelled) {
            let wait = interaction.ready.saturating_sub(now);
            if !wait.is_zero() {
                body.steps.push_front(BodyStep::Pause(wait));
            }
        }
        plan
    }

    fn cancel_interaction(&self, id: &str, caller: &ApiCaller<'_>) -> Result<Bytes, ApiError> {
        let now = self.shared.elapsed();
        let stored = {
            let storage = &mut self.shared.state.lock().storage;
            let stored = storage.get_mut(&name_of(id), &caller.project, now).ok_or_else(ApiError::not_found)?;
            let ResourceKind::Interaction(interaction) = &mut stored.kind else { return Err(ApiError::not_found()) };
            if interaction.ready <= now && !interaction.cancelled {
                let what = "Only an interaction in the background that is still running can be cancelled.";
                return Err(ApiError::invalid_argument(what));
            }
            interaction.cancelled = true;
            stored.clone()
        };
        Ok(self.with_view(&stored, false, interactions::interaction))
    }

    fn stored_interaction(&self, id: &str, caller: &ApiCaller<'_>) -> Option<StoredResource> {
        let now = self.shared.elapsed();
        self.shared.state.lock().storage.get(&name_of(id), &caller.project, now).cloned()
    }

    /// Writes an interaction that was made before, as it is now.
    fn with_view(
        &self,
        stored: &StoredResource,
        with_input: bool,
        write: impl FnOnce(&InteractionView<'_>) -> Bytes,
    ) -> Bytes {
        let ResourceKind::Interaction(interaction) = &stored.kind else { return Bytes::new() };
        let now = self.shared.elapsed();
        let times = self.times(stored.made, interaction.ready.min(now).max(stored.made));
        let mut view = InteractionView::of(interaction, times, now);
        view.input = with_input.then_some(&interaction.prompt);
        write(&view)
    }

    /// Writes two times as interactions have them: in whole seconds.
    fn times(&self, made: Duration, changed: Duration) -> [String; 2] {
        [made, changed].map(|time| {
            let since = self.shared.wall(time).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs()))
        })
    }
}

impl<'a> InteractionView<'a> {
    /// Shows an interaction as it is at the time `now`.
    fn of(interaction: &'a StoredInteraction, [created, updated]: [String; 2], now: Duration) -> Self {
        let progress = match interaction.cancelled {
            true => Progress::Cancelled,
            false if now < interaction.ready => Progress::Running,
            false => Progress::Ended,
        };
        let StoredInteraction { answer, called, previous, .. } = interaction;
        let previous = previous.as_deref();
        Self { answer, called, previous, input: None, progress, created, updated, stored: true }
    }
}

fn name_of(id: &str) -> String {
    format!("interactions/{id}")
}
