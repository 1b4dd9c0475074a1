//! The gRPC side: one stream a ticker, turned into happenings for whoever leads now. Knows no ticks and no leases.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fortia_proto::tick::v1::ticks_server::Ticks;
use fortia_proto::tick::v1::{Answer, Frame, answer};
use futures::{Stream, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};

use crate::exchange::Conn;

/// Frames that may wait for one ticker. It gets the next only after its answer, so more than a few is a fault.
const FRAMES: usize = 4;
/// Time a ticker has to say Hello.
const HELLO: Duration = Duration::from_secs(5);

/// What a stream tells the leader.
pub(crate) enum Happening {
    Joined { conn: Conn, instance: String, process: String, ticker: Ticker },
    Left { conn: Conn },
    Answered { conn: Conn, answer: Answer },
}

/// The leader's end of a stream; dropping it ends the stream.
pub(crate) struct Ticker {
    frames: mpsc::Sender<Result<Frame, Status>>,
    _open: DropGuard,
}

impl Ticker {
    /// Sends a frame; false when the ticker does not take it.
    pub(crate) fn send(&self, frame: Frame) -> bool {
        self.frames.try_send(Ok(frame)).is_ok()
    }
}

/// Where streams report to; none while this scheduler does not lead.
pub(crate) type Leader = watch::Receiver<Option<mpsc::Sender<Happening>>>;

/// The service `Ticks`.
pub(crate) struct Streams {
    leader: Leader,
    next: AtomicU64,
}

impl Streams {
    pub(crate) fn new(leader: Leader) -> Streams {
        Streams { leader, next: AtomicU64::new(1) }
    }
}

#[tonic::async_trait]
impl Ticks for Streams {
    type ServeStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn serve(
        &self,
        request: Request<Streaming<Answer>>,
    ) -> Result<Response<Self::ServeStream>, Status> {
        let Some(leader) = self.leader.borrow().clone() else {
            return Err(Status::unavailable(
                "this scheduler does not lead: ask the control database who does",
            ));
        };
        let conn = self.next.fetch_add(1, Ordering::Relaxed);
        let (frames, out) = mpsc::channel(FRAMES);
        tokio::spawn(listen(conn, request.into_inner(), frames, leader));
        Ok(Response::new(ReceiverStream::new(out).boxed()))
    }
}

/// Reads a ticker's answers until either side ends the stream.
async fn listen(
    conn: Conn,
    mut answers: Streaming<Answer>,
    frames: mpsc::Sender<Result<Frame, Status>>,
    leader: mpsc::Sender<Happening>,
) {
    let first = tokio::time::timeout(HELLO, answers.message()).await;
    let Ok(Ok(Some(Answer { kind: Some(answer::Kind::Hello(hello)) }))) = first else {
        tracing::warn!(conn, "a stream did not begin with hello");
        let _ = frames.try_send(Err(Status::invalid_argument("the first message must be hello")));
        return;
    };
    let open = CancellationToken::new();
    let ticker = Ticker { frames, _open: open.clone().drop_guard() };
    let mut happening = Happening::Joined { conn, instance: hello.instance, process: hello.process, ticker };
    loop {
        // A leader that is gone has closed the channel: then its streams end too.
        if leader.send(happening).await.is_err() {
            return;
        }
        let answer = tokio::select! {
            answer = answers.message() => answer,
            () = open.cancelled() => return,
        };
        happening = match answer {
            Ok(Some(answer)) => Happening::Answered { conn, answer },
            Ok(None) | Err(_) => break,
        };
    }
    let _ = leader.send(Happening::Left { conn }).await;
}
