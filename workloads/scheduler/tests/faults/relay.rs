//! Stands between tickers and a scheduler and passes on what they say, so that a fault can be made to happen at an
//! exact stage of a tick, with nothing for it in the servers. Knows frames and answers, not what a fault does.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fortia_proto::tick::v1::ticks_client::TicksClient;
use fortia_proto::tick::v1::ticks_server::{Ticks, TicksServer};
use fortia_proto::tick::v1::{Answer, Frame, Hello, Stage, answer};
use futures::{Stream, StreamExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// When in a stage a fault happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    /// Before the ticker gets the frame.
    Before,
    /// So long after it was sent to the ticker.
    During(Duration),
    /// Before the scheduler gets the ticker's answer.
    After,
}

/// A stage that was hit. It goes on when this is dropped.
pub(crate) struct Hit {
    pub(crate) tick: u64,
    _held: oneshot::Sender<()>,
}

struct Armed {
    instance: String,
    stage: Stage,
    when: When,
    hit: oneshot::Sender<Hit>,
}

/// What all relays of a cluster share: the fault to come, and which processes are let in.
pub(crate) struct Trap {
    armed: Mutex<Option<Armed>>,
    door: watch::Sender<Door>,
}

#[derive(Default)]
struct Door {
    /// Instances whose next process waits outside.
    closed: BTreeSet<String>,
    /// Processes that were let in, ever.
    inside: BTreeSet<String>,
    /// Processes that had to wait outside, ever.
    outside: BTreeSet<String>,
}

impl Trap {
    pub(crate) fn new() -> Arc<Trap> {
        Arc::new(Trap { armed: Mutex::default(), door: watch::Sender::new(Door::default()) })
    }

    /// The next time this ticker is in that stage, the stage stands still and the hit is told.
    pub(crate) fn arm(&self, instance: &str, stage: Stage, when: When) -> oneshot::Receiver<Hit> {
        let (hit, told) = oneshot::channel();
        *self.lock() = Some(Armed { instance: instance.to_owned(), stage, when, hit });
        told
    }

    /// Forgets a fault that has not come.
    pub(crate) fn disarm(&self) {
        *self.lock() = None;
    }

    /// Those that are inside may come back.
    fn close(&self, instance: &str) {
        self.door.send_modify(|door| {
            door.closed.insert(instance.to_owned());
        });
    }

    /// Lets waiting processes of this instance in.
    pub(crate) fn open(&self, instance: &str) {
        self.door.send_modify(|door| {
            door.closed.remove(instance);
        });
    }

    /// How many processes were ever let in.
    pub(crate) fn inside(&self) -> usize {
        self.door.borrow().inside.len()
    }

    /// Waits until so many processes were ever let in.
    pub(crate) async fn let_in(&self, count: usize) {
        let _ = self.door.subscribe().wait_for(|door| door.inside.len() >= count).await;
    }

    /// Keeps new processes of this instance outside and, once `started` has started one, waits until it is there.
    pub(crate) async fn knock<T>(&self, instance: &str, started: impl FnOnce() -> T) -> T {
        self.close(instance);
        let before = self.door.borrow().outside.len();
        let started = started();
        let _ = self.door.subscribe().wait_for(|door| door.outside.len() > before).await;
        started
    }

    async fn enter(&self, hello: &Hello) {
        let free =
            |door: &Door| door.inside.contains(&hello.process) || !door.closed.contains(&hello.instance);
        if !free(&self.door.borrow()) {
            self.door.send_modify(|door| {
                door.outside.insert(hello.process.clone());
            });
        }
        let _ = self.door.subscribe().wait_for(free).await;
    }

    fn entered(&self, hello: &Hello) {
        self.door.send_modify(|door| {
            door.inside.insert(hello.process.clone());
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Armed>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spring(&self, instance: &str, stage: Stage, here: impl Fn(When) -> bool) -> Option<Armed> {
        let mut armed = self.lock();
        let springs = |a: &Armed| a.instance == instance && a.stage == stage && here(a.when);
        if armed.as_ref().is_some_and(springs) { armed.take() } else { None }
    }
}

async fn hold(armed: Option<Armed>, tick: u64) {
    if let Some(armed) = armed {
        let (held, released) = oneshot::channel();
        if armed.hit.send(Hit { tick, _held: held }).is_ok() {
            let _ = released.await;
        }
    }
}

/// A relay of one scheduler.
#[derive(Clone)]
pub(crate) struct Relay {
    scheduler: String,
    trap: Arc<Trap>,
}

impl Relay {
    /// Starts a relay to the scheduler at this address; returns where tickers find it.
    pub(crate) async fn start(scheduler: &str, trap: Arc<Trap>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        let service = TicksServer::new(Relay { scheduler: scheduler.to_owned(), trap });
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let serving = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
        tokio::spawn(async move { serving.await.expect("the relay serves") });
        address
    }

    async fn connect(&self, hello: &Hello) -> Result<(mpsc::Sender<Answer>, Streaming<Frame>), Status> {
        let unavailable = |error: tonic::transport::Error| Status::unavailable(error.to_string());
        let endpoint = Endpoint::from_shared(format!("http://{}", self.scheduler)).map_err(unavailable)?;
        let channel = endpoint.tcp_nodelay(true).connect().await.map_err(unavailable)?;
        let (answers, outgoing) = mpsc::channel(4);
        let _ = answers.try_send(Answer { kind: Some(answer::Kind::Hello(hello.clone())) });
        let frames = TicksClient::new(channel).serve(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok((answers, frames))
    }

    async fn pass_frame(
        &self,
        instance: &str,
        frame: Frame,
        to: &mpsc::Sender<Result<Frame, Status>>,
    ) -> bool {
        let (tick, stage) = (frame.tick, frame.stage());
        hold(self.trap.spring(instance, stage, |when| matches!(when, When::Before)), tick).await;
        let sent = to.send(Ok(frame)).await.is_ok();
        let during = self.trap.spring(instance, stage, |when| matches!(when, When::During(_)));
        if let Some(Armed { when: When::During(after), .. }) = during {
            tokio::time::sleep(after).await;
        }
        hold(during, tick).await;
        sent
    }

    async fn pass_answer(&self, instance: &str, answer: Answer, to: &mpsc::Sender<Answer>) -> bool {
        if let Some(answer::Kind::Done(done)) = &answer.kind {
            let armed = self.trap.spring(instance, done.stage(), |when| matches!(when, When::After));
            hold(armed, done.tick).await;
        }
        to.send(answer).await.is_ok()
    }
}

#[tonic::async_trait]
impl Ticks for Relay {
    type ServeStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn serve(
        &self,
        request: Request<Streaming<Answer>>,
    ) -> Result<Response<Self::ServeStream>, Status> {
        let mut answers = request.into_inner();
        let first = answers.message().await?;
        let Some(Answer { kind: Some(answer::Kind::Hello(hello)) }) = first else {
            return Err(Status::invalid_argument("no hello"));
        };
        self.trap.enter(&hello).await;
        let (to_scheduler, mut frames) = self.connect(&hello).await?;
        self.trap.entered(&hello);
        let (to_ticker, out) = mpsc::channel(4);
        let relay = self.clone();
        tokio::spawn(async move {
            loop {
                let going = tokio::select! {
                    frame = frames.message() => match frame {
                        Ok(Some(frame)) => relay.pass_frame(&hello.instance, frame, &to_ticker).await,
                        Ok(None) | Err(_) => false,
                    },
                    answer = answers.message() => match answer {
                        Ok(Some(answer)) => relay.pass_answer(&hello.instance, answer, &to_scheduler).await,
                        Ok(None) | Err(_) => false,
                    },
                };
                if !going {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(out).boxed()))
    }
}
