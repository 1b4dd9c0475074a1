//! Tickers that answer every frame at once. Knows streams, no world.

use fortia_proto::tick::v1::ticks_client::TicksClient;
use fortia_proto::tick::v1::{Answer, Done, Frame, Hello, answer};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::Endpoint;

/// Connected tickers.
pub(crate) struct Stubs {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Stubs {
    /// So many tickers, each with a connection of its own.
    pub(crate) async fn connect(address: &str, count: usize) -> Stubs {
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        for i in 0..count {
            let (answers, frames) = connect(address, i).await;
            let stop = stop.clone();
            tasks.spawn(async move {
                tokio::select! {
                    () = answer_all(answers, frames) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
        Stubs { tasks, stop }
    }

    pub(crate) async fn leave(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn connect(address: &str, i: usize) -> (mpsc::Sender<Answer>, Streaming<Frame>) {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address").tcp_nodelay(true);
    let channel = endpoint.connect().await.expect("a connection");
    let (answers, outgoing) = mpsc::channel(4);
    let hello = Hello { instance: format!("stub-{i}"), process: format!("stub-{i}") };
    let _ = answers.try_send(Answer { kind: Some(answer::Kind::Hello(hello)) });
    let frames = TicksClient::new(channel).serve(ReceiverStream::new(outgoing)).await.expect("a stream");
    (answers, frames.into_inner())
}

async fn answer_all(answers: mpsc::Sender<Answer>, mut frames: Streaming<Frame>) {
    while let Ok(Some(frame)) = frames.message().await {
        let done = Done { epoch: frame.epoch, tick: frame.tick, stage: frame.stage, ..Done::default() };
        if answers.send(Answer { kind: Some(answer::Kind::Done(done)) }).await.is_err() {
            return;
        }
    }
}
