//! The order of letters in an inbox. Pure; knows kinds and ids, not what follows from a letter.

use fortia_proto::tick::v1::{Letter, letter};

/// Letters in an order that does not depend on who answered first.
pub(crate) fn sorted(mut letters: Vec<Letter>) -> Vec<Letter> {
    letters.sort_by_key(|letter| {
        let to = letter.to.as_ref().map(|to| (to.x, to.y));
        let kind = match &letter.kind {
            Some(letter::Kind::Forward(action)) => (0, 0, action.id),
            Some(letter::Kind::Edit(edit)) => (1, 0, edit.id),
            Some(letter::Kind::Outcome(outcome)) => (2, 0, outcome.unit),
            Some(letter::Kind::Arrival(entity)) => (3, 0, entity.id),
            Some(letter::Kind::Strike(strike)) => (7, 0, strike.id),
            Some(letter::Kind::Pay(pay)) => (8, 0, pay.id),
            Some(letter::Kind::Unload(unload)) => (9, 0, unload.unit),
            // They add up.
            Some(letter::Kind::Credit(_)) => (10, 0, 0),
            // Whoever says so says the same.
            Some(letter::Kind::Claimed(_)) => (5, 0, 0),
            Some(letter::Kind::Approached(at)) => (6, at.x.cast_unsigned(), u64::from(at.y.cast_unsigned())),
            None => (4, 0, 0),
        };
        (to, kind)
    });
    letters
}
