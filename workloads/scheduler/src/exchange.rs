//! What the barrier is told and what it orders. Shapes only.

use fortia_proto::tick::v1::{Answer, Frame, Stage};
use fortia_proto::world::v1 as world;

/// One stream of a ticker; never used twice.
pub type Conn = u64;

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A ticker said Hello.
    Joined {
        /// Its stream.
        conn: Conn,
        /// Its name.
        instance: String,
        /// Its process, unique for ever.
        process: String,
    },
    /// A stream has ended.
    Left {
        /// The stream.
        conn: Conn,
    },
    /// A ticker answered a frame.
    Answered {
        /// Its stream.
        conn: Conn,
        /// Its answer.
        answer: Answer,
    },
    /// It is time for the next tick.
    Due,
    /// All shards know the epoch, or it could not be told to all.
    Raised {
        /// The epoch that was raised.
        epoch: u64,
        /// Whether all shards have it.
        ok: bool,
    },
    /// The tick is committed in the control database.
    Committed {
        /// Its number.
        tick: u64,
    },
    /// A stage's time is over.
    Deadline(Place),
    /// The topology has changed: nothing of the current epoch may be relied upon.
    Changed {
        /// Epoch of the new topology.
        topology_epoch: u64,
        /// The version of the database that is served.
        version: u64,
        /// Oldest epoch of a topology under which what tickers know is still the world.
        memory_since: u64,
    },
}

/// Where the world is: epoch, tick, stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Epoch of the assignment.
    pub epoch: u64,
    /// Tick that runs.
    pub tick: u64,
    /// Its stage.
    pub stage: Stage,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Tell all shards this epoch, then answer `Raised`.
    Raise {
        /// The epoch.
        epoch: u64,
        /// Why there is a new one.
        reason: String,
    },
    /// Send a frame.
    Send {
        /// To this stream.
        conn: Conn,
        /// The frame.
        frame: Frame,
    },
    /// A stage has begun: answer `Deadline` when its time is over.
    Begin {
        /// Where.
        place: Place,
        /// Whether the tickers have to load their regions in it.
        loads: bool,
    },
    /// Commit the tick in the control database, then answer `Committed`.
    Commit {
        /// Its number.
        tick: u64,
        /// What it changed, ascending.
        changed: Vec<world::ChunkPos>,
        /// The version of the database it was written to.
        version: u64,
        /// By shard, the parts of commits that are confirmed.
        parts: Vec<u64>,
    },
    /// End a stream.
    Close {
        /// The stream.
        conn: Conn,
        /// Why.
        reason: &'static str,
    },
    /// The tick could not be ended: it is to be run again.
    Abandon {
        /// Where it was.
        place: Place,
        /// Why, in a word.
        why: Why,
        /// Why, in full.
        reason: String,
    },
}

/// Why a tick is run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// A ticker's stream has ended.
    Gone,
    /// A ticker missed a deadline.
    Late,
    /// A ticker could not run a stage.
    Failed,
    /// A new epoch did not reach all shards.
    Unraised,
    /// A shard came back without something that was committed.
    Forgotten,
}

impl Why {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Why::Gone => "gone",
            Why::Late => "late",
            Why::Failed => "failed",
            Why::Unraised => "unraised",
            Why::Forgotten => "forgotten",
        }
    }
}
