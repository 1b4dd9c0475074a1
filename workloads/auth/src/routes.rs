//! The routes of the auth server: register, login, logout, me, worlds. Knows HTTP; accounts are kept by `fortia-rdb`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use fortia_rdb::RdbError;
use fortia_rdb::accounts::{Account, Accounts, ListedWorld, SESSION};
use fortia_rest::session::{COOKIE_NAME, token};
use fortia_rest::{Json, Problem};
use http::header::SET_COOKIE;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::account::{Mail, Name, Password};
use crate::attempts::Attempts;
use crate::session::cookie;

/// What the API's document says of it.
const ABOUT: &str = "Accounts and sessions of players, and the list of worlds. A login gives a token, which is shown to \
                     this API and to those of worlds as a bearer token or as a cookie.";

/// Everything the handlers use.
pub(crate) struct App {
    /// The account database.
    pub(crate) accounts: Accounts,
    /// Failed logins.
    pub(crate) attempts: Attempts,
}

/// The routes of the auth server with their description at /openapi.json.
pub(crate) fn router(app: Arc<App>) -> Router {
    let described = OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(login))
        .routes(routes!(logout))
        .routes(routes!(me))
        .routes(routes!(worlds));
    fortia_rest::documented("Fortia auth", ABOUT, described).with_state(app)
}

/// Body of POST /register.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Registration {
    /// 3 to 32 of a-z, 0-9, _ and -.
    #[schema(min_length = 3, max_length = 32, pattern = "^[a-z0-9_-]+$")]
    name: String,
    /// A mail address.
    #[schema(format = "email", max_length = 254)]
    mail: String,
    /// 8 to 128 characters.
    #[schema(format = "password", min_length = 8, max_length = 128)]
    password: String,
}

/// Body of POST /login.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Credentials {
    /// The account's name.
    name: String,
    /// Its password.
    #[schema(format = "password")]
    password: String,
}

/// Answer of POST /login.
#[derive(Serialize, ToSchema)]
struct Session {
    /// Send it as `Authorization: Bearer ..`; browsers send the cookie by themselves.
    token: String,
    /// Seconds until it expires.
    expires_in: u64,
}

/// An account, as its owner sees it.
#[derive(Serialize, ToSchema)]
struct AccountShape {
    /// Its name.
    name: String,
    /// Its mail address.
    mail: String,
    /// 0 player to 4 owner.
    role: u8,
    /// Whether it has donated.
    donor: bool,
    /// When it was made: Unix time in milliseconds.
    created_ms: u64,
}

/// Answer of GET /worlds.
#[derive(Serialize, ToSchema)]
struct Worlds {
    /// The worlds, by name.
    worlds: Vec<WorldShape>,
}

/// A world one can play in.
#[derive(Serialize, ToSchema)]
struct WorldShape {
    /// Its name.
    name: String,
    /// Where its game servers are.
    address: String,
    /// Whether players may enter.
    open: bool,
}

impl From<Account> for AccountShape {
    fn from(account: Account) -> AccountShape {
        AccountShape {
            name: account.name,
            mail: account.mail,
            role: account.role,
            donor: account.donor,
            created_ms: account.created_ms,
        }
    }
}

/// Makes an account.
#[utoipa::path(post, path = "/register", request_body = Registration, responses(
    (status = 201, description = "Made", body = AccountShape),
    (status = 409, description = "The name is taken", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "A value is not acceptable", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "Too many at once", body = Problem, content_type = "application/problem+json"),
))]
async fn register(State(app): State<Arc<App>>, Json(body): Json<Registration>) -> Result<Response, Problem> {
    let refused = |error: crate::account::Refused| Problem::unprocessable(error.to_string());
    let name = Name::parse(&body.name).map_err(refused)?;
    let mail = Mail::parse(&body.mail).map_err(refused)?;
    let password = Password::parse(body.password).map_err(refused)?;
    let account =
        app.accounts.register(name.as_str(), mail.as_str(), password.secret()).await.map_err(problem)?;
    tracing::info!(account = name.as_str(), "account made");
    Ok((StatusCode::CREATED, Json(AccountShape::from(account))).into_response())
}

/// Opens a session: a bearer token, also set as cookie `fortia-session`.
#[utoipa::path(post, path = "/login", request_body = Credentials, responses(
    (status = 200, description = "Logged in", body = Session),
    (status = 401, description = "Name or password is wrong", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "Too many failures", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "Too many at once", body = Problem, content_type = "application/problem+json"),
))]
async fn login(State(app): State<Arc<App>>, Json(body): Json<Credentials>) -> Result<Response, Problem> {
    // What can be no account's is not looked up; the answer is the same as for a wrong password.
    let (Ok(name), Ok(password)) = (Name::parse(&body.name), Password::parse(body.password)) else {
        return Err(problem(RdbError::WrongLogin));
    };
    if let Some(wait) = app.attempts.wait(name.as_str(), Instant::now()) {
        return Err(Problem::too_many("too many failed logins of this name: wait before the next try", wait));
    }
    let token = app.accounts.login(name.as_str(), password.secret()).await.map_err(|error| {
        if error == RdbError::WrongLogin {
            app.attempts.failed(name.as_str(), Instant::now());
        }
        problem(error)
    })?;
    app.attempts.succeeded(name.as_str());
    let cookie = cookie(token.as_str(), SESSION);
    let body = Session { token: token.as_str().to_owned(), expires_in: SESSION.as_secs() };
    Ok(([(SET_COOKIE, cookie)], Json(body)).into_response())
}

/// Ends the session. Without one it does nothing.
#[utoipa::path(post, path = "/logout", security(("bearer" = []), ("cookie" = [])), responses(
    (status = 204, description = "Logged out"),
))]
async fn logout(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    if let Some(token) = token(&headers) {
        app.accounts.logout(token).await.map_err(problem)?;
    }
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie("", Duration::ZERO))]).into_response())
}

/// The account one is logged in with.
#[utoipa::path(get, path = "/me", security(("bearer" = []), ("cookie" = [])), responses(
    (status = 200, body = AccountShape),
    (status = 401, description = "Not logged in", body = Problem, content_type = "application/problem+json"),
))]
async fn me(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Json<AccountShape>, Problem> {
    let refused = || {
        Problem::unauthorized(format!(
            "log in with POST /login, then send the token as `Authorization: Bearer` or the cookie {COOKIE_NAME}"
        ))
    };
    let token = token(&headers).ok_or_else(refused)?;
    let account = app.accounts.session(token).await.map_err(problem)?.ok_or_else(refused)?;
    Ok(Json(account.into()))
}

/// The worlds one can play in.
#[utoipa::path(get, path = "/worlds", responses((status = 200, body = Worlds)))]
async fn worlds(State(app): State<Arc<App>>) -> Result<Json<Worlds>, Problem> {
    let worlds = app.accounts.worlds().await.map_err(problem)?.into_iter();
    let shape =
        |world: ListedWorld| WorldShape { name: world.name, address: world.address, open: world.open };
    Ok(Json(Worlds { worlds: worlds.map(shape).collect() }))
}

/// What went wrong with the accounts, for the client. Logged here, once.
fn problem(error: RdbError) -> Problem {
    match error {
        RdbError::AccountExists { name } => {
            Problem::conflict(format!("the name {name} is taken: choose another"))
        }
        RdbError::WrongLogin => Problem::unauthorized("name or password is wrong"),
        RdbError::Busy => Problem::unavailable(
            "too many logins and registrations at once: try again",
            Duration::from_secs(2),
        ),
        error if error.is_retryable() => {
            tracing::warn!(%error, "accounts do not answer");
            Problem::unavailable(
                "the account database does not answer now: try again",
                Duration::from_secs(1),
            )
        }
        error => {
            tracing::error!(%error, "accounts cannot be read or written");
            Problem::internal()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_logins_than_can_be_hashed_at_once_are_told_to_come_back() {
        let response = problem(RdbError::Busy).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["retry-after"], "2");
    }
}
