//! HTTP to the service over one kept connection, counted to the byte.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{HOST, LOCATION};
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The longest answer: a script, and room to spare.
const MAX_ANSWER: usize = 4096;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody there, or the connection broke.
    #[error("the service cannot be reached: {0}")]
    Unreachable(String),
    /// It took too long.
    #[error("the service did not answer in time; take the card and try again")]
    TooLate,
    /// It does not want to.
    #[error("{0}")]
    Refused(Refused),
    /// It is no answer of this service.
    #[error("the service gave an answer that makes no sense")]
    Nonsense,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the service refuses: {text}")]
pub struct Refused {
    /// The HTTP status.
    pub status: u16,
    /// A word for programs.
    pub word: String,
    /// A sentence for people.
    pub text: String,
}

impl ClientError {
    /// Whether asking once more is no use.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Refused(refused) if refused.status < 500)
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The body.
    pub body: Vec<u8>,
    /// The name of the tap, if it goes on.
    pub location: Option<String>,
    /// What the service says of the tap's end.
    pub verdict: Option<String>,
}

impl Reply {
    /// Where this tap's next message goes.
    ///
    /// # Errors
    /// [`ClientError::Nonsense`] if the answer names no tap.
    pub fn tap_path(&self, what: &str) -> Result<String, ClientError> {
        let location = self.location.as_deref().ok_or(ClientError::Nonsense)?;
        Ok(format!("{location}/{what}"))
    }
}

/// A terminal's connection to the service.
pub struct Client {
    address: SocketAddr,
    connection: Option<SendRequest<Full<Bytes>>>,
    pub(super) patience: Duration,
    pub(super) delay: Duration,
    bytes: Arc<AtomicU64>,
    messages: u64,
    calls: usize,
}

impl Client {
    /// To the service at this address; it is not asked yet. A call may take two seconds: more than the half
    /// that the service gives its key holder, less than the five after which Windows resets a card of which
    /// nothing has been asked (`PcscCard::IDLE_LIMIT`).
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connection: None,
            patience: Duration::from_secs(2),
            delay: Duration::ZERO,
            bytes: Arc::default(),
            messages: 0,
            calls: 0,
        }
    }

    pub(super) fn restart_counting(&mut self) {
        self.bytes.store(0, Ordering::Relaxed);
        self.messages = 0;
        self.calls = 0;
    }

    pub(super) fn counted(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.messages)
    }

    pub(super) const fn calls(&self) -> usize {
        self.calls
    }

    /// Sends a message and waits for the answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post(&mut self, path: &str, message: &[u8]) -> Result<Reply, ClientError> {
        self.call("POST", path, message).await
    }

    /// Looks at a page.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get(&mut self, path: &str) -> Result<String, ClientError> {
        let reply = self.call("GET", path, &[]).await?;
        String::from_utf8(reply.body).map_err(|_| ClientError::Nonsense)
    }

    async fn call(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Reply, ClientError> {
        self.calls += 1;
        let answer = tokio::time::timeout(self.patience, self.exchange(method, path, body)).await;
        let answer = answer.unwrap_or(Err(ClientError::TooLate));
        if !matches!(answer, Ok(_) | Err(ClientError::Refused(_))) {
            // An answer that comes late must not be taken for that to the next question.
            self.connection = None;
        }
        answer
    }

    async fn exchange(
        &mut self,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<Reply, ClientError> {
        let broken = |error: hyper::Error| ClientError::Unreachable(error.to_string());
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.address.to_string())
            .body(Full::new(Bytes::copy_from_slice(body)))
            .map_err(|_| ClientError::Nonsense)?;
        self.messages += u64::try_from(body.len()).unwrap_or(u64::MAX);
        let response = self.connected().await?.send_request(request).await;
        let (parts, body) = response.map_err(broken)?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|_| ClientError::Nonsense)?.to_bytes().to_vec();
        self.messages += u64::try_from(body.len()).unwrap_or(u64::MAX);
        if !parts.status.is_success() {
            return Err(ClientError::Refused(Refused {
                status: parts.status.as_u16(),
                word: text(&parts.headers, "voucher-error").unwrap_or_default(),
                text: String::from_utf8_lossy(&body)
                    .trim_end()
                    .escape_debug()
                    .to_string(),
            }));
        }
        Ok(Reply {
            body,
            location: text(&parts.headers, LOCATION.as_str()),
            verdict: text(&parts.headers, "voucher-verdict"),
        })
    }

    /// The connection, made anew if it broke.
    async fn connected(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, ClientError> {
        let alive = match &mut self.connection {
            Some(connection) => connection.ready().await.is_ok(),
            None => false,
        };
        if !alive {
            let unreachable =
                |error: &dyn std::fmt::Display| ClientError::Unreachable(error.to_string());
            let stream = TcpStream::connect(self.address).await;
            let stream = stream.map_err(|error| unreachable(&error))?;
            stream
                .set_nodelay(true)
                .map_err(|error| unreachable(&error))?;
            let stream = TokioIo::new(Counting {
                stream,
                bytes: Arc::clone(&self.bytes),
            });
            let (sender, connection) = hyper::client::conn::http1::handshake(stream)
                .await
                .map_err(|error| unreachable(&error))?;
            tokio::spawn(connection);
            self.connection = Some(sender);
        }
        self.connection.as_mut().ok_or(ClientError::Nonsense)
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// A socket that counts.
struct Counting {
    stream: TcpStream,
    bytes: Arc<AtomicU64>,
}

impl Counting {
    fn count(&self, len: usize) {
        let len = u64::try_from(len).unwrap_or(u64::MAX);
        self.bytes.fetch_add(len, Ordering::Relaxed);
    }
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.count(buffer.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(len)) = polled {
            self.count(len);
        }
        polled
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
