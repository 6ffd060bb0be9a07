//! Streams' frames, SPDY's and WebSocket's: what was said is read in whatever pieces it comes, and nonsense is refused
//! in bounded space.

use apimachinery::codec::{spdy, websocket};
use bytes::Bytes;

use crate::dice::Dice;
use crate::{Verdict, check};

fn bytes(dice: &mut Dice) -> Bytes {
    let length = dice.pick(&[0, 1, 2, 125, 126, 300, 70_000]);
    let first = dice.below(256) as u8;
    (0..length).map(|i: u32| first.wrapping_add(i as u8)).collect()
}

fn spdy_frame(dice: &mut Dice) -> spdy::Frame {
    let stream = dice.below(1 << 31) as u32;
    let names = ["port", "requestid", "streamtype"];
    let headers =
        names.iter().filter(|_| !dice.rarely(2)).map(|n| ((*n).to_owned(), n.len().to_string())).collect();
    match dice.below(6) {
        0 => spdy::Frame::Open { stream, headers, last: dice.rarely(2) },
        1 => spdy::Frame::Reply { stream },
        2 => spdy::Frame::Reset { stream, status: dice.below(12) as u32 },
        3 => spdy::Frame::Ping(stream),
        4 => spdy::Frame::GoAway,
        // Longer ones come back in several frames.
        _ => spdy::Frame::Data { stream, bytes: bytes(dice).slice(..0), last: true },
    }
}

fn message(dice: &mut Dice) -> websocket::Message {
    use websocket::Message;
    match dice.below(5) {
        0 => Message::Text(bytes(dice)),
        1 => Message::Ping(Bytes::from_static(b"ping")),
        2 => Message::Pong(Bytes::new()),
        3 => Message::Close(dice.pick(&[0, 1000, 1009])),
        _ => Message::Binary(bytes(dice)),
    }
}

/// Cuts, and now and then spoils, what was sent; whether it is as it was.
fn travel(dice: &mut Dice, sent: &mut Vec<u8>) -> (bool, usize) {
    let spoiled = !sent.is_empty() && dice.rarely(3);
    if spoiled {
        let at = dice.upto(sent.len() - 1);
        sent[at] ^= 1 << dice.below(8);
        sent.truncate(sent.len() - dice.upto(sent.len().min(9)));
    }
    (!spoiled, dice.pick(&[1, 5, 1000, usize::MAX]).min(sent.len().max(1)))
}

pub fn run(dice: &mut Dice) -> Verdict {
    let mut sent = Vec::new();
    let count = dice.upto(6);
    if dice.rarely(2) {
        let mut encoder = spdy::Encoder::default();
        let all: Vec<_> = (0..count).map(|_| spdy_frame(dice)).collect();
        all.iter().for_each(|frame| encoder.encode(frame, &mut sent));
        let (whole, size) = travel(dice, &mut sent);
        dice.say("SPDY", &sent);
        let (mut decoder, mut got) = (spdy::Decoder::default(), Vec::new());
        for piece in sent.chunks(size) {
            decoder.feed(piece);
            loop {
                match decoder.pull() {
                    Ok(Some(frame)) => got.push(frame),
                    Ok(None) => break,
                    Err(err) => return check(!whole, || format!("{all:?}: {err}")),
                }
            }
        }
        return check(!whole || got == all, || format!("{all:?} became {got:?}"));
    }
    let mask = dice.rarely(2).then_some(0x8912_34ab);
    let all: Vec<_> = (0..count).map(|_| message(dice)).collect();
    all.iter().for_each(|message| websocket::encode(message, mask, &mut sent));
    let (whole, size) = travel(dice, &mut sent);
    dice.say("WebSocket", &sent);
    let (mut decoder, mut got) = (websocket::Decoder::new(mask.is_some()), Vec::new());
    for piece in sent.chunks(size) {
        decoder.feed(piece);
        loop {
            match decoder.pull() {
                Ok(Some(message)) => got.push(message),
                Ok(None) => break,
                Err(err) => return check(!whole, || format!("{err}")),
            }
        }
    }
    check(!whole || got == all, || format!("{} messages became {}", all.len(), got.len()))
}
