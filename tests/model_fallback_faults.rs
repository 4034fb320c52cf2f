//! Any faults, attempt by attempt: the rules that hold for every call, whatever happens to it.

mod support;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use parking_lot::Mutex;
use proptest::prelude::ProptestConfig;
use proptest::prelude::{
    Just, Strategy, TestCaseError, any as whatever, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use support::*;
use tokio::time::{advance, sleep};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_gemini::{
    BoxError, CallContext, Error, ModelFallbackLayer, Outcome, RetryLayer, RetryPolicy,
    context::{Deadline, RetryAdvice},
    failure::{Failure, Kind, TimeoutKind},
    model_fallback::FallbackChains,
};

const PRO: &str = "gemini-2.5-pro";
const FLASH: &str = "gemini-2.5-flash";
const LITE: &str = "gemini-2.5-flash-lite";

/// An upstream whose models fail as they are told, attempt by attempt, and that notes which model was asked.
#[derive(Clone)]
struct Faults {
    script: Arc<Mutex<Vec<Fate>>>,
    asked: Arc<Mutex<Vec<(String, CallContext)>>>,
    fates: Arc<Mutex<Vec<Fate>>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Answers,
    Blocked,
    Fails(Kind),
    FailsLate,
    Refuses(Kind),
}

impl Service<Request<Full<Bytes>>> for Faults {
    type Response = Response<AnyBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let model = request.uri().path().rsplit('/').next().unwrap().split(':').next().unwrap().to_owned();
        let context = CallContext::of(&request).cloned().unwrap();
        let fate = self.script.lock().pop().unwrap_or(Fate::Answers);
        self.asked.lock().push((model.clone(), context));
        self.fates.lock().push(fate);
        Box::pin(async move {
            sleep(millis(1)).await;
            let answer = |status: u16, failure| {
                let mut answer = judged(json(status, BUSY), failure);
                answer.headers_mut().insert("x-of", model.parse().unwrap());
                Ok(answer)
            };
            match fate {
                Fate::Answers => {
                    let mut answer = hello();
                    answer.headers_mut().insert("x-of", model.parse().unwrap());
                    Ok(answer)
                }
                Fate::Blocked => answer(200, Failure::local(Kind::ContentBlocked, "SAFETY")),
                Fate::Fails(kind) => answer(kind.status_code().as_u16(), Failure::local(kind, "no")),
                Fate::FailsLate => answer(503, Failure::local(Kind::Overloaded, "late").into_after_commit()),
                Fate::Refuses(kind) => Err(Error::refusal("tests", Failure::local(kind, "no"))
                    .map_outcome(|outcome| outcome.with_sent(false).with_retry(RetryAdvice::Never))
                    .into()),
            }
        })
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    let failing = prop::sample::select(vec![
        Kind::Overloaded,
        Kind::Overloaded,
        Kind::ServerError,
        Kind::BadGateway,
        Kind::EmptyResponse,
        Kind::Timeout(TimeoutKind::Attempt),
        Kind::QuotaDay,
        Kind::QuotaMinute,
        Kind::InvalidRequest,
        Kind::ContextTooLong,
        Kind::PermissionDenied,
        Kind::Connect,
        Kind::ModelNotFound,
    ]);
    let refusing =
        prop::sample::select(vec![Kind::CircuitOpen, Kind::KeysExhausted, Kind::ContextTooLong, Kind::RateLimited]);
    prop_oneof![
        1 => Just(Fate::Answers),
        1 => Just(Fate::Blocked),
        1 => Just(Fate::FailsLate),
        8 => failing.prop_map(Fate::Fails),
        3 => refusing.prop_map(Fate::Refuses),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens_a_call_ends_with_an_answer_or_the_first_failure(
        calls in prop::collection::vec((prop::collection::vec(fate(), 0..14), 0u64..40), 1..4),
        models in 1usize..4,
        seed in whatever::<u64>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        fastrand::seed(seed);
        runtime.block_on(any_faults(calls, models))?;
    }
}

async fn any_faults(calls: Vec<(Vec<Fate>, u64)>, models: usize) -> Result<(), TestCaseError> {
    let names = [PRO, FLASH, LITE, "gemini-flash-latest"];
    let chain = FallbackChains::builder().chain(PRO, names[1..=models].iter().copied()).build().unwrap();
    let faults = Faults { script: Arc::default(), asked: Arc::default(), fates: Arc::default() };
    let service = ServiceBuilder::new()
        .layer(ModelFallbackLayer::new(chain.clone()))
        .layer(RetryLayer::default())
        .service(faults.clone());
    for (fates, pause) in calls {
        faults.asked.lock().clear();
        faults.fates.lock().clear();
        *faults.script.lock() = fates;
        let begins_at = names.iter().position(|name| *name == chain.snapshot()[0].current()).unwrap();
        let mut request = post(GENERATE);
        let deadline = Deadline::after(secs(120));
        CallContext::update(request.extensions_mut(), |context| context.tighten_deadline(deadline));
        let result = service.clone().oneshot(request).await;
        let (asked, fates) = (faults.asked.lock().clone(), faults.fates.lock().clone());

        // One model after another, each once, in the order of the chain from where it stays.
        let mut visited: Vec<usize> = asked.iter().map(|(m, _)| names.iter().position(|n| n == m).unwrap()).collect();
        visited.dedup();
        let first = visited[0];
        prop_assert!(first == begins_at || first == 0, "{visited:?} from {begins_at}");
        let order: Vec<usize> = (first..=models).chain(0..first).collect();
        let mut places = visited.iter().map(|at| order.iter().position(|place| place == at).unwrap());
        let mut last = places.next().unwrap();
        for place in places {
            prop_assert!(place > last, "{visited:?} in {order:?}");
            last = place;
        }

        // No more attempts than one call may have, and all of them are counted.
        let sent = fates.iter().filter(|fate| !matches!(fate, Fate::Refuses(_) | Fate::Fails(Kind::Connect))).count();
        prop_assert!(sent <= RetryPolicy::MAX_ATTEMPTS as usize, "{fates:?}");
        let outcome = Outcome::of(&result);
        if visited.len() > 1 {
            prop_assert!(outcome.attempts() as usize >= sent && outcome.attempts() <= RetryPolicy::MAX_ATTEMPTS);
        }
        for (model, context) in &asked {
            prop_assert_eq!(context.deadline(), Some(deadline));
            let place = order.iter().position(|at| names[*at] == model).unwrap();
            prop_assert!(context.models_left() as usize <= order.len() - 1 - place);
        }

        // Never another model after a commit or an answer: they come last.
        let ends = |fate: &Fate| matches!(fate, Fate::Answers | Fate::Blocked | Fate::FailsLate);
        prop_assert!(fates[..fates.len() - 1].iter().all(|fate| !ends(fate)), "{fates:?}");

        // An answer, or the failure of the model that was asked for if it was asked, or else of the first.
        let last_fate = fates[fates.len() - 1];
        let answered = matches!(last_fate, Fate::Answers | Fate::Blocked);
        let failure = outcome.failure().map(|failure| failure.kind());
        let of = match answered {
            true => visited[visited.len() - 1],
            false if visited.contains(&0) => 0,
            false => first,
        };
        if answered {
            prop_assert_eq!(failure, (last_fate == Fate::Blocked).then_some(Kind::ContentBlocked));
        } else {
            let last_there = asked.iter().rposition(|(model, _)| model == names[of]).unwrap();
            let expected = match fates[last_there] {
                Fate::Fails(kind) | Fate::Refuses(kind) => kind,
                _ => Kind::Overloaded,
            };
            // Of the models that the caller did not ask for, one that has failed tells more than one that does not take the
            // request.
            prop_assert!(failure == Some(expected) || of != 0, "{failure:?} of {fates:?} at {visited:?}");
        }
        if let (Ok(response), true) = (&result, answered || of == 0) {
            prop_assert_eq!(&response.headers()["x-of"], names[of]);
            prop_assert_eq!(&response.headers()["x-gemini-model"], names[of]);
        }
        advance(secs(pause)).await;
    }
    Ok(())
}
