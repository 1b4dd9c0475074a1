//! A new epoch: told to all shards, if they still have what was committed. Knows guards; what must be there is in `ledger`.

use fortia_common::records::ForgottenRecord;

use super::Leader;
use crate::exchange::Why;
use crate::ledger::Forgotten;

impl Leader<'_> {
    /// Tells all shards an epoch, and asks whether they still have what was committed: no tick goes on from less.
    pub(super) async fn raise(&mut self, epoch: u64) -> bool {
        let guards = match self.tools.world.raise(epoch).await {
            Ok(guards) => guards,
            Err(error) => {
                self.tools.metrics.abandoned(Why::Unraised);
                tracing::warn!(epoch, %error, "the epoch did not reach all shards; trying again");
                return false;
            }
        };
        let (version, tick) = (self.topology.serving.version, self.barrier.committed() + 1);
        let checked = self.barrier.ledger().check(version, tick, &guards);
        let forgotten = checked.err().filter(|forgotten| !self.accepted(forgotten));
        if forgotten.is_some() {
            self.tools.metrics.abandoned(Why::Forgotten);
        }
        let ok = forgotten.is_none();
        self.tell_forgotten(forgotten).await;
        ok
    }

    /// Whether somebody has said that the world is to go on without what was forgotten.
    fn accepted(&mut self, forgotten: &Forgotten) -> bool {
        let committed = self.barrier.committed();
        let accepted = self.tools.config.borrow().accepted_loss == Some(committed);
        if accepted {
            tracing::warn!(committed, %forgotten, "the loss is accepted: the world goes on from what the shards have");
            self.barrier.ledger().forgive();
        }
        accepted
    }

    /// Says what was forgotten, or that nothing is, where the operator looks; once.
    async fn tell_forgotten(&mut self, forgotten: Option<Forgotten>) {
        let forgotten = forgotten.map(|forgotten| forgotten.to_string());
        if self.forgotten.as_ref() == Some(&forgotten) {
            return;
        }
        let tick = self.barrier.committed();
        if let Some(why) = &forgotten {
            tracing::error!(tick, why, "the world stands still");
        }
        let record = forgotten.clone().map(|why| ForgottenRecord { tick, why });
        match self.tools.control.set_forgotten(record.as_ref()).await {
            Ok(()) => self.forgotten = Some(forgotten),
            Err(error) => tracing::warn!(%error, "what was forgotten is not recorded; trying again"),
        }
    }
}
