//! Serves the description of an API made by utoipa, completed by what this crate itself adds to every route: answers,
//! and how a session is shown. Knows no route but `/openapi.json`.

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use utoipa::PartialSchema;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Response, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;

use crate::problem::Problem;
use crate::session::COOKIE_NAME;

/// Answers any route may give, because `api` gives them.
const ALWAYS: &[(StatusCode, &str)] = &[
    (StatusCode::INTERNAL_SERVER_ERROR, "Our fault"),
    (StatusCode::SERVICE_UNAVAILABLE, "Cannot be done now, or not in time: see Retry-After"),
];
/// Answers of the extractor `Query`.
const WITH_QUERY: &[(StatusCode, &str)] = &[(StatusCode::BAD_REQUEST, "The query cannot be understood")];
/// Answers of the extractor `Json`.
const WITH_BODY: &[(StatusCode, &str)] = &[
    (StatusCode::BAD_REQUEST, "The body is no JSON"),
    (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The Content-Type is not application/json"),
    (StatusCode::UNPROCESSABLE_ENTITY, "The body has not the shape asked for"),
];

/// The router of `described` with `/openapi.json`: the routes' OpenAPI document under `title`, which says what the API is
/// `about`.
///
/// Routes need not document what this crate answers for them. Those that ask for a session say
/// `security(("bearer" = []), ("cookie" = []))`; the two schemes are described here.
pub fn documented<S>(title: &str, about: &str, described: OpenApiRouter<S>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let (router, mut document) = described.split_for_parts();
    introduce(&mut document, title, about);
    complete(&mut document);
    // A document made of strings and maps with string keys always serialises.
    let text = bytes::Bytes::from(document.to_json().unwrap_or_default());
    router.route("/openapi.json", get(|| async move { ([(CONTENT_TYPE, "application/json")], text) }))
}

/// Without it utoipa speaks of itself.
fn introduce(document: &mut OpenApi, title: &str, about: &str) {
    document.info.title = title.to_owned();
    document.info.description = Some(about.to_owned());
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    document.info.license = None;
    document.info.contact = None;
}

fn complete(document: &mut OpenApi) {
    let mut asks_for_session = false;
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        asks_for_session |= operation.security.is_some();
        add_answers(operation);
    }
    let components = document.components.get_or_insert_default();
    components.schemas.entry("Problem".to_owned()).or_insert_with(Problem::schema);
    if asks_for_session {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let cookie = ApiKey::Cookie(ApiKeyValue::new(COOKIE_NAME));
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        components.add_security_scheme("cookie", SecurityScheme::ApiKey(cookie));
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}

/// What the route says itself stays.
fn add_answers(operation: &mut Operation) {
    let is_query = |parameter: &RefOr<utoipa::openapi::path::Parameter>| match parameter {
        RefOr::T(parameter) => parameter.parameter_in == ParameterIn::Query,
        RefOr::Ref(_) => false,
    };
    let has_query = operation.parameters.iter().flatten().any(is_query);
    let query = WITH_QUERY.iter().filter(|_| has_query);
    let body = WITH_BODY.iter().filter(|_| operation.request_body.is_some());
    for (status, why) in ALWAYS.iter().chain(query).chain(body) {
        let answer = || RefOr::T(problem(why));
        operation.responses.responses.entry(status.as_str().to_owned()).or_insert_with(answer);
    }
}

fn problem(why: &str) -> Response {
    let content = Content::new(Some(Ref::from_schema_name("Problem")));
    ResponseBuilder::new().description(why).content("application/problem+json", content).build()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use utoipa_axum::routes;

    use super::*;

    #[utoipa::path(get, path = "/open", params(("x" = String, Query)), responses((status = 503, description = "Busy")))]
    async fn open() {}

    #[utoipa::path(post, path = "/closed", request_body = Problem, security(("bearer" = []), ("cookie" = [])))]
    async fn closed() {}

    fn completed(router: OpenApiRouter) -> Value {
        let (_, mut document) = router.split_for_parts();
        complete(&mut document);
        serde_json::to_value(document).expect("json")
    }

    fn statuses(operation: &Value) -> Vec<&str> {
        operation["responses"].as_object().expect("responses").keys().map(String::as_str).collect()
    }

    #[test]
    fn a_route_is_documented_with_the_answers_this_crate_gives_for_it() {
        let document = completed(OpenApiRouter::new().routes(routes!(open)).routes(routes!(closed)));
        let open = &document["paths"]["/open"]["get"];
        assert_eq!(statuses(open), ["400", "500", "503"]);
        assert_eq!(open["responses"]["503"]["description"], json!("Busy"), "what the route says stays");
        let closed = &document["paths"]["/closed"]["post"];
        assert_eq!(statuses(closed), ["400", "413", "415", "422", "500", "503"]);
        let shape = &closed["responses"]["413"]["content"]["application/problem+json"]["schema"]["$ref"];
        assert_eq!(shape, &json!("#/components/schemas/Problem"));
        assert!(document["components"]["schemas"]["Problem"].is_object());
    }

    #[test]
    fn a_document_speaks_of_its_api_and_not_of_what_made_it() {
        let (_, mut document) = OpenApiRouter::<()>::new().split_for_parts();
        introduce(&mut document, "Fortia auth", "Accounts.");
        let info = serde_json::to_value(document).expect("json")["info"].take();
        let wanted =
            json!({"title": "Fortia auth", "description": "Accounts.", "version": env!("CARGO_PKG_VERSION")});
        assert_eq!(info, wanted);
    }

    #[test]
    fn schemes_are_described_when_a_route_asks_for_a_session() {
        let document = completed(OpenApiRouter::new().routes(routes!(closed)));
        let schemes = &document["components"]["securitySchemes"];
        assert_eq!(schemes["bearer"], json!({"type": "http", "scheme": "bearer"}));
        assert_eq!(schemes["cookie"], json!({"type": "apiKey", "in": "cookie", "name": "fortia-session"}));
        let document = completed(OpenApiRouter::new().routes(routes!(open)));
        assert!(document["components"]["securitySchemes"].is_null());
    }
}
