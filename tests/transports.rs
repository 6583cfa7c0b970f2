//! Wrappers of transports: what passes through them is what was sent, and what they change arrives changed.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test is allowed to fail loudly"
)]

use desfire_ev1::{AsyncTransport, Faulty, Link, LinkFormat, Passing, Traced, Transport};

/// Answers each command with its bytes in reverse, and nothing but `FF` not at all.
#[derive(Debug, Default)]
struct Mirror {
    heard: Vec<Vec<u8>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Mute;

impl std::fmt::Display for Mute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("mute")
    }
}

impl std::error::Error for Mute {}

impl Link for Mirror {
    type Error = Mute;

    fn format(&self) -> LinkFormat {
        LinkFormat {
            max_command: 33,
            ..LinkFormat::NATIVE
        }
    }
}

impl Transport for Mirror {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Mute> {
        self.heard.push(command.to_vec());
        if command == [0xFF] {
            return Err(Mute);
        }
        let room = reply.iter_mut().zip(command.iter().rev());
        room.for_each(|(to, from)| *to = *from);
        Ok(command.len())
    }
}

impl AsyncTransport for Mirror {
    async fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Mute> {
        Transport::exchange(self, command, reply)
    }
}

/// One exchange over anything, blocking and async.
fn both<T: Transport<Error = Mute> + AsyncTransport<Error = Mute>>(
    transport: &mut T,
    command: &[u8],
    expected: Result<&[u8], Mute>,
) {
    assert_eq!(transport.format().max_command, 33);
    let mut reply = [0; 64];
    let len = Transport::exchange(transport, command, &mut reply);
    assert_eq!(len.map(|len| &reply[..len]), expected);
    let mut reply = [0; 64];
    let len = pollster::block_on(AsyncTransport::exchange(transport, command, &mut reply));
    assert_eq!(len.map(|len| &reply[..len]), expected);
}

#[test]
fn by_reference_and_in_a_box() {
    let mut mirror = Mirror::default();
    both(&mut &mut mirror, &[1, 2, 3], Ok(&[3, 2, 1]));
    both(&mut Box::new(mirror), &[1, 2, 3], Ok(&[3, 2, 1]));
}

#[test]
fn traced() {
    let mut seen = Vec::new();
    let show = |command: &[u8], reply: &[u8]| seen.push((command.to_vec(), reply.to_vec()));
    let mut traced = Traced::new(Mirror::default(), show);
    both(&mut traced, &[1, 2, 3], Ok(&[3, 2, 1]));
    // What fails is not shown, but has been sent.
    both(&mut traced, &[0xFF], Err(Mute));
    assert_eq!(traced.get_mut().heard.len(), 4);
    let exchange = (vec![1, 2, 3], vec![3, 2, 1]);
    assert_eq!(seen, [exchange.clone(), exchange]);
}

#[test]
fn faulty() {
    let mut passed = Vec::new();
    let mut faulty = Faulty::new(Mirror::default(), |passing| match passing {
        Passing::Command { exchange, bytes } => {
            passed.push((exchange, bytes.to_vec()));
            bytes[0] ^= 0x80;
        }
        Passing::Reply {
            exchange,
            bytes,
            len,
        } => {
            passed.push((exchange, bytes[..*len].to_vec()));
            bytes[1] = 0x55;
            // More than there is room for is cut.
            *len = if exchange < 3 { *len - 1 } else { 1000 };
        }
    });
    both(&mut faulty, &[1, 2, 3], Ok(&[3, 0x55]));
    both(&mut faulty, &[0x7F], Err(Mute));
    let mut reply = [0; 64];
    let len = Transport::exchange(&mut faulty, &[4, 5], &mut reply).unwrap();
    assert_eq!((len, &reply[..2]), (64, &[5, 0x55][..]));
    let heard = &faulty.get_mut().heard;
    let changed: &[&[u8]] = &[&[0x81, 2, 3], &[0x81, 2, 3], &[0xFF], &[0xFF], &[0x84, 5]];
    assert_eq!(heard[..], *changed);
    let (command, reply) = (vec![1, 2, 3], vec![3, 2, 0x81]);
    let expected = [
        (1, command.clone()),
        (1, reply.clone()),
        (2, command),
        (2, reply),
        (3, vec![0x7F]),
        (4, vec![0x7F]),
        (5, vec![4, 5]),
        (5, vec![5, 0x84]),
    ];
    assert_eq!(passed, expected);
}
