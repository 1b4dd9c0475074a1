//! Whether a server still had the version that was read from it, by its guard as it was read after the values. Knows what
//! may be unlinked under which guard; no keys.

use fortia_common::records;
use redis::{Cmd, Value};

use crate::RdbError;
use crate::connection::value;
use crate::guard::State;

/// What a guard says of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// Nothing of it is unlinked under this guard.
    Safe,
    /// Only the operator's patience keeps it: the group serves nothing any more.
    Lent,
    /// It is not there, not there yet, or may be on its way out.
    Gone,
}

/// The question to ask after the values.
pub(super) fn question() -> Cmd {
    let mut command = redis::cmd("HMGET");
    command.arg(records::GUARD).arg("version").arg("target").arg("state");
    command
}

/// What the answer says of `version`, and in words what there is.
pub(super) fn judge(address: &str, answer: Value, version: u64) -> Result<(Kept, String), RdbError> {
    let (serving, target, state): (Option<u64>, Option<u64>, Option<String>) = value(address, answer)?;
    let (Some(serving), Some(target), Some(state)) = (serving, target, state) else {
        return Err(RdbError::corrupt(records::GUARD, format!("the guard of {address} lacks fields")));
    };
    let said = format!("its guard is {state} at version {serving}, target {target}");
    Ok((kept(version, serving, target, state == State::Frozen.as_str()), said))
}

/// As `fortia_unlink` decides, from the other side.
fn kept(version: u64, serving: u64, target: u64, frozen: bool) -> Kept {
    if version == serving {
        return if frozen && target == 0 { Kept::Lent } else { Kept::Safe };
    }
    // A target that is newer is being made: nobody reads it before its guard serves it.
    if version == target && target < serving { Kept::Safe } else { Kept::Gone }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_safe_where_it_serves_and_where_it_is_kept_for_the_way_back() {
        assert_eq!(kept(3, 3, 0, false), Kept::Safe);
        assert_eq!(kept(3, 3, 4, false), Kept::Safe);
        // Frozen by a cut-over.
        assert_eq!(kept(3, 3, 4, true), Kept::Safe);
        assert_eq!(kept(3, 4, 3, false), Kept::Safe);
    }

    #[test]
    fn a_version_that_was_collected_or_is_being_made_is_not_there() {
        assert_eq!(kept(3, 4, 0, false), Kept::Gone);
        assert_eq!(kept(3, 5, 4, false), Kept::Gone);
        assert_eq!(kept(4, 3, 4, false), Kept::Gone);
        assert_eq!(kept(3, 4, 0, true), Kept::Gone);
    }

    #[test]
    fn a_group_that_serves_no_more_has_its_version_for_as_long_as_the_operator_waits() {
        assert_eq!(kept(3, 3, 0, true), Kept::Lent);
    }
}
