//! Law 7: one deadline goes inward.

use tower::ServiceExt;
use tower_gemini::{CallContext, context::Deadline};

use crate::{
    contract::room::{Inward, Room},
    support::{GENERATE, Upstream, hello, post, secs},
};

pub(crate) async fn law_7_an_earlier_deadline_stays<B: Inward>(room: impl Room<B>) {
    let upstream = Upstream::at_once(|_| Ok(hello()));
    let deadline = Deadline::after(secs(20));
    let mut request = post(GENERATE);
    CallContext::update(request.extensions_mut(), |context| context.tighten_deadline(deadline));
    room.wrap(upstream.clone()).oneshot(request).await.unwrap();
    let context = upstream.asked()[0].context.clone().unwrap();
    assert_eq!(context.deadline(), Some(deadline));
}
