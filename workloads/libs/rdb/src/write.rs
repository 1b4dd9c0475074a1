//! Calls of the server-side functions that write: values and operations, packed into few commands. Knows the functions'
//! argument formats, not what is written.

use bytes::Bytes;
use fortia_common::records;

/// Keys or operations in one call; larger batches become several calls of one pipeline.
const OPERATIONS: usize = 256;
/// Value bytes in one call, unless a single value is larger.
const BYTES: usize = 2 << 20;

/// Claims in one call, unless one chunk has more: a server answers nobody else while a call runs.
const CLAIMS: usize = 2048;

/// The physical key of a lock, and pairs of block and claim.
pub(crate) type ClaimsOf<'a> = (Vec<u8>, &'a [(u32, Bytes)]);

/// Something done to one key.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Sets fields (field, value, field, ...).
    HashSet(Vec<Bytes>),
    /// Adds members.
    SetAdd(Vec<Bytes>),
    /// Removes members.
    SetRemove(Vec<Bytes>),
    /// Appends an action for a tick.
    Act { tick: u64, action: Bytes },
    /// Removes the key.
    Delete,
}

impl Op {
    fn name(&self) -> &'static str {
        match self {
            Op::HashSet(_) => "HSET",
            Op::SetAdd(_) => "SADD",
            Op::SetRemove(_) => "SREM",
            Op::Act { .. } => "ACT",
            Op::Delete => "DEL",
        }
    }

    fn arguments(&self) -> Vec<Bytes> {
        match self {
            Op::Act { tick, action } => vec![Bytes::from(tick.to_string()), action.clone()],
            Op::HashSet(all) | Op::SetAdd(all) | Op::SetRemove(all) => all.clone(),
            Op::Delete => Vec::new(),
        }
    }
}

/// As whom and into which version a call writes.
#[derive(Clone, Debug)]
pub(crate) struct Writer<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) epoch: u64,
    /// 0: not a ticker.
    pub(crate) tick_epoch: u64,
    pub(crate) version: u64,
}

impl Writer<'_> {
    /// The calls that do these operations (physical key, what), in order. Without operations: one call that only
    /// raises the tick epoch.
    pub(crate) fn calls(&self, operations: &[(Vec<u8>, Op)]) -> redis::Pipeline {
        let mut pipe = redis::pipe();
        if operations.is_empty() {
            pipe.add_command(self.call(&[]));
        }
        self.operate(operations, &mut pipe);
        pipe
    }

    /// Adds the calls that do these operations.
    pub(crate) fn operate(&self, operations: &[(Vec<u8>, Op)], pipe: &mut redis::Pipeline) {
        let mut rest: Vec<(&[u8], &Op, Vec<Bytes>)> = Vec::new();
        let mut bytes = 0;
        for (key, op) in operations {
            let arguments = op.arguments();
            let size = key.len() + arguments.iter().map(Bytes::len).sum::<usize>();
            if !rest.is_empty() && (rest.len() == OPERATIONS || bytes + size > BYTES) {
                pipe.add_command(self.call(&rest));
                rest.clear();
                bytes = 0;
            }
            bytes += size;
            rest.push((key, op, arguments));
        }
        if !rest.is_empty() {
            pipe.add_command(self.call(&rest));
        }
    }

    fn call(&self, operations: &[(&[u8], &Op, Vec<Bytes>)]) -> redis::Cmd {
        let mut call = redis::cmd("FCALL");
        call.arg("fortia_write").arg(operations.len() + 1).arg(records::GUARD);
        for (key, ..) in operations {
            call.arg(*key);
        }
        call.arg(self.cluster).arg(self.epoch).arg(self.tick_epoch).arg(self.version);
        for (_, op, arguments) in operations {
            call.arg(op.name()).arg(arguments.len());
            for argument in arguments {
                call.arg(argument.as_ref());
            }
        }
        call
    }

    /// Adds the calls that write these values (physical key, value) of a tick into one of the key's two slots; an empty value
    /// is a tombstone.
    pub(crate) fn fill_slots(&self, tick: u64, values: &[(Vec<u8>, Bytes)], pipe: &mut redis::Pipeline) {
        let mut rest = values;
        while !rest.is_empty() {
            let sizes = rest.iter().take(OPERATIONS).map(|(key, value)| key.len() + value.len());
            let (now, later) = rest.split_at(fitting(sizes, BYTES));
            let keys: Vec<&[u8]> = now.iter().map(|(key, _)| key.as_slice()).collect();
            let mut call = self.of_tick("fortia_slots", tick, &keys);
            for (_, value) in now {
                call.arg(value.as_ref());
            }
            pipe.add_command(call);
            rest = later;
        }
    }

    /// The call that ends a part of a commit, and returns its number.
    pub(crate) fn part(&self, tick: u64) -> redis::Cmd {
        self.of_tick("fortia_part", tick, &[])
    }

    /// The call that closes a tick's actions and returns the regions that have some, on a shard that has so many parts of
    /// commits; `again`: and the actions that were read of it before.
    pub(crate) fn take(&self, tick: u64, acting: &str, least: u64, again: bool) -> redis::Cmd {
        let mut call = self.of_tick("fortia_take", tick, &[acting.as_bytes()]);
        call.arg(least).arg(u8::from(again));
        call
    }

    /// The calls that claim blocks: by the physical key of a lock, pairs of block and claim.
    pub(crate) fn lock(&self, tick: u64, claims: &[ClaimsOf<'_>]) -> redis::Pipeline {
        let mut pipe = redis::pipe();
        let mut rest = claims;
        while !rest.is_empty() {
            let sizes = rest.iter().map(|(_, claims)| claims.len());
            let (now, later) = rest.split_at(fitting(sizes, CLAIMS));
            let keys: Vec<&[u8]> = now.iter().map(|(key, _)| key.as_slice()).collect();
            let mut call = self.of_tick("fortia_lock", tick, &keys);
            for (_, claims) in now {
                call.arg(claims.len() * 2);
                for (block, claim) in *claims {
                    call.arg(block).arg(claim.as_ref());
                }
            }
            pipe.add_command(call);
            rest = later;
        }
        pipe
    }

    fn of_tick(&self, function: &str, tick: u64, keys: &[&[u8]]) -> redis::Cmd {
        let mut call = redis::cmd("FCALL");
        call.arg(function).arg(keys.len() + 1).arg(records::GUARD).arg(keys);
        call.arg(self.cluster).arg(self.epoch).arg(self.tick_epoch).arg(self.version).arg(tick);
        call
    }
}

/// How many of the first fit in one call: one at least, however large.
fn fitting(sizes: impl Iterator<Item = usize>, room: usize) -> usize {
    let full = sizes.scan(0, |sum, size| {
        *sum += size;
        Some(*sum)
    });
    full.take_while(|sum| *sum <= room).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::fitting;

    #[test]
    fn a_call_takes_what_fits_and_one_thing_at_least() {
        assert_eq!(fitting([3, 4, 5].into_iter(), 7), 2);
        assert_eq!(fitting([3, 4, 5].into_iter(), 11), 2);
        assert_eq!(fitting([30, 4].into_iter(), 7), 1, "larger than a call, alone");
    }
}
