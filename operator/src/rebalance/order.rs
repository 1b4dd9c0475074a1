//! The two halves of a pass in their only order: what was decided is done first and recorded then. Whoever dies in between
//! is followed by one who decides the same again, so all that is done can be done twice. Knows neither half.

use fortia_common::failpoint::{Failed, Failpoints};

/// Acts, then records what came of it; `failpoints`: where a test lets the operator die, if this pass does anything.
///
/// # Errors
/// When it cannot be recorded, or a test says so.
pub(crate) async fn act_then_record<A, R, E: From<Failed>, F: Future<Output = Result<R, E>>>(
    failpoints: Option<&Failpoints>,
    act: impl Future<Output = A>,
    record: impl FnOnce(A) -> F,
) -> Result<R, E> {
    let acted = act.await;
    if let Some(points) = failpoints {
        points.pass("rebalance.acted").await?;
    }
    let recorded = record(acted).await?;
    if let Some(points) = failpoints {
        points.pass("rebalance.recorded").await?;
    }
    Ok(recorded)
}
