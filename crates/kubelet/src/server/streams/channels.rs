//! The protocols that carry several streams on one connection, each as a pure reader and writer of bytes: SPDY/3.1,
//! Kubernetes' channels on WebSocket, and SPDY inside WebSocket.
//!
//! Upstream: staging/src/k8s.io/{streaming,apimachinery/pkg/util/httpstream/{spdy,wsstream}}, client-go's
//! `tools/{remotecommand,portforward}`.

use std::collections::VecDeque;

use apimachinery::codec::spdy::{self, Frame, Headers};
use apimachinery::codec::websocket::{self, Message};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf, Bytes};

/// The channel on which version 5 says that another one ends.
const CLOSE_CHANNEL: u8 = 255;
/// WebSocket's code for an end as it should be.
const NORMAL: u16 = 1000;

/// What the other side does.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// It opens a stream.
    Open(u32, Headers),
    /// Bytes of a stream.
    Data(u32, Bytes),
    /// It sends no more on a stream.
    End(u32),
    /// It neither sends nor takes more on a stream.
    Reset(u32),
    /// It is to be answered by this.
    Answer(Out),
    /// It goes.
    Close,
}

/// What this side does.
#[derive(Debug, PartialEq, Eq)]
pub enum Out {
    /// Takes a stream.
    Accept(u32),
    /// Bytes of a stream.
    Data(u32, Bytes),
    /// Sends no more on a stream.
    End(u32),
    /// SPDY's ping comes back.
    Ping(u32),
    /// WebSocket's ping comes back.
    Pong(Bytes),
    /// Goes.
    Close,
}

/// Reads a connection.
pub trait Decode: Send {
    /// Takes bytes as they came.
    fn feed(&mut self, bytes: &[u8]);
    /// What they say next; `None` when more are needed.
    ///
    /// # Errors
    /// In words for a log, when they say nothing that is known: the connection cannot go on.
    fn next(&mut self) -> Result<Option<Event>, String>;
}

/// Writes a connection.
pub trait Encode: Send {
    /// Appends what is to be sent to `to`.
    fn encode(&mut self, out: &Out, to: &mut Vec<u8>);
}

/// A connection's two halves.
pub type Codec = (Box<dyn Decode>, Box<dyn Encode>);

/// SPDY/3.1.
pub fn spdy() -> Codec {
    (Box::new(Spdy::default()), Box::new(SpdyOut::default()))
}

/// SPDY/3.1 in WebSocket's messages.
pub fn tunnelled() -> Codec {
    let decode = Tunnelled { outer: websocket::Decoder::new(true), inner: Spdy::default() };
    (Box::new(decode), Box::new(TunnelledOut::default()))
}

/// Channels on WebSocket, one for each of `headers`. `base64`: as text. `closes`: a channel can be ended.
pub fn channels(headers: Vec<Headers>, base64: bool, closes: bool) -> Codec {
    let count = headers.len();
    let events = headers.into_iter().zip(0..).map(|(headers, i)| Event::Open(i, headers)).collect();
    let read = websocket::Decoder::new(true);
    let encode = ChannelsOut { base64, numbered: true };
    (Box::new(Channels { read, events, count, base64, closes }), Box::new(encode))
}

/// One stream to the client on WebSocket, a message for each piece of it. `base64`: as text.
pub fn plain(base64: bool) -> Codec {
    let events = VecDeque::from([Event::Open(0, Headers::new())]);
    let read = websocket::Decoder::new(true);
    let encode = ChannelsOut { base64, numbered: false };
    (Box::new(Channels { read, events, count: 0, base64: false, closes: false }), Box::new(encode))
}

#[derive(Default)]
struct Spdy {
    read: spdy::Decoder,
    events: VecDeque<Event>,
}

impl Decode for Spdy {
    fn feed(&mut self, bytes: &[u8]) {
        self.read.feed(bytes);
    }

    fn next(&mut self) -> Result<Option<Event>, String> {
        while self.events.is_empty() {
            let Some(frame) = self.read.pull().map_err(|e| e.to_string())? else { return Ok(None) };
            let (stream, last) = match frame {
                Frame::Open { stream, headers, last } => {
                    self.events.extend([Event::Open(stream, headers), Event::Answer(Out::Accept(stream))]);
                    (stream, last)
                }
                Frame::Data { stream, bytes, last } => {
                    self.events.extend((!bytes.is_empty()).then_some(Event::Data(stream, bytes)));
                    (stream, last)
                }
                Frame::Reset { stream, .. } => return Ok(Some(Event::Reset(stream))),
                Frame::Ping(id) => return Ok(Some(Event::Answer(Out::Ping(id)))),
                Frame::Reply { .. } | Frame::GoAway => continue,
            };
            self.events.extend(last.then_some(Event::End(stream)));
        }
        Ok(self.events.pop_front())
    }
}

#[derive(Default)]
struct SpdyOut(spdy::Encoder);

impl Encode for SpdyOut {
    fn encode(&mut self, out: &Out, to: &mut Vec<u8>) {
        let frame = match out {
            Out::Accept(stream) => Frame::Reply { stream: *stream },
            Out::Data(stream, bytes) => Frame::Data { stream: *stream, bytes: bytes.clone(), last: false },
            Out::End(stream) => Frame::Data { stream: *stream, bytes: Bytes::new(), last: true },
            Out::Ping(id) => Frame::Ping(*id),
            Out::Close => Frame::GoAway,
            Out::Pong(_) => return,
        };
        self.0.encode(&frame, to);
    }
}

struct Tunnelled {
    outer: websocket::Decoder,
    inner: Spdy,
}

impl Decode for Tunnelled {
    fn feed(&mut self, bytes: &[u8]) {
        self.outer.feed(bytes);
    }

    fn next(&mut self) -> Result<Option<Event>, String> {
        loop {
            if let Some(event) = self.inner.next()? {
                return Ok(Some(event));
            }
            match self.outer.pull().map_err(|e| e.to_string())? {
                None => return Ok(None),
                Some(Message::Binary(bytes) | Message::Text(bytes)) => self.inner.feed(&bytes),
                Some(Message::Ping(bytes)) => return Ok(Some(Event::Answer(Out::Pong(bytes)))),
                Some(Message::Pong(_)) => {}
                Some(Message::Close(_)) => return Ok(Some(Event::Close)),
            }
        }
    }
}

#[derive(Default)]
struct TunnelledOut(SpdyOut);

impl Encode for TunnelledOut {
    fn encode(&mut self, out: &Out, to: &mut Vec<u8>) {
        if let Out::Pong(bytes) = out {
            return websocket::encode(&Message::Pong(bytes.clone()), None, to);
        }
        let mut frames = Vec::new();
        self.0.encode(out, &mut frames);
        websocket::encode(&Message::Binary(frames.into()), None, to);
        if *out == Out::Close {
            websocket::encode(&Message::Close(NORMAL), None, to);
        }
    }
}

struct Channels {
    read: websocket::Decoder,
    events: VecDeque<Event>,
    count: usize,
    base64: bool,
    closes: bool,
}

impl Channels {
    /// The channel of a message and what is said on it; `None` for what nobody listens to.
    fn unpack(&self, mut message: Bytes) -> Result<Option<Event>, String> {
        let Ok(first) = message.try_get_u8() else { return Ok(None) };
        let channel = if self.base64 { first.wrapping_sub(b'0') } else { first };
        let bytes = match self.base64 {
            true => BASE64.decode(&message).map_err(|e| format!("a message that is no base64: {e}"))?.into(),
            false => message,
        };
        if self.closes && channel == CLOSE_CHANNEL {
            return Ok(bytes.first().map(|ends| Event::End(u32::from(*ends))));
        }
        Ok((usize::from(channel) < self.count).then_some(Event::Data(u32::from(channel), bytes)))
    }
}

impl Decode for Channels {
    fn feed(&mut self, bytes: &[u8]) {
        self.read.feed(bytes);
    }

    fn next(&mut self) -> Result<Option<Event>, String> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let event = match self.read.pull().map_err(|e| e.to_string())? {
                None => return Ok(None),
                Some(Message::Binary(bytes) | Message::Text(bytes)) => self.unpack(bytes)?,
                Some(Message::Ping(bytes)) => Some(Event::Answer(Out::Pong(bytes))),
                Some(Message::Pong(_)) => None,
                Some(Message::Close(_)) => Some(Event::Close),
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }
}

struct ChannelsOut {
    base64: bool,
    /// Each message begins with its channel.
    numbered: bool,
}

impl Encode for ChannelsOut {
    fn encode(&mut self, out: &Out, to: &mut Vec<u8>) {
        let message = match out {
            Out::Data(channel, bytes) => {
                let channel = *channel as u8;
                match (self.base64, self.numbered) {
                    (true, true) => Message::Text(format!("{channel}{}", BASE64.encode(bytes)).into()),
                    (true, false) => Message::Text(BASE64.encode(bytes).into()),
                    (false, true) => Message::Binary([&[channel], &bytes[..]].concat().into()),
                    (false, false) => Message::Binary(bytes.clone()),
                }
            }
            Out::Pong(bytes) => Message::Pong(bytes.clone()),
            Out::Close => Message::Close(NORMAL),
            // The connection's end is every channel's.
            Out::End(_) | Out::Accept(_) | Out::Ping(_) => return,
        };
        websocket::encode(&message, None, to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(kind: &str) -> Headers {
        vec![("streamtype".to_owned(), kind.to_owned())]
    }

    fn read(decode: &mut dyn Decode, bytes: &[u8]) -> Vec<Event> {
        let mut out = Vec::new();
        for byte in bytes {
            decode.feed(&[*byte]);
            while let Some(event) = decode.next().expect("events") {
                out.push(event);
            }
        }
        out
    }

    fn masked(messages: &[Message]) -> Vec<u8> {
        let mut out = Vec::new();
        messages.iter().for_each(|m| websocket::encode(m, Some(0x0102_0304), &mut out));
        out
    }

    fn written(encode: &mut dyn Encode, all: &[Out]) -> Vec<Message> {
        let (mut bytes, mut decoder) = (Vec::new(), websocket::Decoder::new(false));
        all.iter().for_each(|out| encode.encode(out, &mut bytes));
        decoder.feed(&bytes);
        std::iter::from_fn(|| decoder.pull().expect("messages")).collect()
    }

    #[test]
    fn spdy_opens_streams_and_ends_them() {
        let mut encoder = spdy::Encoder::default();
        let mut sent = Vec::new();
        for frame in [
            Frame::Open { stream: 1, headers: headers("error"), last: true },
            Frame::Open { stream: 3, headers: headers("stdin"), last: false },
            Frame::Data { stream: 3, bytes: Bytes::from_static(b"in"), last: true },
            Frame::Ping(1),
            Frame::Reset { stream: 3, status: 5 },
            Frame::GoAway,
        ] {
            encoder.encode(&frame, &mut sent);
        }
        let want = || {
            vec![
                Event::Open(1, headers("error")),
                Event::Answer(Out::Accept(1)),
                Event::End(1),
                Event::Open(3, headers("stdin")),
                Event::Answer(Out::Accept(3)),
                Event::Data(3, Bytes::from_static(b"in")),
                Event::End(3),
                Event::Answer(Out::Ping(1)),
                Event::Reset(3),
            ]
        };
        assert_eq!(read(&mut *spdy().0, &sent), want());
        let pieces: Vec<_> = sent.chunks(7).map(|c| Message::Binary(c.to_vec().into())).collect();
        let mut all = want();
        all.push(Event::Close);
        assert_eq!(read(&mut *tunnelled().0, &masked(&[&pieces[..], &[Message::Close(1000)]].concat())), all);
    }

    #[test]
    fn channels_are_numbered_by_their_messages_first_byte() {
        let kinds = || vec![headers("stdin"), headers("stdout")];
        let open = || vec![Event::Open(0, headers("stdin")), Event::Open(1, headers("stdout"))];
        let data = |channel, text: &'static str| Event::Data(channel, Bytes::from_static(text.as_bytes()));
        let sent = |text: &'static [u8]| Message::Binary(Bytes::from_static(text));
        let (mut decode, mut encode) = channels(kinds(), false, true);
        let mut want = open();
        want.extend([
            data(0, "in"),
            Event::End(0),
            Event::Answer(Out::Pong(Bytes::from_static(b"p"))),
            Event::Close,
        ]);
        let ping = Message::Ping(Bytes::from_static(b"p"));
        let messages =
            [sent(b"\0in"), sent(b"\x09lost"), sent(b""), sent(b"\xff\0"), ping, Message::Close(0)];
        assert_eq!(read(&mut *decode, &masked(&messages)), want);
        let all = [Out::Data(1, Bytes::from_static(b"out")), Out::End(1), Out::Close];
        assert_eq!(written(&mut *encode, &all), [sent(b"\x01out"), Message::Close(1000)]);

        let (mut decode, mut encode) = channels(kinds(), true, false);
        let mut want = open();
        want.push(data(0, "in"));
        let text = |text: &'static str| Message::Text(Bytes::from_static(text.as_bytes()));
        assert_eq!(read(&mut *decode, &masked(&[text("0aW4=")])), want);
        assert_eq!(written(&mut *encode, &all)[0], text("1b3V0"));
        decode.feed(&masked(&[text("0!")]));
        assert!(decode.next().is_err());

        let (mut decode, mut encode) = plain(true);
        assert_eq!(read(&mut *decode, &masked(&[text("ignored")])), [Event::Open(0, Headers::new())]);
        assert_eq!(written(&mut *encode, &[Out::Data(0, Bytes::from_static(b"out"))]), [text("b3V0")]);
    }
}
