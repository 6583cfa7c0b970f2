//! The phone's ways to the server: WebSocket, and HTTP where that does not get through.
//!
//! For: one message out, one message in. May know: network libraries. May not know: what is in the
//! messages.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::message::MAX_MESSAGE;

/// What can be wrong with the way to the server.
#[derive(Debug, thiserror::Error)]
pub enum WireTrouble {
    /// No way there, or no way any more.
    #[error("the connection to the server is lost: {0}")]
    Lost(String),
    /// The server is full; worth trying again after so many seconds.
    #[error("the server is full; trying again in {0} s")]
    Full(u64),
    /// The server did not answer in time.
    #[error("the server does not answer")]
    Slow,
}

/// A conversation's connection.
pub trait Wire: Send {
    /// Sends a message and waits for the answer.
    ///
    /// # Errors
    /// [`WireTrouble`]: the message may have arrived. The wire is of no further use.
    fn exchange(
        &mut self,
        message: Vec<u8>,
    ) -> impl Future<Output = Result<Vec<u8>, WireTrouble>> + Send;
}

/// Either of the two.
pub enum AnyWire {
    /// WebSocket.
    Socket(Box<SocketWire>),
    /// HTTP.
    Http(HttpWire),
}

/// A WebSocket, each message one frame.
pub struct SocketWire(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// HTTP requests, each of which brings back the server's next message.
pub struct HttpWire {
    client: reqwest::Client,
    server: String,
    conversation: Option<String>,
}

fn lost(error: impl std::fmt::Display) -> WireTrouble {
    WireTrouble::Lost(error.to_string())
}

fn full(status: u16, retry_after: Option<&str>) -> Option<WireTrouble> {
    matches!(status, 429 | 503).then(|| {
        let seconds = retry_after.and_then(|value| value.parse().ok());
        WireTrouble::Full(seconds.unwrap_or(2))
    })
}

impl SocketWire {
    /// Connects to `server`, which is `host:port`.
    ///
    /// # Errors
    /// [`WireTrouble`].
    pub async fn connect(server: &str) -> Result<Self, WireTrouble> {
        let bounds = WebSocketConfig::default()
            .read_buffer_size(1024)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let url = format!("ws://{server}/v1/ws");
        let connected = tokio_tungstenite::connect_async_with_config(url, Some(bounds), true);
        match connected.await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(tungstenite::Error::Http(response)) => {
                let after = response.headers().get("retry-after");
                let after = after.and_then(|value| value.to_str().ok());
                let status = response.status();
                Err(full(status.as_u16(), after).unwrap_or_else(|| lost(status)))
            }
            Err(error) => Err(lost(error)),
        }
    }
}

impl Wire for SocketWire {
    async fn exchange(&mut self, message: Vec<u8>) -> Result<Vec<u8>, WireTrouble> {
        let message = Message::Binary(message.into());
        self.0.send(message).await.map_err(lost)?;
        loop {
            match self.0.next().await {
                Some(Ok(Message::Binary(bytes))) => return Ok(bytes.into()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(_)) => return Err(lost("the server has closed it")),
                Some(Err(error)) => return Err(lost(error)),
                None => return Err(lost("the server has closed it")),
            }
        }
    }
}

impl HttpWire {
    /// For one conversation with `server`, which is `host:port`.
    #[must_use]
    pub fn new(client: reqwest::Client, server: &str) -> Self {
        Self {
            client,
            server: server.to_owned(),
            conversation: None,
        }
    }
}

impl Wire for HttpWire {
    async fn exchange(&mut self, message: Vec<u8>) -> Result<Vec<u8>, WireTrouble> {
        let url = match &self.conversation {
            None => format!("http://{}/v1/converse", self.server),
            Some(name) => format!("http://{}/v1/converse/{name}", self.server),
        };
        let response = self.client.post(url).body(message).send();
        let mut response = response.await.map_err(lost)?;
        let head = |name| response.headers().get(name)?.to_str().ok();
        let status = response.status();
        if let Some(full) = full(status.as_u16(), head("retry-after")) {
            return Err(full);
        }
        if !status.is_success() {
            return Err(lost(status));
        }
        if self.conversation.is_none() {
            self.conversation = head("topup-conversation").map(ToOwned::to_owned);
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_MESSAGE {
                return Err(lost("the server's message is too long"));
            }
        }
        Ok(bytes)
    }
}

impl Wire for AnyWire {
    async fn exchange(&mut self, message: Vec<u8>) -> Result<Vec<u8>, WireTrouble> {
        match self {
            Self::Socket(socket) => socket.exchange(message).await,
            Self::Http(http) => http.exchange(message).await,
        }
    }
}

/// A wire with a network's delay in front of it: for measuring.
pub struct Delayed<W> {
    wire: W,
    round_trip: Duration,
}

impl<W> Delayed<W> {
    /// Half of `round_trip` each way.
    pub const fn new(wire: W, round_trip: Duration) -> Self {
        Self { wire, round_trip }
    }
}

impl<W: Wire> Wire for Delayed<W> {
    async fn exchange(&mut self, message: Vec<u8>) -> Result<Vec<u8>, WireTrouble> {
        tokio::time::sleep(self.round_trip / 2).await;
        let answer = self.wire.exchange(message).await;
        tokio::time::sleep(self.round_trip / 2).await;
        answer
    }
}
