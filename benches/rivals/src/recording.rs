//! Recorded sessions of `tests/vectors/full_session.txt`, as native frames.

use std::error::Error;

/// A command and its reply.
pub type Exchange = (Vec<u8>, Vec<u8>);

const SESSIONS: &str = include_str!("../../../tests/vectors/full_session.txt");

fn bytes(digits: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let digit = |digit: &u8| {
        char::from(*digit)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let pairs = digits.as_bytes().chunks(2).map(|pair| match pair {
        [a, b] => Some(digit(a)? << 4 | digit(b)?),
        _ => None,
    });
    let bytes: Option<Vec<u8>> = pairs.collect();
    bytes.ok_or_else(|| format!("not hexadecimal: {digits}").into())
}

/// The exchanges of a session from its last authentication on.
pub fn session(name: &str) -> Result<Vec<Exchange>, Box<dyn Error>> {
    let heading = format!("vector full_session {name}\n");
    let (_, text) = SESSIONS.split_once(&heading).ok_or("no such session")?;
    let text = text.split("\n\n").next().unwrap_or_default();
    let (_, text) = text.rsplit_once("step auth ").ok_or("no authentication")?;
    let mut exchanges: Vec<Exchange> = Vec::new();
    for line in text.lines() {
        match line.trim().split_once(' ') {
            Some((">", sent)) => exchanges.push((bytes(sent)?, Vec::new())),
            Some(("<", reply)) => {
                exchanges.last_mut().ok_or("a reply without command")?.1 = bytes(reply)?;
            }
            _ => {}
        }
    }
    Ok(exchanges)
}

/// Where a command is first sent.
pub fn position(exchanges: &[Exchange], start: &[u8]) -> Result<usize, Box<dyn Error>> {
    let position = exchanges
        .iter()
        .position(|(sent, _)| sent.starts_with(start));
    position.ok_or_else(|| format!("{start:02x?} was not recorded").into())
}

/// The same commands in frames of so many parameter bytes. How a long command is cut is the sender's choice; the bytes
/// without the frames' `AF` are the recorded ones.
pub fn cut_anew(exchanges: &[Exchange], capacity: usize) -> Vec<Exchange> {
    let mut anew: Vec<Exchange> = Vec::new();
    let mut rest = exchanges.iter().peekable();
    while let Some((sent, reply)) = rest.next() {
        let (mut sent, mut reply) = (sent.clone(), reply);
        // The card asks for more: what follows belongs to the same command.
        while sent.first() == Some(&0x3D) && reply.as_slice() == [0xAF] {
            let Some((more, next)) = rest.next() else {
                break;
            };
            sent.extend(more.iter().skip(1));
            reply = next;
        }
        let (first, later) = sent.split_at(sent.len().min(1 + capacity));
        let mut frames = vec![first.to_vec()];
        frames.extend(later.chunks(capacity).map(|part| [&[0xAF], part].concat()));
        let last = frames.len() - 1;
        anew.extend(frames.into_iter().enumerate().map(|(index, frame)| {
            let reply = if index == last {
                reply.clone()
            } else {
                vec![0xAF]
            };
            (frame, reply)
        }));
    }
    anew
}
