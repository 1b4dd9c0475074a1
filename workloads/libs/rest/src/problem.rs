//! Problem details (RFC 9457): the one shape of an error answer. Knows statuses and words, not who asks.

use std::borrow::Cow;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

/// An error answer: `application/problem+json`. Return it from a handler as the error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// Names the kind of problem; `about:blank` says no more than the status.
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// The kind in words; the same for every occurrence.
    pub title: Cow<'static, str>,
    /// HTTP status.
    pub status: u16,
    /// What is wrong this time, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Id of the request; find it in the logs as `request_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    #[serde(skip)]
    retry_after: Option<Duration>,
}

impl Problem {
    /// A problem that says no more than its status.
    pub fn new(status: StatusCode) -> Problem {
        Problem {
            kind: "about:blank".into(),
            title: status.canonical_reason().unwrap_or("Error").into(),
            status: status.as_u16(),
            detail: None,
            instance: None,
            retry_after: None,
        }
    }

    /// A problem of this status, with a detail for whoever asked.
    pub fn with(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem { detail: Some(detail.into()), ..Problem::new(status) }
    }

    /// Gives it a kind of its own (a URI reference) and that kind's title.
    pub fn of_kind(self, kind: impl Into<Cow<'static, str>>, title: impl Into<Cow<'static, str>>) -> Problem {
        Problem { kind: kind.into(), title: title.into(), ..self }
    }

    /// 400: the request is malformed.
    pub fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::with(StatusCode::BAD_REQUEST, detail)
    }

    /// 401: log in first.
    pub fn unauthorized(detail: impl Into<String>) -> Problem {
        Problem::with(StatusCode::UNAUTHORIZED, detail)
    }

    /// 403: not allowed.
    pub fn forbidden(detail: impl Into<String>) -> Problem {
        Problem::with(StatusCode::FORBIDDEN, detail)
    }

    /// 404: there is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Problem {
        Problem::with(StatusCode::NOT_FOUND, detail)
    }

    /// 409: it contradicts what is already there.
    pub fn conflict(detail: impl Into<String>) -> Problem {
        Problem::with(StatusCode::CONFLICT, detail)
    }

    /// 422: well-formed, but makes no sense.
    pub fn unprocessable(detail: impl Into<String>) -> Problem {
        Problem::with(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// 429: slow down; try again after `retry_after` (rounded up to seconds).
    pub fn too_many(detail: impl Into<String>, retry_after: Duration) -> Problem {
        Problem { retry_after: Some(retry_after), ..Problem::with(StatusCode::TOO_MANY_REQUESTS, detail) }
    }

    /// 503: cannot be done now; try again after `retry_after` (rounded up to seconds).
    pub fn unavailable(detail: impl Into<String>, retry_after: Duration) -> Problem {
        Problem { retry_after: Some(retry_after), ..Problem::with(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    /// 500: our fault. Says nothing of the cause: log it where it is known.
    pub fn internal() -> Problem {
        Problem::with(
            StatusCode::INTERNAL_SERVER_ERROR,
            "this is our fault; the request's id finds it in the logs",
        )
    }

    /// Names the request it happened in.
    pub fn of_request(self, id: &str) -> Problem {
        Problem { instance: Some(id.to_owned()), ..self }
    }

    /// The status as a type.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // A struct of strings and a number always serialises.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (self.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // `api` finds it here and writes it again with the request's id.
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_the_json_that_rfc_9457_asks_for() {
        let problem = Problem::not_found("no player named odin");
        assert_eq!(
            serde_json::to_value(&problem).expect("json"),
            serde_json::json!({"type": "about:blank", "title": "Not Found", "status": 404, "detail": "no player named odin"})
        );
    }

    #[test]
    fn a_wait_shorter_than_a_second_is_told_as_one_second() {
        let response = Problem::unavailable("paused", Duration::from_millis(20)).into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    }
}
