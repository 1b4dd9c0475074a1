//! Takes log records by OTLP/gRPC from any exporter. Knows the protocol and its limits, not how records are kept.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::now;
use crate::record::records;
use crate::store::Store;

/// Largest request, in bytes; exporters send a few hundred records at once.
const REQUEST_BYTES: usize = 8 << 20;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const REQUESTS_PER_CONNECTION: usize = 4;
/// Connections that are dead without having said so are found within twice this.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long exporters may take to leave after the stop.
const DRAIN: Duration = Duration::from_secs(2);

struct Receiver(Arc<Store>);

#[tonic::async_trait]
impl LogsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let store = self.0.clone();
        let now = now();
        let stored =
            tokio::task::spawn_blocking(move || store.append(records(request.into_inner(), now), now));
        match stored.await {
            Ok(Ok(())) => Ok(Response::new(ExportLogsServiceResponse::default())),
            Ok(Err(error)) => {
                tracing::error!(%error, "records cannot be stored");
                // The exporter keeps them and tries again.
                Err(Status::unavailable("records cannot be stored now"))
            }
            Err(error) => {
                tracing::error!(%error, "storing records panicked");
                Err(Status::internal("records cannot be stored"))
            }
        }
    }
}

/// Receives until `stop`, and lets exporters finish what they send then.
///
/// # Errors
/// When the listener fails.
pub(crate) async fn receive(
    listener: TcpListener,
    store: Arc<Store>,
    stop: CancellationToken,
) -> io::Result<()> {
    let service = LogsServiceServer::new(Receiver(store))
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(REQUEST_BYTES);
    let serving = Server::builder()
        .timeout(REQUEST_TIMEOUT)
        .concurrency_limit_per_connection(REQUESTS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(service)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            stop.clone().cancelled_owned(),
        );
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = serving => served.map_err(io::Error::other),
        () = overdue => Ok(()),
    }
}
