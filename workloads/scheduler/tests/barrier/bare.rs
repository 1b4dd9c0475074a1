//! The peer of the bench: the same service and messages with nothing behind it. A frame, its answer, the next frame, on
//! every stream for itself.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fortia_proto::tick::v1::ticks_client::TicksClient;
use fortia_proto::tick::v1::ticks_server::{Ticks, TicksServer};
use fortia_proto::tick::v1::{Answer, Frame, Hello, Stage, answer};
use futures::{Stream, StreamExt};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::stub::Stubs;

/// A server of bare streams.
pub(crate) struct Bare {
    address: String,
    trips: Arc<AtomicU64>,
}

impl Bare {
    pub(crate) async fn start(runtime: &Runtime) -> Bare {
        let trips = Arc::new(AtomicU64::new(0));
        let service = TicksServer::new(Echo { trips: Arc::clone(&trips) });
        let (told, address) = tokio::sync::oneshot::channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            told.send(listener.local_addr().expect("its address").to_string()).expect("told");
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(incoming).await.expect("served");
        });
        Bare { address: address.await.expect("an address"), trips }
    }

    /// The mean time in µs in which each of so many streams makes one round trip, all going at once.
    pub(crate) async fn round_trip(&self, streams: usize, measured: Duration) -> f64 {
        let stubs = Stubs::connect(&self.address, streams).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (began, before) = (Instant::now(), self.trips.load(Ordering::Relaxed));
        tokio::time::sleep(measured).await;
        let (took, trips) = (began.elapsed(), self.trips.load(Ordering::Relaxed) - before);
        stubs.leave().await;
        took.as_secs_f64() * 1e6 * streams as f64 / trips as f64
    }
}

/// Says so that the server answers once and ends: a call as any other.
const ONCE: &str = "once";

impl Bare {
    /// The mean time in µs of a call with one message each way, on a connection that is open already.
    pub(crate) async fn call(&self, measured: Duration) -> f64 {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).expect("an address");
        let channel = endpoint.tcp_nodelay(true).connect().await.expect("a connection");
        let mut client = TicksClient::new(channel);
        let (mut calls, began) = (0, Instant::now());
        while began.elapsed() < measured {
            let hello = Hello { instance: ONCE.into(), process: String::new() };
            let ping = Answer { kind: Some(answer::Kind::Hello(hello)) };
            let answer = client.serve(tokio_stream::once(ping)).await.expect("a call");
            assert!(answer.into_inner().message().await.is_ok_and(|frame| frame.is_some()));
            calls += 1;
        }
        began.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
    }
}

struct Echo {
    trips: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl Ticks for Echo {
    type ServeStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn serve(
        &self,
        request: Request<Streaming<Answer>>,
    ) -> Result<Response<Self::ServeStream>, Status> {
        let (mut answers, trips) = (request.into_inner(), Arc::clone(&self.trips));
        let (frames, out) = mpsc::channel(4);
        tokio::spawn(async move {
            let once = match answers.message().await {
                Ok(Some(Answer { kind: Some(answer::Kind::Hello(hello)) })) => hello.instance == ONCE,
                _ => return,
            };
            // As a scheduler's frame of an empty stage.
            let frame = Frame {
                epoch: (3 << 20) + 1,
                topology_epoch: 1,
                tick: 100_000,
                stage: Stage::Edit.into(),
                ..Frame::default()
            };
            while frames.send(Ok(frame.clone())).await.is_ok() {
                if once {
                    return;
                }
                let Ok(Some(_)) = answers.message().await else { return };
                trips.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Response::new(ReceiverStream::new(out).boxed()))
    }
}
