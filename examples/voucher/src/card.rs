//! The card: the software card behind a socket, or one on a reader.
//!
//! On the socket every frame has its length before it, two bytes, most significant first; an answer
//! of length zero is a card that does not answer. A connection is the field: when it ends, the card
//! has left it and forgets its session.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use desfire_ev1::picc::Card;
use desfire_ev1::{CardMute, Link, LinkFormat, Transport};

/// The longest answer of a short APDU.
const MAX_FRAME: usize = 258;

/// A software card that can be reached over a socket. It ends with this value.
pub struct CardSocket {
    address: SocketAddr,
    card: Arc<Mutex<Card>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl CardSocket {
    /// Lays a card onto a socket of this machine.
    ///
    /// # Errors
    /// There is no free port.
    pub fn new(card: Card) -> std::io::Result<Self> {
        Self::at(card, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Lays a card onto this address; port 0 takes any free one.
    ///
    /// # Errors
    /// The address is taken.
    pub fn at(card: Card, address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let card = Arc::new(Mutex::new(card));
        let over = Arc::new(AtomicBool::new(false));
        let (its_card, its_end) = (Arc::clone(&card), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if its_end.load(Ordering::Acquire) {
                    return;
                }
                // One terminal at a time: there is one card. What goes wrong is a card that left.
                if let Ok(stream) = stream {
                    let _ = in_the_field(stream, &its_card);
                }
            }
        });
        Ok(Self {
            address,
            card,
            over,
            thread: Some(thread),
        })
    }

    /// Where it is.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Looks at the card, or gives it a fault.
    pub fn with<O>(&self, look: impl FnOnce(&mut Card) -> O) -> O {
        look(&mut self.card.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for CardSocket {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Wakes it up.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn in_the_field(mut stream: TcpStream, card: &Mutex<Card>) -> std::io::Result<()> {
    let card = || card.lock().unwrap_or_else(PoisonError::into_inner);
    stream.set_nodelay(true)?;
    // A terminal that says nothing for so long is gone.
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let _ = card().activate();
    let mut frame = Vec::new();
    let ended = loop {
        if let Err(error) = read_frame(&mut stream, &mut frame) {
            break error;
        }
        let answer = card().handle(&frame);
        if let Err(error) = write_frame(&mut stream, &answer) {
            break error;
        }
    };
    card().field_off();
    Err(ended)
}

fn read_frame(stream: &mut TcpStream, frame: &mut Vec<u8>) -> std::io::Result<()> {
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let len = usize::from(u16::from_be_bytes(len));
    if len > MAX_FRAME {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    frame.resize(len, 0);
    stream.read_exact(frame)
}

fn write_frame(stream: &mut TcpStream, frame: &[u8]) -> std::io::Result<()> {
    let len = u16::try_from(frame.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    let mut all = Vec::with_capacity(2 + frame.len());
    all.extend_from_slice(&len.to_be_bytes());
    all.extend_from_slice(frame);
    stream.write_all(&all)
}

/// Why the card cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It has left the field.
    #[error(transparent)]
    Mute(#[from] CardMute),
    /// The socket.
    #[error("{0}")]
    Socket(#[from] std::io::Error),
}

/// The terminal's end of a [`CardSocket`].
pub struct CardLink {
    stream: TcpStream,
    frame: Vec<u8>,
}

impl CardLink {
    /// Brings the card into the field.
    ///
    /// # Errors
    /// There is none at that address.
    pub fn connect(address: SocketAddr) -> Result<Self, LinkError> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self {
            stream,
            frame: Vec::with_capacity(MAX_FRAME),
        })
    }
}

impl Link for CardLink {
    type Error = LinkError;

    fn format(&self) -> LinkFormat {
        LinkFormat::WRAPPED
    }
}

impl Transport for CardLink {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, LinkError> {
        write_frame(&mut self.stream, command)?;
        read_frame(&mut self.stream, &mut self.frame)?;
        let room = reply.get_mut(..self.frame.len()).ok_or(CardMute)?;
        if self.frame.is_empty() {
            return Err(CardMute.into());
        }
        room.copy_from_slice(&self.frame);
        Ok(self.frame.len())
    }
}

/// A link that counts.
pub struct Counted<'t, T: ?Sized> {
    inner: &'t mut T,
    /// Exchanges with the card.
    pub exchanges: usize,
    /// Bytes to it and from it.
    pub bytes: usize,
}

impl<'t, T: ?Sized> Counted<'t, T> {
    /// Nothing so far.
    pub const fn new(inner: &'t mut T) -> Self {
        Self {
            inner,
            exchanges: 0,
            bytes: 0,
        }
    }
}

impl<T: Link + ?Sized> Link for Counted<'_, T> {
    type Error = T::Error;

    fn format(&self) -> LinkFormat {
        self.inner.format()
    }
}

impl<T: Transport + ?Sized> Transport for Counted<'_, T> {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, T::Error> {
        self.exchanges += 1;
        self.bytes += command.len();
        let len = self.inner.exchange(command, reply)?;
        self.bytes += len;
        Ok(len)
    }
}
