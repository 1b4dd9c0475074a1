//! What the operator remembers of the rights it gave. Not believed for long: an operator of before that was paused and
//! goes on may give older ones after them, and servers do not tell what rights they have. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// After this long rights are given again.
const AGAIN: Duration = Duration::from_secs(60);
/// After this long nobody has asked: the server is gone.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// Rights given to servers, by the id of their run.
#[derive(Default)]
pub(super) struct Rights(HashMap<String, (Vec<u64>, Instant)>);

/// What is known of given rights at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    /// The writable versions, by run id.
    pub(super) versions: BTreeMap<String, Vec<u64>>,
    /// Runs to which they were given a while ago: they are given again, and nobody waits for that.
    pub(super) old: BTreeSet<String>,
}

impl Rights {
    /// These versions may be written on a server from now on.
    pub(super) fn gave(&mut self, run: String, versions: Vec<u64>, now: Instant) {
        self.0.insert(run, (versions, now));
    }

    /// What is known now.
    pub(super) fn known(&mut self, now: Instant) -> Given {
        self.0.retain(|_, (_, at)| now.duration_since(*at) < FORGOTTEN);
        let mut given = Given::default();
        for (run, (versions, at)) in &self.0 {
            given.versions.insert(run.clone(), versions.clone());
            if now.duration_since(*at) >= AGAIN {
                given.old.insert(run.clone());
            }
        }
        given
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_given_again_after_a_minute_and_forgotten_when_their_server_is_gone() {
        let (mut rights, begun) = (Rights::default(), Instant::now());
        rights.gave("run".into(), vec![1, 2], begun);
        let mut after = |seconds| {
            let known = rights.known(begun + Duration::from_secs(seconds));
            (known.versions.get("run").cloned(), known.old.contains("run"))
        };
        assert_eq!(after(59), (Some(vec![1, 2]), false));
        assert_eq!(after(60), (Some(vec![1, 2]), true));
        assert_eq!(after(600), (None, false));
    }
}
