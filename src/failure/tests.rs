//! Tests of the judgement of statuses, bodies and errors.

use std::{io, time::SystemTime};

use proptest::prelude::*;

use super::*;
use crate::quota::Dimension;

/// `{"error": {…}}` in Google's shape.
fn google(code: u16, message: &str, details: &str) -> String {
    let status = judge::name_of_code(code);
    let message = serde_json::to_string(message).unwrap();
    format!(r#"{{"error": {{"code": {code}, "message": {message}, "status": "{status}", "details": [{details}]}}}}"#)
}

/// An ErrorInfo.
fn info(reason: &str) -> String {
    format!(
        r#"{{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "{reason}", "domain": "googleapis.com"}}"#
    )
}

/// A QuotaFailure of violations `(quotaId, quotaValue)`.
fn quota(violations: &[(&str, &str)]) -> String {
    let one = |(id, value): &(&str, &str)| format!(r#"{{"quotaId": "{id}", "quotaValue": "{value}"}}"#);
    let all: Vec<_> = violations.iter().map(one).collect();
    format!(r#"{{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{}]}}"#, all.join(", "))
}

fn retry(delay: &str) -> String {
    format!(r#"{{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "{delay}"}}"#)
}

fn judged(status: u16, body: &str) -> Failure {
    Failure::from_response(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes())
}

/// `fault kind YnY hint scope breaker`, as one line.
fn verdict(failure: &Failure) -> String {
    let help = [failure.same_key_may_help(), failure.other_key_may_help(), failure.other_model_may_help()];
    let help: String = help.map(|may| if may { 'Y' } else { 'n' }).into_iter().collect();
    let hint = failure.hint().map_or("-".to_owned(), |hint| hint.delay().as_secs_f64().to_string());
    let scope = failure.quota().and_then(Quota::dimension).map_or("-", Dimension::label);
    let breaker = if failure.counts_against_upstream() { "breaker" } else { "-" };
    format!("{} {} {help} {hint} {scope} {breaker}", failure.fault(), failure.kind())
}

const YOU_EXCEEDED: &str = "You exceeded your current quota, please check your plan and billing details.";

#[test]
fn every_known_refusal_of_a_caller_is_judged() {
    let g = |message: &str| google(400, message, "");
    for (status, body, expected) in [
        (400, g("Request contains an invalid argument."), "invalid_request nnn"),
        (400, g("Invalid JSON payload received. Unknown name \"foo\" at 'contents[0]': Cannot find field."), "invalid_request nnn"),
        (400, g("Please use a valid role: user, model."), "invalid_request nnn"),
        (400, g("Unsupported MIME type: application/x-thing"), "invalid_request nnn"),
        (400, g("The File abc is not in an ACTIVE state and usage is not allowed."), "invalid_request nnn"),
        (400, g("* GenerateContentRequest.contents: contents is not specified\n"), "invalid_request nnn"),
        (400, g("Manually set deadline 3s is too short. Minimum allowed deadline is 10s."), "invalid_request nnn"),
        (400, g("Unable to submit request because it has a maxOutputTokens value of 99999 but the supported range is from 1 (inclusive) to 65537 (exclusive)."), "invalid_request nnn"),
        (400, g("Function call is missing a thought_signature in functionCall parts."), "invalid_request nnY"),
        (400, g("Developer instruction is not enabled for models/gemma-3-27b-it"), "invalid_request nnY"),
        (400, g("Image input modality is not enabled for models/gemma-3-1b-it"), "invalid_request nnY"),
        (400, g("Budget 0 is invalid. This model only works in thinking mode."), "invalid_request nnY"),
        (400, g("Thinking level is not supported for this model."), "invalid_request nnY"),
        (400, g("Search Grounding is not supported for gemini-2.0-flash-lite."), "invalid_request nnY"),
        (400, g("The input token count (200000) exceeds the maximum number of tokens allowed (65536)."), "context_too_long nnY"),
        (400, g("The input token count exceeds the maximum number of tokens allowed 1048576."), "context_too_long nnn"),
        (400, g("Unable to submit request because the input token count is 40000 but model only supports up to 32768."), "context_too_long nnY"),
        (400, g("Request payload size exceeds the limit: 20971520 bytes."), "payload_too_large nnn"),
        (413, "<html><head><title>413 Request Entity Too Large</title></head></html>".to_owned(), "payload_too_large nnn"),
        (413, String::new(), "payload_too_large nnn"),
        (400, g("Multiple authentication credentials received. Please pass only one."), "auth_conflict nnn"),
        (400, google(400, "User location is not supported for the API use.", ""), "location_unsupported nnn"),
        (400, g("The prompt could not be submitted. It contains sensitive words that violate Google's Responsible AI practices."), "content_blocked nnY"),
        (400, g("* GenerateContentRequest.model: unexpected model name format\n"), "model_not_found nnY"),
        (404, google(404, "models/gemini-2.5-flsh is not found for API version v1beta, or is not supported for generateContent.", ""), "model_not_found nnY"),
        (404, google(404, "Publisher Model `projects/p/locations/l/publishers/google/models/gemini-9` was not found or your project does not have access to it.", ""), "model_not_found nnY"),
        (404, google(404, "Requested entity was not found.", ""), "model_not_found nnY"),
        (404, r#"{"error": {"message": "no such model", "code": "model_not_found"}}"#.to_owned(), "model_not_found nnY"),
        (404, r#"{"error": {"message": "Result not found.", "code": "not_found"}}"#.to_owned(), "resource_not_accessible nYn"),
        (404, google(404, "Method not found.", ""), "path_not_found nnn"),
        (404, "<!DOCTYPE html><html><title>Error 404 (Not Found)!!1</title></html>".to_owned(), "path_not_found nnn"),
        (404, r#"{"detail": "Not Found"}"#.to_owned(), "path_not_found nnn"),
        (404, "404 page not found".to_owned(), "path_not_found nnn"),
        (405, String::new(), "path_not_found nnn"),
        (301, String::new(), "path_not_found nnn"),
        (403, google(403, "You do not have permission to access the File abc or it may not exist.", ""), "resource_not_accessible nYn"),
        (403, google(403, "CachedContent not found (or permission denied)", ""), "resource_not_accessible nYn"),
        (403, "<html><title>Error 403 (Forbidden)!!1</title>Your client does not have permission to get URL /v1beta from this server.</html>".to_owned(), "ip_blocked nnn"),
        (429, "<html><body>We're sorry... your computer or network may be sending automated queries.</body></html>".to_owned(), "ip_blocked nnn"),
        (409, google(409, "Requested entity already exists", "").replace("ABORTED", "ALREADY_EXISTS"), "conflict nnn"),
        (416, r#"{"error": {"code": "out_of_range", "message": "page"}}"#.to_owned(), "invalid_request nnn"),
        (409, r#"{"error": {"code": "conflict", "message": "exists"}}"#.to_owned(), "conflict nnn"),
        (400, r#"{"error": {"code": "invalid_request", "message": "no such tool"}}"#.to_owned(), "invalid_request nnn"),
        (400, r#"{"error": {"code": "prohibited_content", "message": "no"}}"#.to_owned(), "content_blocked nnY"),
        (400, r#"{"error": {"code": "not_found", "message": "no such interaction"}}"#.to_owned(), "resource_not_accessible nYn"),
        (404, "event: error\ndata: {\"error\":{\"code\":\"not_found\",\"message\":\"gone\"},\"event_type\":\"error\"}\n\n".to_owned(), "resource_not_accessible nYn"),
        (404, google(404, "This model models/gemini-1.0-pro is no longer available.", ""), "model_not_found nnY"),
        (501, google(501, "Operation is not implemented, or supported, or enabled.", ""), "unimplemented nnY"),
        (422, r#"{"detail": [{"msg": "field required"}]}"#.to_owned(), "invalid_request nnn"),
    ] {
        assert_eq!(verdict(&judged(status, &body)), format!("caller {expected} - - -"), "{status} {body}");
    }
}

#[test]
fn every_known_fault_of_a_key_is_judged() {
    for (status, body, expected) in [
        (
            400,
            google(400, "API key not valid. Please pass a valid API key.", &info("API_KEY_INVALID")),
            "auth_key_invalid",
        ),
        (400, google(400, "API key expired. Please renew the API key.", &info("API_KEY_INVALID")), "auth_key_invalid"),
        (400, google(400, "API Key not found. Please pass a valid API key.", ""), "auth_key_invalid"),
        (
            401,
            r#"{"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}"#.to_owned(),
            "auth_key_invalid",
        ),
        (
            401,
            google(401, "Request is missing required authentication credential.", &info("CREDENTIALS_MISSING")),
            "auth_unauthenticated",
        ),
        (401, r#"{"error": {"code": "authentication", "message": "no"}}"#.to_owned(), "auth_unauthenticated"),
        (401, String::new(), "auth_unauthenticated"),
        (
            403,
            google(403, "Method doesn't allow unregistered callers (callers without established identity).", ""),
            "auth_unauthenticated",
        ),
        (403, google(403, "The caller does not have permission", ""), "permission_denied"),
        (
            403,
            google(403, "Request had insufficient authentication scopes.", &info("ACCESS_TOKEN_SCOPE_INSUFFICIENT")),
            "permission_denied",
        ),
        (
            403,
            google(
                403,
                "Permission 'aiplatform.endpoints.predict' denied on resource '//aiplatform.googleapis.com/projects/p/locations/l/publishers/google/models/gemini-pro' (or it may not exist).",
                &info("IAM_PERMISSION_DENIED"),
            ),
            "permission_denied",
        ),
        (403, String::new(), "permission_denied"),
        (
            403,
            google(403, "Requests from referer <empty> are blocked.", &info("API_KEY_HTTP_REFERRER_BLOCKED")),
            "key_restricted",
        ),
        (403, google(403, "Requests from referer https://x.y are blocked.", ""), "key_restricted"),
        (
            403,
            google(403, "Requests to this API generativelanguage.googleapis.com method x are blocked.", ""),
            "key_restricted",
        ),
        (
            403,
            google(
                403,
                "The provided API key has an IP address restriction. The originating IP address of the call (1.2.3.4) violates this restriction.",
                &info("API_KEY_IP_ADDRESS_BLOCKED"),
            ),
            "key_restricted",
        ),
        (403, google(403, "Your API key was reported as leaked. Please use another API key.", ""), "key_leaked"),
        (
            403,
            google(403, "Permission denied: Consumer 'projects/1' has been suspended.", &info("CONSUMER_SUSPENDED")),
            "key_suspended",
        ),
        (403, google(403, "Your project has been denied access. Please contact support.", ""), "account_banned"),
        (403, google(403, "Verify your account to continue.", &info("VALIDATION_REQUIRED")), "account_banned"),
        (403, google(403, "Permission denied on resource project foo.", ""), "consumer_invalid"),
        (
            403,
            google(
                403,
                "Vertex AI API has not been used in project 1 before or it is disabled. Enable it by visiting x",
                "",
            ),
            "service_disabled",
        ),
        (
            403,
            google(
                403,
                "This API method requires billing to be enabled. Please enable billing on project #1",
                &info("BILLING_DISABLED"),
            ),
            "billing_required",
        ),
        (
            400,
            google(
                400,
                "Gemini API free tier is not available in your country. Please enable billing on your project.",
                "",
            ),
            "billing_required",
        ),
        (400, google(400, "Imagen API is only accessible to billed users at this time.", ""), "billing_required"),
        (402, r#"{"error": {"code": "payment_required", "message": "out of funds"}}"#.to_owned(), "billing_required"),
        (
            429,
            google(429, "Your prepayment credits are depleted. Please go to AI Studio to manage billing.", ""),
            "billing_required",
        ),
        (429, google(429, "Your project has exceeded its monthly spending cap.", ""), "billing_required"),
        (429, google(429, "Your project has exceeded its monthly spend limit.", ""), "billing_required"),
        (429, google(429, YOU_EXCEEDED, &quota(&[("SpendPerMonthPerProject", "250")])), "billing_required"),
        (400, r#"{"error": {"code": "payment_required", "message": "out of funds"}}"#.to_owned(), "billing_required"),
        (
            500,
            r#"{"error": {"message": "API key not valid. Please pass a valid API key."}}"#.to_owned(),
            "auth_key_invalid",
        ),
        (400, r#"{"error": {"code": "authentication", "message": "no"}}"#.to_owned(), "auth_unauthenticated"),
        (500, r#"{"error": {"code": "permission_denied", "message": "no"}}"#.to_owned(), "permission_denied"),
    ] {
        assert_eq!(verdict(&judged(status, &body)), format!("key {expected} nYn - - -"), "{status} {body}");
    }
}

#[test]
fn every_known_refusal_for_quota_is_judged() {
    const RPM: &str = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier";
    const RPD: &str = "GenerateRequestsPerDayPerProjectPerModel-FreeTier";
    const TPM: &str = "GenerateContentInputTokensPerModelPerMinute-FreeTier";
    const TPD: &str = "GenerateContentInputTokensPerModelPerDay-FreeTier";
    let g = |message: &str, details: String| google(429, message, &details);
    let both = |a: String, b: String| format!("{a}, {b}");
    let zero = format!(
        "{YOU_EXCEEDED}\n* Quota exceeded for metric: m/generate_content_free_tier_requests, limit: 0, model: x\nPlease retry in 9.5s."
    );
    let tokens = format!(
        "{YOU_EXCEEDED}\n* Quota exceeded for metric: m/generate_content_free_tier_input_token_count, limit: 250000, model: x\nPlease retry in 9.5s."
    );
    let requests = format!(
        "{YOU_EXCEEDED}\n* Quota exceeded for metric: m/generate_content_free_tier_requests, limit: 20, model: x\nPlease retry in 900.25ms."
    );
    let code_assist = |message: &str, reason: &str, delay: &str| {
        let details = format!(
            r#"{{"reason": "{reason}", "domain": "cloudcode-pa.googleapis.com", "metadata": {{"model": "gemini-3-pro"{delay}}}}}"#
        );
        google(429, message, &details)
    };
    for (body, expected) in [
        (g(YOU_EXCEEDED, both(quota(&[(RPM, "10")]), retry("26s"))), "quota_minute YYY 26 minute"),
        (g(YOU_EXCEEDED, both(retry("26s"), quota(&[(TPM, "250000")]))), "quota_tokens_minute YYY 26 tokens_minute"),
        (g(YOU_EXCEEDED, both(quota(&[(RPD, "250")]), retry("5s"))), "quota_day nYY - day"),
        (g(YOU_EXCEEDED, both(quota(&[(TPD, "6000000")]), retry("58s"))), "quota_day nYY - day"),
        (g(YOU_EXCEEDED, both(quota(&[(RPM, "10"), (RPD, "250")]), retry("0s"))), "quota_day nYY - day"),
        (g(YOU_EXCEEDED, both(quota(&[(RPM, "10"), (RPD, "0")]), retry("0s"))), "quota_zero nYY - -"),
        (g(YOU_EXCEEDED, format!(r#"{{"violations": [{{"quotaId": "{RPM}"}}]}}"#)), "quota_zero nYY - -"),
        (
            g("x, limit: 20, model: y", format!(r#"{{"violations": [{{"quotaId": "{RPM}"}}]}}"#)),
            "quota_minute YYY - minute",
        ),
        (g(&zero, String::new()), "quota_zero nYY - -"),
        (g(&tokens, String::new()), "quota_tokens_minute YYY 9.5 tokens_minute"),
        (g(&requests, String::new()), "quota_unknown YYY 0.90025 -"),
        (
            g(YOU_EXCEEDED, quota(&[("GenerateContentRequestsPerMinutePerProjectPerRegion", "60")])),
            "quota_minute YYn - minute",
        ),
        (
            g(
                "Quota exceeded for quota metric 'Generate requests' and limit 'Generate requests per minute' of service 's'.",
                String::new(),
            ),
            "quota_minute YYn - minute",
        ),
        (
            g(
                "Quota exceeded for quota metric 'Gemini 2.5 Pro Requests' and limit 'Gemini 2.5 Pro Requests per minute per user' of service 's'.",
                String::new(),
            ),
            "quota_minute YYY - minute",
        ),
        (
            g(
                "Quota exceeded for quota metric 'Requests' and limit 'Requests per day per user' of service 's'.",
                retry("3s"),
            ),
            "quota_day nYY - day",
        ),
        (
            g(
                "Quota exceeded for aiplatform.googleapis.com/generate_content_requests_per_minute_per_project_per_base_model with base model: gemini-1.5-pro.",
                String::new(),
            ),
            "quota_minute YYY - minute",
        ),
        (
            g(
                "Quota exceeded for aiplatform.googleapis.com/generate_content_input_tokens_per_minute_per_base_model with base model: gemini-1.5-pro.",
                String::new(),
            ),
            "quota_tokens_minute YYY - tokens_minute",
        ),
        (g("Resource has been exhausted (e.g. check quota).", String::new()), "quota_unknown YYY - -"),
        (g("Resource has been exhausted (e.g. check quota).", retry("17s")), "quota_unknown YYY 17 -"),
        (g("Gemini 2.5 Pro Preview doesn't have a free quota tier.", String::new()), "quota_zero nYY - -"),
        ("Too Many Requests".to_owned(), "quota_unknown YYY - -"),
        (String::new(), "quota_unknown YYY - -"),
        (
            r#"{"error": {"code": "rate_limit_exceeded", "message": "slow down"}}"#.to_owned(),
            "quota_minute YYY - minute",
        ),
        (r#"{"error": {"code": "quota_exceeded", "message": "come back tomorrow"}}"#.to_owned(), "quota_day nYY - day"),
        (
            code_assist(
                "You have exhausted your capacity on this model. Your quota will reset after 26s.",
                "RATE_LIMIT_EXCEEDED",
                "",
            ),
            "quota_minute YYY 26 minute",
        ),
        (
            code_assist(
                "You have exhausted your capacity on this model. Your quota will reset after 0s.",
                "RATE_LIMIT_EXCEEDED",
                r#", "quotaResetDelay": "373.8ms""#,
            ),
            "quota_minute YYY 0.3738 minute",
        ),
        (
            code_assist(
                "Your quota will reset after 161h39m41s.",
                "QUOTA_EXHAUSTED",
                r#", "quotaResetDelay": "161h39m41.3s""#,
            ),
            "quota_day nYY 581981.3 day",
        ),
        (code_assist("Individual quota reached.", "QUOTA_EXHAUSTED", ""), "quota_day nYY - day"),
        (code_assist("Your quota will reset after 58s.", "QUOTA_EXHAUSTED", ""), "quota_day YYY 58 day"),
        (code_assist("Your quota will reset after 5h1m.", "RATE_LIMIT_EXCEEDED", ""), "quota_day nYY 18060 day"),
        // A minute's quota is back in a minute, whatever it says.
        (g(YOU_EXCEEDED, both(quota(&[(RPM, "10")]), retry("1000000000s"))), "quota_minute YYY 120 minute"),
        (g(YOU_EXCEEDED, both(quota(&[(TPM, "10")]), retry("30m"))), "quota_tokens_minute YYY 120 tokens_minute"),
        (g("You exceeded the spend limit of your project: $10 in 10 minutes.", retry("95s")), "quota_spend YYn 95 -"),
        (g("Spend-based rate limit exceeded.", String::new()), "quota_spend YYn - -"),
        (g(YOU_EXCEEDED, quota(&[("SpendPer10MinutesPerProject", "10")])), "quota_spend YYn - -"),
        // The words of a page that it links to are not its own, and a named quota is what it says.
        (
            g(&format!("{YOU_EXCEEDED} See https://ai.studio/spend?over=limit-exceeded"), String::new()),
            "quota_unknown YYY - -",
        ),
        (g("The budget of requests was exceeded.", quota(&[(RPM, "10")])), "quota_minute YYY - minute"),
        (
            format!(
                "[GoogleGenerativeAI Error]: [429 Too Many Requests] {YOU_EXCEEDED} [{}]",
                both(quota(&[(RPM, "10")]), retry("26s"))
            ),
            "quota_minute YYY 26 minute",
        ),
        // An absurd wait is cut to a week.
        (code_assist("Resets in 999999999h.", "QUOTA_EXHAUSTED", ""), "quota_day nYY 604800 day"),
    ] {
        assert_eq!(verdict(&judged(429, &body)), format!("quota {expected} -"), "{body}");
    }
    for (status, body, expected) in [
        // Relays answer with a status of their own.
        (500, r#"{"error": {"code": "rate_limit_exceeded", "message": "slow down"}}"#.to_owned(), "quota_minute YYY - minute"),
        (400, r#"{"error": {"code": "quota_exceeded", "message": "come back tomorrow"}}"#.to_owned(), "quota_day nYY - day"),
        (500, format!("429 Too Many Requests: {YOU_EXCEEDED}"), "quota_unknown YYY - -"),
        (502, google(429, YOU_EXCEEDED, &quota(&[(RPD, "250")])), "quota_day nYY - day"),
        (500, serde_json::to_string(&google(429, YOU_EXCEEDED, &quota(&[(RPD, "250")]))).unwrap(), "quota_day nYY - day"),
        (
            500,
            format!("upstream said: {}", serde_json::to_string(&google(429, YOU_EXCEEDED, &quota(&[(RPD, "250")]))).unwrap()),
            "quota_day nYY - day",
        ),
        // The model is closed for this project only.
        (404, google(404, "This model models/gemini-2.5-flash is no longer available to new users. Please update your code.", ""), "model_closed nYY - -"),
        (404, google(404, "models/gemini-2.5-flash is not available to new customers.", ""), "model_closed nYY - -"),
        (404, r#"[{"error": {"code": "model_not_found", "message": "gemini-2.5-flash is deprecated for new projects."}}]"#.to_owned(), "model_closed nYY - -"),
    ] {
        assert_eq!(verdict(&judged(status, &body)), format!("quota {expected} -"), "{status} {body}");
    }
    // Google's older services refuse quota with a 403.
    let older =
        r#"{"error": {"code": 403, "message": "Daily Limit Exceeded", "errors": [{"reason": "dailyLimitExceeded"}]}}"#;
    assert_eq!(verdict(&judged(403, older)), "quota quota_day nYY - day -");
}

#[test]
fn every_known_sign_of_the_upstreams_health_is_judged() {
    let page = |title: &str| format!("<html><head><title>{title}</title></head></html>");
    let g = |code: u16, message: &str| google(code, message, "");
    for (status, body, expected) in [
        (503, g(503, "The model is overloaded. Please try again later."), "model overloaded"),
        (
            503,
            g(503, "This model is currently experiencing high demand. Spikes in demand are usually temporary."),
            "model overloaded",
        ),
        (500, g(500, "The model is overloaded."), "model overloaded"),
        (529, String::new(), "model overloaded"),
        (
            503,
            google(503, "No capacity available for model x on the server", &info("MODEL_CAPACITY_EXHAUSTED")),
            "model capacity",
        ),
        (429, google(429, "No capacity", &info("MODEL_CAPACITY_EXHAUSTED")), "model capacity"),
        (
            429,
            g(
                429,
                "Resource exhausted. Please try again later. Please refer to https://cloud.google.com/vertex-ai/generative-ai/docs/error-code-429",
            ),
            "model capacity",
        ),
        (429, g(429, "Unable to submit request because the service is temporarily out of capacity."), "model capacity"),
        (500, g(500, "An internal error has occurred. Please retry or report."), "service server_error"),
        (500, g(500, "Internal error encountered."), "service server_error"),
        (500, String::new(), "service server_error"),
        (500, r#"{"error": {"message": "boom", "code": "api_error"}}"#.to_owned(), "service server_error"),
        (503, g(503, "The service is currently unavailable."), "service unavailable"),
        (503, g(503, "Visibility check was unavailable. Please retry the request."), "service unavailable"),
        (503, page("503 Service Temporarily Unavailable"), "service unavailable"),
        (503, String::new(), "model overloaded"),
        (503, r#"{"error": {"code": 503, "stat"#.to_owned(), "model overloaded"),
        (503, g(503, "Deadline expired before operation could complete."), "service deadline_exceeded"),
        (504, g(504, "Deadline expired before operation could complete."), "service deadline_exceeded"),
        (504, page("504 Gateway Time-out"), "service deadline_exceeded"),
        (408, String::new(), "service deadline_exceeded"),
        (524, "error code: 524".to_owned(), "service deadline_exceeded"),
        (502, page("Error 502 (Server Error)!!1"), "service bad_gateway"),
        (502, String::new(), "service bad_gateway"),
        (520, page("520: Web server is returning an unknown error"), "service bad_gateway"),
        (499, g(499, "The operation was cancelled."), "service cancelled"),
        (500, r#"{"error": {"code": "overloaded", "message": "busy"}}"#.to_owned(), "model overloaded"),
        (503, r#"{"error": {"code": "service_unavailable", "message": "busy"}}"#.to_owned(), "service unavailable"),
        (400, r#"{"error": {"code": "deadline_exceeded", "message": "slow"}}"#.to_owned(), "service deadline_exceeded"),
        (409, g(409, "The operation was aborted."), "service server_error"),
        (409, r#"{"error": {"code": "conflict", "message": "Please try again."}}"#.to_owned(), "service server_error"),
    ] {
        assert_eq!(verdict(&judged(status, &body)), format!("{expected} YnY - - breaker"), "{status} {body}");
    }
    let hinted = google(503, "No capacity", &format!("{}, {}", info("MODEL_CAPACITY_EXHAUSTED"), retry("40s")));
    let hinted = judged(503, &hinted);
    assert_eq!(verdict(&hinted), "model capacity YnY 40 - breaker");
    assert!(!hinted.hint().unwrap().is_exact());
}

#[test]
fn the_code_inside_leads() {
    let inner = google(429, YOU_EXCEEDED, &quota(&[("GenerateRequestsPerMinutePerProjectPerModel", "5")]));
    let outer =
        serde_json::json!({"error": {"message": inner, "code": 500, "status": "Internal Server Error"}}).to_string();
    let failure = judged(500, &outer);
    assert_eq!(failure.kind(), Kind::QuotaMinute);
    // The status that came over the wire is kept.
    assert_eq!(failure.status(), Some(StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(failure.google_status(), "RESOURCE_EXHAUSTED");
    // A 500 that is about the input is the caller's.
    assert_eq!(judged(500, &google(500, "Your input context is too long.", "")).kind(), Kind::ContextTooLong);
}

#[test]
fn a_grounded_call_that_is_refused_without_a_word_about_quota_has_met_the_grounding_quota() {
    let help = r#"{"@type": "type.googleapis.com/google.rpc.Help", "links": [{"url": "https://ai.google.dev"}]}"#;
    let bare = judged(429, &google(429, YOU_EXCEEDED, help));
    assert_eq!(verdict(&bare), "quota quota_unknown YYY - - -");
    assert_eq!(verdict(&bare.of_grounded_call()), "quota quota_grounding nYY - - -");
    // Where the quota is named, it says so itself.
    let named = |id: &str| judged(429, &google(429, YOU_EXCEEDED, &quota(&[(id, "0")])));
    assert_eq!(verdict(&named("SearchGroundingRequestsPerDayPerProject-FreeTier")), "quota quota_grounding nYY - - -");
    let rpm = quota(&[("GenerateRequestsPerMinutePerProjectPerModel", "5")]);
    for body in [
        google(429, YOU_EXCEEDED, &format!("{help}, {rpm}")),
        google(429, YOU_EXCEEDED, &format!("{help}, {}", retry("26s"))),
        google(429, "Resource has been exhausted (e.g. check quota).", ""),
        google(503, "The model is overloaded.", help),
    ] {
        let failure = judged(429, &body);
        assert_eq!(failure.clone().of_grounded_call().kind(), failure.kind(), "{body}");
    }
}

#[test]
fn a_compressed_body_is_read_and_one_that_cannot_be_is_judged_by_its_status() {
    use std::io::Write;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(google(429, YOU_EXCEEDED, &quota(&[("XPerDay", "5")])).as_bytes()).unwrap();
    let body = gzip.finish().unwrap();
    let with = |encoding: &'static str| {
        let headers =
            [(http::header::CONTENT_ENCODING, http::HeaderValue::from_static(encoding))].into_iter().collect();
        Failure::from_response(StatusCode::TOO_MANY_REQUESTS, &headers, &body)
    };
    assert_eq!(verdict(&with("gzip")), "quota quota_day nYY - day -");
    assert!(with("gzip").has_error_body());
    let unread = with("compress");
    assert_eq!(verdict(&unread), "quota quota_unknown YYY - - -");
    assert!(!unread.has_error_body() && unread.message().starts_with("429"));
}

#[test]
fn a_wait_that_is_neither_seconds_nor_a_date_is_dropped() {
    for (value, stays) in [
        ("7", true),
        (" 7 ", true),
        ("Sun, 06 Nov 1994 08:49:37 GMT", true),
        ("soon", false),
        ("1.5", false),
        ("-1", false),
        ("30s", false),
        ("", false),
    ] {
        let mut headers: HeaderMap = [(http::header::RETRY_AFTER, value.parse().unwrap())].into_iter().collect();
        drop_bad_retry_after(&mut headers);
        assert_eq!(headers.len(), usize::from(stays), "{value}");
    }
}

#[test]
fn token_numbers_are_learned_from_the_refusal() {
    let body = google(400, "The input token count (314175) exceeds the maximum number of tokens allowed (131072).", "");
    let failure = judged(400, &body);
    assert_eq!((failure.token_count(), failure.token_limit()), (Some(314_175), Some(131_072)));
    assert_eq!(judged(400, &google(400, "Limit is 17 things.", "")).token_limit(), None);
}

#[test]
fn retry_after_is_honoured_in_both_forms() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    let with = |value: &str, body: &str| {
        let headers = [(http::header::RETRY_AFTER, value.parse().unwrap())].into_iter().collect();
        judge::response(Some(StatusCode::TOO_MANY_REQUESTS), &headers, body.as_bytes(), now).hint()
    };
    assert_eq!(with("7", ""), Some(Hint::exact(Duration::from_secs(7))));
    // Sun, 06 Nov 1994 08:49:37 GMT is `now`.
    let date = with("Sun, 06 Nov 1994 08:50:07 GMT", "").unwrap();
    assert_eq!(date, Hint::truncated(Duration::from_secs(30)));
    assert_eq!(with("Sun, 06 Nov 1994 08:00:00 GMT", "").unwrap().delay(), Duration::ZERO);
    assert_eq!(with("99999999999", "").unwrap().delay(), judge::LONGEST_HINT);
    for rubbish in ["", "soon", "-5", "1.5", "Sun, 99 Nov 1994 08:50:07 GMT"] {
        assert_eq!(with(rubbish, ""), None, "{rubbish}");
    }
    // The body goes before the header, and a day's quota before both.
    assert_eq!(with("7", &google(429, "Please retry in 2.5s.", "")), Some(Hint::exact(Duration::from_millis(2_500))));
    assert_eq!(with("7", &google(429, "", &quota(&[("XPerDay", "5")]))), None);
}

#[test]
fn a_status_alone_is_judged_by_what_it_most_often_means() {
    for (status, expected) in [
        (400, "caller invalid_request nnn - - -"),
        (401, "key auth_unauthenticated nYn - - -"),
        (403, "key permission_denied nYn - - -"),
        (404, "caller model_not_found nnY - - -"),
        (429, "quota quota_unknown YYY - - -"),
        (500, "service server_error YnY - - breaker"),
        (502, "service bad_gateway YnY - - breaker"),
        (503, "model overloaded YnY - - breaker"),
        (504, "service deadline_exceeded YnY - - breaker"),
    ] {
        let failure = Failure::from_status(StatusCode::from_u16(status).unwrap(), &HeaderMap::new());
        assert_eq!(verdict(&failure), expected);
        assert_eq!(failure.code().as_u16(), status);
        assert!(!failure.has_error_body());
    }
    let far: HeaderMap = [(http::header::RETRY_AFTER, "3600".parse().unwrap())].into_iter().collect();
    let failure = Failure::from_status(StatusCode::TOO_MANY_REQUESTS, &far);
    assert_eq!(verdict(&failure), "quota quota_unknown nYY 3600 - -");
}

#[test]
fn an_event_is_judged_by_its_own_code_and_late_it_helps_nobody() {
    let event = Failure::from_event(google(503, "The model is overloaded.", "").as_bytes());
    assert_eq!(verdict(&event), "model overloaded YnY - - breaker");
    assert_eq!(event.status(), Some(StatusCode::SERVICE_UNAVAILABLE));
    assert!(event.has_error_body());
    let late = event.into_after_commit();
    assert_eq!(verdict(&late), "model overloaded nnn - - breaker");
    assert!(late.is_after_commit());

    let interactions = br#"{"event_type": "error", "error": {"code": "quota_exceeded", "message": "daily"}}"#;
    assert_eq!(verdict(&Failure::from_event(interactions)), "quota quota_day nYY - day -");
    assert_eq!(Failure::from_event(br#"{"error": {"code": "permission_denied"}}"#).kind(), Kind::PermissionDenied);
    assert_eq!(Failure::from_event(b"").kind(), Kind::ServerError);
}

#[test]
fn a_200_without_content_is_a_failure() {
    let of = |finish, block, content| Failure::from_answer(finish, block, content).map(|failure| verdict(&failure));
    let is = |text: &str| Some(text.to_owned());
    assert_eq!(of(Some("STOP"), None, true), None);
    assert_eq!(of(Some("MAX_TOKENS"), None, true), None);
    assert_eq!(of(None, None, true), None);
    assert_eq!(of(Some("STOP"), None, false), is("service empty_response YnY - - -"));
    assert_eq!(of(None, None, false), is("service empty_response YnY - - -"));
    assert_eq!(of(Some("OTHER"), None, false), is("service empty_response YnY - - -"));
    assert_eq!(of(Some("MALFORMED_FUNCTION_CALL"), None, false), is("service empty_malformed_function_call YnY - - -"));
    assert_eq!(of(Some("MAX_TOKENS"), None, false), is("caller output_limit nnY - - -"));
    for verdict in ["SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "content_filter"]
    {
        assert_eq!(of(Some(verdict), None, false), is("caller content_blocked nnY - - -"));
    }
    assert_eq!(of(None, Some("PROHIBITED_CONTENT"), false), is("caller content_blocked nnY - - -"));

    let empty = Failure::from_answer(Some("STOP"), None, false).unwrap();
    assert_eq!((empty.status(), empty.code()), (Some(StatusCode::OK), StatusCode::BAD_GATEWAY));
}

#[test]
fn local_refusals_blame_nobody() {
    for kind in [
        Kind::Timeout(TimeoutKind::Total),
        Kind::CircuitOpen,
        Kind::RateLimited,
        Kind::KeysExhausted,
        Kind::KeysDisabled,
        Kind::BodyTooLarge,
        Kind::BadRequest,
    ] {
        let failure = Failure::local(kind, "no").with_hint(Duration::from_secs(3));
        assert_eq!(failure.fault(), Fault::Local);
        assert!(!failure.counts_against_upstream() && !failure.never_sent() && !failure.has_error_body());
        assert_eq!(failure.hint(), Some(Hint::exact(Duration::from_secs(3))));
        assert_eq!(failure.status(), Some(failure.code()));
    }
    assert_eq!(Failure::local(Kind::CircuitOpen, "").google_status(), "UNAVAILABLE");
    assert_eq!(Failure::local(Kind::BodyTooLarge, "").code(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(Failure::local(Kind::RateLimited, "").google_status(), "RESOURCE_EXHAUSTED");
    let key = "AIzaSyA-0123456789_abcdefghijklmnopqrst";
    assert_eq!(Failure::local(Kind::BadRequest, format!("bad ?key={key}")).message(), "bad ?key=[redacted]");
}

#[test]
fn a_time_out_names_its_clock_and_how_long() {
    for (clock, fault, name) in [
        (TimeoutKind::Total, Fault::Local, "total_deadline"),
        (TimeoutKind::Attempt, Fault::Transport, "attempt_timeout"),
        (TimeoutKind::FirstContent, Fault::Transport, "first_content_timeout"),
        (TimeoutKind::Idle, Fault::Transport, "idle_timeout"),
    ] {
        let failure = Failure::timeout(clock, Duration::from_secs(180));
        assert_eq!((failure.fault(), failure.kind().as_str()), (fault, name));
        assert!(failure.message().contains(clock.as_str()) && failure.message().contains("180s"), "{failure}");
        assert_eq!((failure.code(), failure.google_status()), (StatusCode::GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED"));
        assert_eq!(failure.counts_against_upstream(), fault == Fault::Transport);
    }
}

#[test]
fn a_transport_error_tells_the_whole_chain() {
    let error = io::Error::other(io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused"));
    let failure = Failure::from_error(&error);
    assert_eq!(verdict(&failure), "transport connect Ynn - - breaker");
    assert!(failure.never_sent());
    assert_eq!(failure.status(), None);
    assert_eq!(failure.code(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(failure.message().contains("connection refused"));
    assert!(!Failure::from_error(&io::Error::from(io::ErrorKind::ConnectionReset)).never_sent());
}

#[test]
fn the_same_500_is_recognised() {
    let one = judged(500, &google(500, "An internal error has occurred.", ""));
    let mut two = judged(500, &google(500, "An internal error has occurred.", ""));
    assert!(one.same_as(&two) && !one.same_as(&judged(500, &google(500, "Something else.", ""))));
    assert!(!two.is_content_suspected());
    two.mark_content_suspected();
    assert!(two.is_content_suspected());
}

#[test]
fn a_failure_is_one_sentence() {
    let failure = judged(429, &google(429, "You exceeded\nyour quota.", &quota(&[("XPerMinutePerModel", "5")])));
    assert_eq!(failure.to_string(), "quota_minute (429, fault: quota): You exceeded your quota.");
    assert_eq!(
        judged(502, "").to_string(),
        "bad_gateway (502, fault: service): 502 Bad Gateway, without an explanation"
    );
}

#[test]
fn what_a_page_asks_of_people_is_no_hint() {
    let page = "<html><title>Error 502 (Server Error)!!1</title><p>Please try again in 30 seconds.</html>";
    assert_eq!(judged(502, page).hint(), None);
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", "7".parse().unwrap());
    let failure = Failure::from_response(StatusCode::BAD_GATEWAY, &headers, page.as_bytes());
    assert_eq!(failure.hint().map(|hint| hint.delay()), Some(Duration::from_secs(7)));
    assert_eq!(
        judged(404, "<html>The requested URL /v1beta/models/gemini-pro was not found</html>").kind(),
        Kind::PathNotFound
    );
}

#[test]
fn a_failure_is_small_and_can_cross_threads() {
    fn check<T: Clone + Send + Sync + 'static>() {}
    check::<Failure>();
    assert!(size_of::<Failure>() <= 88, "{}", size_of::<Failure>());
}

proptest! {
    #[test]
    fn any_response_is_judged(status in 100u16..1000, body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let failure = Failure::from_response(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), &body);
        // No local kind can come from a response.
        prop_assert!(!matches!(failure.fault(), Fault::Local | Fault::Transport));
        prop_assert!(failure.code().as_u16() >= 400);
        let _ = Failure::from_event(&body);
    }

    #[test]
    fn any_words_are_judged(status in 400u16..600, words in proptest::collection::vec(prop_oneof![
        Just("quota"), Just("per day"), Just("perminute"), Just("limit: 0"), Just("retry in 9h"), Just("gemini-2"), Just("model"),
        Just("not supported"), Just("api key not valid"), Just("overloaded"), Just("token count"), Just("exceeds"), Just("1048577"),
    ], 0..8)) {
        let failure = judged(status, &google(status, &words.join(" "), ""));
        prop_assert!(failure.hint().is_none_or(|hint| hint.delay() <= judge::LONGEST_HINT));
        // A caller's mistake has no wait.
        prop_assert!(failure.fault() != Fault::Caller || !failure.same_key_may_help());
    }
}
