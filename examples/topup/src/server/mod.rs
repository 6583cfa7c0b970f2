//! The server: connections, their limits and their end.
//!
//! For: accepting connections within bounds and handing them to the routes. May know: HTTP. May not
//! know: cards, books.
//!
//! Memory is bounded: so many connections and no more, each with one small buffer, time limits on
//! every head, body and message, and on a peer that does not read. A connection for which there is no place hears so: `503` from a
//! full server, `429` if its own address has had its share, with `Retry-After`; if even the places for
//! saying so are taken, it is closed.

mod doors;
mod page;
mod prompt;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;
use tracing::{info, warn};

use self::prompt::Prompt;
use crate::desk::Desk;
use crate::keys::KeyHolder;
use crate::limits::{Full, Place};

/// The buffer of a connection until it is a WebSocket; the least that hyper takes.
const BUFFER: usize = 8192;
/// How long a request's head may take, and how long a connection may do nothing.
const HEAD: Duration = Duration::from_secs(10);
/// How many connections are told at once that there is no place.
const REFUSALS: usize = 64;
/// How long telling may take.
const REFUSAL: Duration = Duration::from_secs(2);

/// Who is at the other end of a request, and the place that the connection has.
#[derive(Clone)]
struct Visitor {
    peer: IpAddr,
    place: Arc<Place>,
}

/// Serves until the desk is told to stop, then lets what must be finished finish, for at most
/// `grace`.
///
/// # Errors
/// The listener fails for good.
pub async fn serve<K: KeyHolder>(
    listener: TcpListener,
    desk: Arc<Desk<K>>,
    grace: Duration,
) -> std::io::Result<()> {
    let tasks = TaskTracker::new();
    let refusals = TaskTracker::new();
    let routes = doors::routes(desk.clone(), tasks.clone());
    info!(address = %listener.local_addr()?, node = desk.node, "open");
    loop {
        let accepted = tokio::select! {
            () = desk.stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // No more file descriptors, most likely: they come back.
                warn!(%error, "accepting");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Small messages that wait for each other: never hold one back.
        let _ = stream.set_nodelay(true);
        match desk.places.enter(peer.ip()) {
            Ok(place) => {
                let visitor = Visitor {
                    peer: peer.ip(),
                    place: Arc::new(place),
                };
                tasks.spawn(connection(
                    Prompt::new(stream, desk.patience.message),
                    peer,
                    routes.clone(),
                    visitor,
                    desk.stop.clone(),
                ));
            }
            Err(full) if refusals.len() < REFUSALS => {
                desk.metrics.ended(&full);
                refusals.spawn(tokio::time::timeout(REFUSAL, turn_away(stream, full)));
            }
            Err(full) => desk.metrics.ended(&full),
        }
    }
    drop(listener);
    tasks.close();
    info!(connections = tasks.len(), "stopping");
    if tokio::time::timeout(grace, tasks.wait()).await.is_err() {
        // What is uncertain stays reserved: the next tap settles it.
        warn!(connections = tasks.len(), "given up");
    }
    info!("stopped");
    Ok(())
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BUFFER);
    builder
}

async fn connection(
    stream: Prompt<TcpStream>,
    peer: SocketAddr,
    routes: Router,
    visitor: Visitor,
    stop: CancellationToken,
) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(visitor.clone());
        routes.clone().call(request)
    });
    let connection = builder()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "connection");
    }
}

/// Says that there is no place.
async fn turn_away(stream: TcpStream, full: Full) {
    let service = service_fn(move |_| async move { Ok::<_, Infallible>(no_place(full)) });
    // Whether it was heard is the visitor's business.
    let _ = builder()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn no_place(full: Full) -> Response {
    let (status, text) = match full {
        Full::Server => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the server is full; try again later\n",
        ),
        Full::Address => (
            StatusCode::TOO_MANY_REQUESTS,
            "too many connections from your address; try again later\n",
        ),
    };
    let mut response = (status, text).into_response();
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    response
}
