//! What goes wrong below, as problems for the client. Errors are logged here, once.

use std::time::Duration;

use fortia_rdb::RdbError;
use fortia_rest::Problem;

use crate::order::Refused;
use crate::read::ReadError;

const SOON: Duration = Duration::from_secs(1);

/// A read or write of the world that failed.
pub(crate) fn of_world(error: impl Into<ReadError>) -> Problem {
    match error.into() {
        ReadError::Rdb(RdbError::Frozen { address, reason }) => {
            tracing::debug!(address, reason, "write refused: the world is paused");
            paused()
        }
        ReadError::Rdb(RdbError::Full { reason }) => {
            tracing::debug!(reason, "action refused: its region has too many");
            Problem::unavailable("the region has too many orders in this tick: try again", SOON)
        }
        error @ (ReadError::Rdb(RdbError::Outdated { .. }) | ReadError::Elsewhere) => {
            tracing::debug!(%error, "read refused: this server has lost track of the world");
            lost_track()
        }
        error if error.is_retryable() => {
            tracing::warn!(%error, "world does not answer");
            Problem::unavailable("part of the world's database does not answer now: try again", SOON)
        }
        error => {
            tracing::error!(%error, "world cannot be read or written");
            Problem::internal()
        }
    }
}

/// The account database failed.
pub(crate) fn of_accounts(error: &RdbError) -> Problem {
    if error.is_retryable() {
        tracing::warn!(%error, "accounts do not answer");
        Problem::unavailable("the account database does not answer now: try again", SOON)
    } else {
        tracing::error!(%error, "session cannot be checked");
        Problem::internal()
    }
}

/// A unit that its owner has, but that is not in the world.
pub(crate) fn of_absent(unit: u64) -> Problem {
    Problem::conflict(format!("unit {unit} is not in the world yet: it appears within the next ticks"))
}

/// An order that a unit does not take.
pub(crate) fn of_order(refused: Refused) -> Problem {
    let detail = refused.to_string();
    match refused {
        Refused::Busy(..) | Refused::NoTarget(_) => Problem::conflict(detail),
        Refused::Unable(..) | Refused::OwnTarget(_) => Problem::unprocessable(detail),
    }
}

/// Nothing is written now; reads go on.
pub(crate) fn paused() -> Problem {
    let detail = "the world's mode is paused while its data changes hands: it can be seen, orders are taken again soon";
    Problem::unavailable(detail, SOON).of_kind("/problems/paused", "The world is paused")
}

/// Where the world is now is not known here.
fn lost_track() -> Problem {
    let detail = "this server has not heard where the world's data is now, and does not guess: try again, perhaps another \
                  server answers";
    Problem::unavailable(detail, SOON)
        .of_kind("/problems/lost-track", "The server has lost track of the world")
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use http::StatusCode;
    use http::header::RETRY_AFTER;

    use super::*;

    #[test]
    fn who_meets_a_full_list_of_orders_is_told_to_try_again_in_a_second() {
        let response =
            of_world(RdbError::Full { reason: "v1:actions:1:0:0 has 4096 actions".into() }).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
    }
}
