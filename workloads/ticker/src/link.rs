//! The ticker's link to the leading scheduler: finds it, says hello, obeys its frames. Knows streams, not what a frame
//! does.

use std::time::Duration;

use fortia_proto::tick::v1::ticks_client::TicksClient;
use fortia_proto::tick::v1::{Answer, Failed, Frame, Hello, answer};
use fortia_rdb::control::ControlDb;
use fortia_rest::Readiness;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::Endpoint;

use crate::frame::Runner;
use crate::metrics::Metrics;

/// Largest message of the scheduler, in bytes.
const MESSAGE: usize = 64 << 20;
/// Time to connect, and then to be let in.
const CONNECT: Duration = Duration::from_secs(2);
/// A scheduler's host that is silent for this long is taken for gone.
const SILENCE: Duration = Duration::from_secs(3);
/// Time between two searches for a leader.
const SEARCH: Duration = Duration::from_millis(100);
/// A leader that says nothing for this long is looked after: another may lead by now.
const LOOK: Duration = Duration::from_millis(500);
/// Readiness: a leader is connected, or the control database says that there is none.
pub(crate) const FOLLOWS: &str = "control-db";

/// Why a leader is not served (any more).
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("address cannot be used: {0}")]
    Connect(#[from] tonic::transport::Error),
    #[error("{0}")]
    Refused(Box<tonic::Status>),
    #[error("no answer in {CONNECT:?}")]
    Silent,
    #[error("{0} leads now")]
    Deposed(String),
}

impl From<tonic::Status> for LinkError {
    fn from(status: tonic::Status) -> LinkError {
        LinkError::Refused(Box::new(status))
    }
}

pub(crate) struct Link {
    pub(crate) instance: String,
    pub(crate) control: ControlDb,
    pub(crate) runner: Runner,
    pub(crate) metrics: Metrics,
    pub(crate) readiness: Readiness,
    pub(crate) stop: CancellationToken,
}

impl Link {
    /// Serves whoever leads, until told to stop; then the running tick is finished first.
    pub(crate) async fn run(mut self) {
        let mut told = None;
        while !self.stop.is_cancelled() {
            match self.control.leader().await {
                Ok(None) => self.readiness.set(FOLLOWS, true),
                Ok(Some(leader)) => {
                    self.readiness.set(FOLLOWS, true);
                    let ended = self.serve(&leader, &mut told).await;
                    self.metrics.connected.set(0);
                    self.runner.reset();
                    let reason =
                        ended.err().map_or_else(|| "the stream has ended".to_owned(), |e| e.to_string());
                    let news = Some(format!("{leader}: {reason}"));
                    if told != news && !self.stop.is_cancelled() {
                        tracing::warn!(leader, reason, "no leader is served; searching");
                        told = news;
                    }
                }
                Err(error) => {
                    self.readiness.set(FOLLOWS, false);
                    let news = Some(error.to_string());
                    if told != news {
                        tracing::warn!(%error, "the leader cannot be asked for; trying again");
                        told = news;
                    }
                }
            }
            tokio::select! {
                () = sleep(SEARCH) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    async fn serve(&mut self, leader: &str, told: &mut Option<String>) -> Result<(), LinkError> {
        let (answers, mut frames) = tokio::select! {
            connected = timeout(CONNECT * 2, self.connect(leader)) => connected.map_err(|_| LinkError::Silent)??,
            other = deposed(&self.control, leader) => return Err(LinkError::Deposed(other)),
        };
        tracing::info!(leader, "serving the leader");
        *told = None;
        self.metrics.connected.set(1);
        loop {
            let frame = tokio::select! {
                frame = frames.message() => frame?,
                // A host that lost its power closes no streams.
                other = deposed(&self.control, leader) => return Err(LinkError::Deposed(other)),
                () = self.stop.cancelled(), if !self.runner.in_tick() => return Ok(()),
            };
            let Some(frame) = frame else { return Ok(()) };
            let answer = self.answer(frame).await;
            if answers.send(answer).await.is_err() {
                return Ok(());
            }
        }
    }

    async fn connect(&self, leader: &str) -> Result<(mpsc::Sender<Answer>, Streaming<Frame>), LinkError> {
        let endpoint = Endpoint::from_shared(format!("http://{leader}"))?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(SILENCE)
            .keep_alive_timeout(SILENCE)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        let mut ticks = TicksClient::new(endpoint.connect().await?)
            .max_decoding_message_size(MESSAGE)
            .max_encoding_message_size(MESSAGE);
        let (answers, outgoing) = mpsc::channel(4);
        let hello = Hello { instance: self.instance.clone(), process: self.control.process().to_owned() };
        // The channel is empty and open: there is room.
        let _ = answers.try_send(Answer { kind: Some(answer::Kind::Hello(hello)) });
        let frames = ticks.serve(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok((answers, frames))
    }

    async fn answer(&mut self, frame: Frame) -> Answer {
        let (epoch, tick, stage) = (frame.epoch, frame.tick, frame.stage);
        let kind = match self.runner.run(frame).await {
            Ok(done) => answer::Kind::Done(done),
            Err(error) => {
                tracing::warn!(epoch, tick, stage, %error, "stage failed");
                self.metrics.failed.inc();
                self.runner.reset();
                answer::Kind::Failed(Failed { epoch, tick, stage, reason: error.to_string() })
            }
        };
        Answer { kind: Some(kind) }
    }
}

/// Waits until another than `leader` leads, and returns its address.
async fn deposed(control: &ControlDb, leader: &str) -> String {
    loop {
        sleep(LOOK).await;
        if let Ok(Some(other)) = control.leader().await
            && other != leader
        {
            return other;
        }
    }
}
