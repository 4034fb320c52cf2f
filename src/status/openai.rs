//! The members of an error that OpenAI's clients read. Pure.

use http::StatusCode;
use serde_json::{Map, Value};

/// Adds the members that OpenAI's clients read besides `message`: `code`, `type` and `param`. Returns whether one was
/// missing.
pub(crate) fn add_openai(error: &mut Map<String, Value>, code: StatusCode) -> bool {
    let before = error.len();
    error.entry("code").or_insert_with(|| code.as_u16().into());
    error.entry("type").or_insert_with(|| openai_type(code).into());
    error.entry("param").or_insert(Value::Null);
    error.len() > before
}

/// Returns the type that OpenAI gives to errors of a status.
pub(crate) fn openai_type(code: StatusCode) -> &'static str {
    match code.as_u16() {
        401 => "authentication_error",
        402 => "insufficient_quota",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        408 | 504 => "timeout_error",
        429 => "rate_limit_error",
        499..=599 => "server_error",
        _ => "invalid_request_error",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_gets_the_members_that_it_lacks() {
        for (code, name) in [
            (400, "invalid_request_error"),
            (401, "authentication_error"),
            (404, "not_found_error"),
            (413, "invalid_request_error"),
            (429, "rate_limit_error"),
            (499, "server_error"),
            (502, "server_error"),
            (503, "server_error"),
            (504, "timeout_error"),
        ] {
            let mut error = Map::from_iter([("message".to_owned(), json!("no"))]);
            assert!(add_openai(&mut error, StatusCode::from_u16(code).unwrap()));
            assert_eq!(json!(error), json!({"message": "no", "code": code, "type": name, "param": null}));
            assert!(!add_openai(&mut error, StatusCode::OK), "nothing is missing");
        }
    }

    #[test]
    fn an_errors_own_members_stay() {
        let own = json!({"code": "model_not_found", "type": "own", "message": "no"});
        let mut error = own.as_object().unwrap().clone();
        assert!(add_openai(&mut error, StatusCode::NOT_FOUND));
        assert_eq!(error.remove("param"), Some(Value::Null));
        assert_eq!(json!(error), own);
    }
}
