//! The operators' listener: the pages, and what operators tell the relay to do.
//!
//! | request | answer |
//! |---|---|
//! | `POST /lift` | 200, `lifted`: what was parked, a line each; a body `{"project": "p1", "model": "…"}` lifts only that |
//! | `POST /reload` | 200, `reloaded` and `remarks`; or 422 with the `mistakes`, and the old settings stay |
//! | `POST /keys/{name}/disable`, `…/enable` | 200 with the key's new `state`; or 404. A name, or a fingerprint |
//!
//! # Pages of other origins
//!
//! A browser sends a page's request anywhere, and whoever asked for it. So a wish wants what no page of another origin can
//! send without a preflight, which is not answered: the header `x-relay-operator: 1`, or JSON as the content type; and an
//! `Origin`, if there is one, that is the listener's own. A listener on loopback is reached by names of loopback only: a
//! name of a stranger's that resolves to 127.0.0.1 makes its page a page of this origin. One that others can reach has a
//! token.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::to_bytes,
    extract::{Path, Request},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN, WWW_AUTHENTICATE},
    uri::Authority,
};
use serde_json::{Value, json};
use tokio::time::timeout;
use tower_gemini::key_pool::{KeyPool, KeyReport, KeyState};

use crate::{
    config::Token,
    serve::{admission::is_of, current::Current, lift::Lift},
};

/// The header that a page of another origin cannot send unasked.
const OPERATOR: HeaderName = HeaderName::from_static("x-relay-operator");

/// Health tells nothing, and is asked for by machines at any address.
const HEALTH: [&str; 2] = ["/healthz", "/readyz"];

/// The most bytes of a wish, and the time in which they have to come.
const MOST: usize = 4_096;
const SOON: Duration = Duration::from_secs(5);

/// Routes what operators wish beside the `pages`, and guards all of it. `address` is the listener's own.
pub(crate) fn router(current: &Arc<Current>, address: IpAddr, pages: Router) -> Router {
    let (lifting, reloading, switching, guarding) =
        (current.clone(), current.clone(), current.clone(), current.clone());
    let wishes = Router::new()
        .route("/lift", post(async move |request| lift(&lifting, request).await))
        .route("/reload", post(async move || reload(&reloading)))
        .route(
            "/keys/{name}/{wish}",
            post(async move |Path(path): Path<(String, String)>| switch(&switching, &path.0, &path.1)),
        )
        .layer(from_fn(wish));
    pages.merge(wishes).layer(from_fn(move |request, next| {
        let token = guarding.stack().settings.operators.token;
        guard(address, token, request, next)
    }))
}

// === the guard ===

/// Lets a request through that is from here, or from somebody with the token.
async fn guard(address: IpAddr, token: Option<Token>, request: Request, next: Next) -> Response {
    if HEALTH.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    if address.to_canonical().is_loopback() && !host(&request).is_some_and(|host| is_loopback(&host, address)) {
        let message =
            "the operators' listener is on loopback and is asked for by another name; use 127.0.0.1 or localhost";
        return refusal(StatusCode::FORBIDDEN, "PERMISSION_DENIED", message);
    }
    let is_of_page = request.headers().contains_key(OPERATOR);
    if token.is_some_and(|token| !credentials(request.headers()).any(|brought| Token::of(brought) == token)) {
        let message =
            "operators bring the relay's operator_token: Authorization: Bearer TOKEN, or as the password of any name";
        let mut response = refusal(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", message);
        // Browsers ask people for it then. The page asks for it itself: its request would wait for their dialog.
        let scheme = if is_of_page { "Bearer" } else { "Basic realm=\"relay\"" };
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
        return response;
    }
    next.run(request).await
}

/// Lets a wish through that no page of another origin has made.
async fn wish(request: Request, next: Next) -> Response {
    // Every other method is answered without doing anything.
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let headers = request.headers();
    let strange = "the wish is of a page of another origin, and is not done";
    let message = match () {
        () if headers.get_all(ORIGIN).iter().any(|origin| !is_of(origin, &request)) => strange,
        () if headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none") => strange,
        () if headers.get(OPERATOR).is_none_or(|value| value != "1") && !is_json(headers) => {
            "a wish has the header x-relay-operator: 1, or the content type application/json"
        }
        () => return next.run(request).await,
    };
    refusal(StatusCode::FORBIDDEN, "PERMISSION_DENIED", message)
}

fn host(request: &Request) -> Option<Authority> {
    let host = || request.headers().get(HOST)?.to_str().ok()?.parse().ok();
    request.uri().authority().cloned().or_else(host)
}

/// Returns whether a host is this machine by a name that no stranger can give it.
fn is_loopback(host: &Authority, address: IpAddr) -> bool {
    let name = host.host();
    let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    ip.map_or(name.eq_ignore_ascii_case("localhost"), |ip| ip.to_canonical().is_loopback() || ip == address)
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// Returns what a request brings as the token. Two are more than anybody needs.
fn credentials(headers: &HeaderMap) -> impl Iterator<Item = Vec<u8>> {
    headers.get_all(AUTHORIZATION).iter().take(2).filter_map(|value| {
        let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(rest.as_bytes().to_vec());
        }
        let pair =
            Some(rest).filter(|_| scheme.eq_ignore_ascii_case("basic")).and_then(|pair| STANDARD.decode(pair).ok())?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        Some(pair[colon + 1..].to_vec())
    })
}

// === the wishes ===

async fn lift(current: &Current, request: Request) -> Response {
    let invalid = |message: &str| refusal(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message);
    let Ok(Ok(body)) = timeout(SOON, to_bytes(request.into_body(), MOST)).await else {
        return invalid("the body did not come in time, or is too long");
    };
    let which = match body.trim_ascii() {
        b"" => Ok(Lift::default()),
        body => serde_json::from_slice::<Lift>(body),
    };
    // serde's message may repeat a value.
    let Ok(which) = which else {
        return invalid("the body is not {\"project\": \"p1\", \"model\": \"gemini-2.5-pro\"}, one of them, or empty");
    };
    let stack = current.stack();
    let keys = stack.gemini.keys().map(KeyPool::snapshot).unwrap_or_default();
    if let Some(project) = which.project.as_deref().filter(|project| keys.iter().all(|key| *key.project != **project)) {
        let message = stack.clean(&format!("no key belongs to the project {project:?}"));
        return refusal(StatusCode::NOT_FOUND, "NOT_FOUND", &message);
    }
    answer(StatusCode::OK, &json!({ "lifted": current.lift(&which) }))
}

fn reload(current: &Current) -> Response {
    match current.reload() {
        Ok(remarks) => answer(StatusCode::OK, &json!({ "reloaded": true, "remarks": remarks })),
        Err(mistakes) => {
            let mut body = error(StatusCode::UNPROCESSABLE_ENTITY, "INVALID_ARGUMENT", &mistakes.join("\n"));
            body["reloaded"] = false.into();
            body["mistakes"] = mistakes.into();
            answer(StatusCode::UNPROCESSABLE_ENTITY, &body)
        }
    }
}

/// Disables a key by hand, or enables it.
fn switch(current: &Current, name: &str, wish: &str) -> Response {
    let stack = current.stack();
    let change = match wish {
        "disable" => KeyPool::disable,
        "enable" => KeyPool::enable,
        _ => return refusal(StatusCode::NOT_FOUND, "NOT_FOUND", "a key is told to disable or to enable"),
    };
    let find = |pool: &KeyPool| {
        let keys = pool.snapshot();
        let named = |key: &&KeyReport| key.name.as_deref() == Some(name);
        let printed = |key: &&KeyReport| key.fingerprint.to_string() == name;
        keys.iter().find(named).or_else(|| keys.iter().find(printed)).cloned()
    };
    let changed = stack.gemini.keys().and_then(|pool| {
        let key = find(pool)?;
        change(pool, &key.fingerprint)
            .then(|| pool.snapshot())
            .and_then(|keys| keys.into_iter().find(|now| now.fingerprint == key.fingerprint))
    });
    let Some(key) = changed else {
        let message = stack.clean(&format!("no key has the name or the fingerprint {name:?}"));
        return refusal(StatusCode::NOT_FOUND, "NOT_FOUND", &message);
    };
    let reason = match key.state {
        KeyState::Disabled { reason, .. } => Some(reason.to_string()),
        _ => None,
    };
    answer(
        StatusCode::OK,
        &json!({
            "key": key.name.as_deref(),
            "fingerprint": key.fingerprint.to_string(),
            "project": &*key.project,
            "state": key.state.as_str(),
            "reason": reason,
        }),
    )
}

fn error(code: StatusCode, status: &str, message: &str) -> Value {
    json!({ "error": { "code": code.as_u16(), "status": status, "message": message } })
}

fn refusal(code: StatusCode, status: &str, message: &str) -> Response {
    answer(code, &error(code, status, message))
}

fn answer(code: StatusCode, body: &Value) -> Response {
    (code, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn post(headers: &[(&str, &str)]) -> Request {
        let request =
            headers.iter().fold(Request::post("/lift"), |request, (name, value)| request.header(*name, *value));
        request.body(Body::empty()).unwrap()
    }

    #[test]
    fn loopback_is_reached_by_its_own_names_alone() {
        let here: IpAddr = "127.0.0.1".parse().unwrap();
        for (name, right) in [
            ("127.0.0.1:8788", true),
            ("localhost", true),
            ("LOCALHOST:1", true),
            ("[::1]:8788", true),
            ("127.9.9.9", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example:8788", false),
            ("evil.example", false),
            ("10.0.0.1", false),
            ("0.0.0.0:8788", false),
        ] {
            assert_eq!(is_loopback(&name.parse().unwrap(), here), right, "{name}");
        }
    }

    #[test]
    fn an_origin_is_own_only_as_the_whole_host() {
        for (origin, right) in [
            ("http://127.0.0.1:8788", true),
            ("http://127.0.0.1:5173", false),
            ("http://127.0.0.1", false),
            ("http://127.0.0.1:8788.evil.example", false),
            ("null", false),
        ] {
            let request = post(&[("host", "127.0.0.1:8788"), ("origin", origin)]);
            assert_eq!(is_of(&request.headers()["origin"], &request), right, "{origin}");
        }
    }

    #[test]
    fn json_is_the_whole_content_type() {
        for (kind, right) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain; application/json", false),
            ("application/json-not", false),
            ("", false),
        ] {
            assert_eq!(is_json(post(&[("content-type", kind)]).headers()), right, "{kind}");
        }
    }

    #[test]
    fn a_token_is_brought_as_a_bearer_or_as_a_password() {
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic bWU6YWJj", Some("abc")),
            ("Basic OmE6Yg==", Some("a:b")),
            ("Basic bWU=", None),
            ("Basic !", None),
            ("abc", None),
            ("Digest abc", None),
        ] {
            let brought = credentials(post(&[("authorization", value)]).headers()).next();
            assert_eq!(brought.as_deref(), token.map(str::as_bytes), "{value}");
        }
    }
}
