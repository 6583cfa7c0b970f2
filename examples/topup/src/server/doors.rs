//! The routes: two doors for phones, and what else a server shows.
//!
//! | | |
//! |---|---|
//! | `GET /v1/ws` | WebSocket: every message is one binary frame |
//! | `POST /v1/converse` | HTTP: Hello in, the server's first message out, its conversation in the head `topup-conversation` |
//! | `POST /v1/converse/{id}` | the phone's next message in, the server's next out when there is one |
//! | `GET /` | the web page |
//! | `POST /v1/watch` | a ticket for watching the account whose token is in `Authorization: Bearer` |
//! | `GET /v1/events/{ticket}` | what happens, as server-sent events |
//! | `GET /health`, `GET /metrics` | for whoever runs it |

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::TaskTracker;

use super::Visitor;
use super::page::PAGE;
use crate::desk::Desk;
use crate::keys::KeyHolder;
use crate::ledger::{FindAccount, fingerprint};
use crate::link::{Gone, Pipe};
use crate::message::{MAX_MESSAGE, MAX_TOKEN};

/// The head that names a conversation over HTTP.
pub(super) const CONVERSATION: HeaderName = HeaderName::from_static("topup-conversation");
/// A WebSocket's buffers: messages are short.
const SOCKET_BUFFER: usize = 512;
/// How long an event stream goes on; a page that is still open asks for another.
const WATCHING: Duration = Duration::from_secs(600);
/// How often an event stream shows that it is alive.
const ALIVE: Duration = Duration::from_secs(15);

struct Doors<K> {
    desk: Arc<Desk<K>>,
    tasks: TaskTracker,
    polled: Arc<Polled>,
}

impl<K> Clone for Doors<K> {
    fn clone(&self) -> Self {
        Self {
            desk: self.desk.clone(),
            tasks: self.tasks.clone(),
            polled: self.polled.clone(),
        }
    }
}

pub(super) fn routes<K: KeyHolder>(desk: Arc<Desk<K>>, tasks: TaskTracker) -> Router {
    Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route("/health", get(health::<K>))
        .route("/metrics", get(metrics::<K>))
        .route("/v1/ws", get(socket::<K>))
        .route("/v1/converse", post(begin::<K>))
        .route("/v1/converse/{id}", post(go_on::<K>))
        .route("/v1/watch", post(watch::<K>))
        .route("/v1/events/{ticket}", get(events::<K>))
        .with_state(Doors {
            desk,
            tasks,
            polled: Arc::default(),
        })
}

async fn health<K: KeyHolder>(State(doors): State<Doors<K>>) -> (StatusCode, &'static str) {
    if doors.desk.stop.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    // Any question will do; this one is cheap.
    let ask = FindAccount { token: [0; 32] };
    if doors.desk.ledger.perform(ask).await.is_err() {
        let text = "the books cannot be reached\n";
        return (StatusCode::SERVICE_UNAVAILABLE, text);
    }
    if doors.desk.keys.check().await.is_err() {
        let text = "the key holder does not work\n";
        return (StatusCode::SERVICE_UNAVAILABLE, text);
    }
    (StatusCode::OK, "ok\n")
}

async fn metrics<K: KeyHolder>(State(doors): State<Doors<K>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = doors.desk.metrics.text();
    (
        [(header::CONTENT_TYPE, HeaderValue::from_static(kind))],
        text,
    )
        .into_response()
}

async fn socket<K: KeyHolder>(
    State(doors): State<Doors<K>>,
    Extension(visitor): Extension<Visitor>,
    upgrade: WebSocketUpgrade,
) -> Response {
    if doors.desk.stop.is_cancelled() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    // The server waits for it when it stops.
    let counted = doors.tasks.token();
    let in_bounds = upgrade
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .read_buffer_size(SOCKET_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_MESSAGE);
    in_bounds.on_upgrade(move |socket| {
        let pipe = Socket(Box::new(socket));
        // In a box as well, and not in the future that has made the socket: that one is large.
        Box::pin(async move {
            doors.desk.serve(pipe, visitor.peer).await;
            drop((visitor.place, counted));
        })
    })
}

/// In a box: a future keeps a copy of what is moved through it at every level.
struct Socket(Box<WebSocket>);

impl Pipe for Socket {
    async fn send(&mut self, message: Vec<u8>) -> Result<(), Gone> {
        let message = Message::Binary(message.into());
        self.0.send(message).await.map_err(|_| Gone)
    }

    async fn receive(&mut self) -> Result<Vec<u8>, Gone> {
        loop {
            match self.0.recv().await {
                Some(Ok(Message::Binary(bytes))) => return Ok(bytes.into()),
                // Signs of life.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => return Err(Gone),
            }
        }
    }
}

/// Conversations over HTTP, by their random names.
#[derive(Default)]
struct Polled(Mutex<HashMap<String, Poll>>);

#[derive(Clone)]
struct Poll {
    to_desk: mpsc::Sender<Vec<u8>>,
    from_desk: Arc<tokio::sync::Mutex<mpsc::Receiver<Vec<u8>>>>,
}

impl Polled {
    fn with<R>(&self, act: impl FnOnce(&mut HashMap<String, Poll>) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Poll {
    /// Waits for what the desk says next.
    async fn answer(&self, name: Option<&str>) -> Response {
        let message = self.from_desk.lock().await.recv().await;
        let Some(message) = message else {
            return StatusCode::GONE.into_response();
        };
        let kind = HeaderValue::from_static("application/octet-stream");
        let mut response = ([(header::CONTENT_TYPE, kind)], message).into_response();
        if let Some(name) = name.and_then(|name| HeaderValue::from_str(name).ok()) {
            response.headers_mut().insert(CONVERSATION, name);
        }
        response
    }
}

struct PollPipe {
    from_phone: mpsc::Receiver<Vec<u8>>,
    to_phone: mpsc::Sender<Vec<u8>>,
}

impl Pipe for PollPipe {
    async fn send(&mut self, message: Vec<u8>) -> Result<(), Gone> {
        self.to_phone.send(message).await.map_err(|_| Gone)
    }

    async fn receive(&mut self) -> Result<Vec<u8>, Gone> {
        self.from_phone.recv().await.ok_or(Gone)
    }
}

/// A whole body, within the bounds of size and time.
async fn message(body: Body, within: Duration) -> Result<Vec<u8>, StatusCode> {
    match tokio::time::timeout(within, to_bytes(body, MAX_MESSAGE)).await {
        Ok(Ok(bytes)) => Ok(bytes.into()),
        Ok(Err(_)) => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

async fn begin<K: KeyHolder>(
    State(doors): State<Doors<K>>,
    Extension(visitor): Extension<Visitor>,
    body: Body,
) -> Response {
    if doors.desk.stop.is_cancelled() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let hello = match message(body, doors.desk.patience.message).await {
        Ok(hello) => hello,
        Err(status) => return status.into_response(),
    };
    let Some(name) = random_name() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let (to_desk, from_phone) = mpsc::channel(1);
    let (to_phone, from_desk) = mpsc::channel(1);
    // There is room for one.
    let _ = to_desk.try_send(hello);
    let poll = Poll {
        to_desk,
        from_desk: Arc::new(tokio::sync::Mutex::new(from_desk)),
    };
    doors
        .polled
        .with(|polled| polled.insert(name.clone(), poll.clone()));
    let (desk, polled, own_name) = (doors.desk, doors.polled, name.clone());
    doors.tasks.spawn(async move {
        let pipe = PollPipe {
            from_phone,
            to_phone,
        };
        desk.serve(pipe, visitor.peer).await;
        polled.with(|polled| polled.remove(&own_name));
        drop(visitor.place);
    });
    poll.answer(Some(&name)).await
}

async fn go_on<K: KeyHolder>(
    State(doors): State<Doors<K>>,
    Path(name): Path<String>,
    body: Body,
) -> Response {
    let Some(poll) = doors.polled.with(|polled| polled.get(&name).cloned()) else {
        return StatusCode::GONE.into_response();
    };
    match message(body, doors.desk.patience.message).await {
        // One message at a time: a repeated request does not repeat anything.
        Ok(message) => match poll.to_desk.try_send(message) {
            Ok(()) => poll.answer(None).await,
            Err(_) => StatusCode::CONFLICT.into_response(),
        },
        Err(status) => status.into_response(),
    }
}

/// 128 random bits.
fn random_name() -> Option<String> {
    let mut name = [0; 16];
    getrandom::fill(&mut name).ok()?;
    Some(name.iter().map(|byte| format!("{byte:02x}")).collect())
}

async fn watch<K: KeyHolder>(State(doors): State<Doors<K>>, headers: HeaderMap) -> Response {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let Some(token) = token.filter(|token| token.len() <= MAX_TOKEN) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let token = fingerprint(token);
    let account = match doors.desk.ledger.perform(FindAccount { token }).await {
        Ok(Some(account)) => account,
        Ok(None) => return StatusCode::UNAUTHORIZED.into_response(),
        Err(_) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
    };
    match random_name() {
        Some(ticket) if doors.desk.events.issue_ticket(ticket.clone(), &account) => {
            ticket.into_response()
        }
        _ => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn events<K: KeyHolder>(
    State(doors): State<Doors<K>>,
    Extension(visitor): Extension<Visitor>,
    Path(ticket): Path<String>,
) -> Response {
    let Some(watcher) = doors.desk.events.take_ticket(&ticket) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let watched = doors.desk.events.watch();
    let stop = doors.desk.stop.clone();
    let until = Instant::now() + WATCHING;
    let state = (watched, watcher, stop, visitor);
    let happening = stream::unfold(
        state,
        move |(mut watched, watcher, stop, visitor)| async move {
            loop {
                let event = tokio::select! {
                    () = stop.cancelled() => return None,
                    () = sleep_until(until) => return None,
                    event = watched.recv() => event,
                };
                match event {
                    Ok(event) if event.account == watcher.account => {
                        let json = serde_json::to_string(&event.what).ok()?;
                        let shown = Ok::<_, Infallible>(Event::default().data(json));
                        return Some((shown, (watched, watcher, stop, visitor)));
                    }
                    // Somebody else's, or missed.
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        },
    );
    Sse::new(happening)
        .keep_alive(KeepAlive::new().interval(ALIVE))
        .into_response()
}
