//! Extractors whose rejections are problems. Know how input is parsed, not what it means.

use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::json::{self, Refused};
use crate::problem::Problem;

/// A JSON body, in and out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json<T>(pub T);

/// The query string.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::with(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must be JSON: send it with the header Content-Type: application/json",
            ));
        }
        let body = Bytes::from_request(request, state).await.map_err(unreceived)?;
        json::read(&body).map(Json).map_err(|refused| match refused {
            Refused::NotJson(words) => Problem::bad_request(words),
            Refused::Misfit(words) => Problem::unprocessable(words),
        })
    }
}

fn unreceived(rejection: BytesRejection) -> Problem {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::with(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is larger than this server takes: send less at once",
        ),
        status => Problem::with(status, "the body did not arrive whole: send it again"),
    }
}

/// `application/json`, or another type that is written as JSON.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind.strip_prefix("application/").is_some_and(|kind| kind == "json" || kind.ends_with("+json"))
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let axum::extract::Query(value) = axum::extract::Query::from_request_parts(parts, state)
            .await
            .map_err(|e: QueryRejection| Problem::with(e.status(), e.body_text()))?;
        Ok(Query(value))
    }
}
