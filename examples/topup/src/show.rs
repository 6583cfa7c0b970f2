//! A conversation as a person likes to see it, from the phone's side.

use std::fmt::Write as _;

use desfire_ev1::wire::{CommandCode, CommandFrame, Framing, ReplyFrame};

use crate::message::{Ending, Finished, FromPhone, FromServer};
use crate::phone::Seen;

/// An amount in units and hundredths.
#[must_use]
pub fn money(amount: i32) -> String {
    let sign = if amount < 0 { "-" } else { "" };
    let amount = amount.unsigned_abs();
    format!("{sign}{}.{:02}", amount / 100, amount % 100)
}

/// How a conversation ended, in a sentence.
#[must_use]
pub fn ending(finished: &Finished) -> String {
    let balance = money(finished.balance);
    let amount = money(finished.amount);
    match finished.ending {
        Ending::Balance => format!("The card holds {balance}."),
        Ending::Credited => format!("{amount} are on the card; it holds {balance} now."),
        Ending::AlreadyCredited => {
            format!("{amount} had come onto the card before; it holds {balance}.")
        }
    }
}

/// The lines for something that was seen.
#[must_use]
pub fn lines(seen: &Seen<'_>) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = match seen {
        Seen::Begins { attempt: 1, uid } => writeln!(text, "card {uid}"),
        Seen::Begins { attempt, uid } => writeln!(text, "card {uid}, try {attempt}"),
        Seen::Says(message, len) => {
            let what = match message {
                FromPhone::Hello(hello) if hello.opening.is_empty() => "hello".to_owned(),
                FromPhone::Hello(_) => "hello, with the card's challenge".to_owned(),
                FromPhone::Played { replies, end, .. } => {
                    format!("{}, {end:?}", count(replies.len(), "reply", "replies"))
                }
            };
            writeln!(text, "phone  -> server   {what}  ({len} bytes)")
        }
        Seen::Hears(message, len) => {
            let what = match message {
                FromServer::Play { steps, .. } => {
                    format!("play {}", count(steps.len(), "frame", "frames"))
                }
                FromServer::Finished(finished) => ending(finished),
                FromServer::Refused { reason, .. } => format!("refused: {reason}"),
            };
            writeln!(text, "phone <-  server   {what}  ({len} bytes)")
        }
        Seen::Exchange {
            frame,
            reply,
            framing,
        } => {
            let name = name(*framing, frame);
            match reply {
                None => writeln!(text, "    {name:<22} no answer"),
                Some(reply) => writeln!(
                    text,
                    "    {name:<22} > {}\n    {:<22} < {}",
                    hex(frame),
                    status(*framing, reply),
                    hex(reply)
                ),
            }
        }
        Seen::StartsOver(error) => writeln!(text, "starting over: {error}"),
    };
    text
}

fn count(number: usize, one: &str, more: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        number => format!("{number} {more}"),
    }
}

fn name(framing: Framing, frame: &[u8]) -> String {
    match CommandFrame::parse(framing, frame) {
        Ok(frame) if frame.code == CommandCode::AdditionalFrame => "(continued)".to_owned(),
        Ok(frame) => frame.code.to_string(),
        Err(_) => "?".to_owned(),
    }
}

fn status(framing: Framing, reply: &[u8]) -> String {
    match ReplyFrame::parse(framing, reply) {
        Ok(reply) => reply.status.to_string(),
        Err(_) => "?".to_owned(),
    }
}

/// Bytes as pairs of digits, a long run cut.
fn hex(bytes: &[u8]) -> String {
    let mut text: String = bytes
        .iter()
        .take(24)
        .map(|byte| format!("{byte:02X} "))
        .collect();
    if bytes.len() > 24 {
        let _ = write!(text, "… ({} bytes)", bytes.len());
    }
    text.trim_end().to_owned()
}

/// A moment in milliseconds since 1970, for people.
#[must_use]
pub fn moment(ms: i64) -> String {
    // The last moment that a date of four digits can tell.
    let ms = u64::try_from(ms).unwrap_or(0).min(253_402_300_799_000);
    let since = std::time::Duration::from_millis(ms);
    httpdate::fmt_http_date(std::time::UNIX_EPOCH + since)
}

/// A UID from 14 hexadecimal digits.
#[must_use]
pub fn parse_uid(text: &str) -> Option<desfire_ev1::wire::Uid> {
    bytes_from_hex(text).map(desfire_ev1::wire::Uid)
}

/// Bytes from exactly as many hexadecimal digits as they need.
#[must_use]
pub fn bytes_from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        let at = index.checked_mul(2)?;
        *byte = u8::from_str_radix(text.get(at..at.checked_add(2)?)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_is_a_moment() {
        assert_eq!(moment(1_709_251_199_999), "Thu, 29 Feb 2024 23:59:59 GMT");
        assert_eq!(moment(i64::MIN), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(moment(i64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
