//! WebSocket framing (RFC 6455, section 5), without extensions. Pure: bytes to messages and back.

use bytes::{Buf, Bytes, BytesMut};

/// The longest message, whatever pieces it comes in. Source: golang.org/x/net/websocket, which upstream uses.
const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// The longest control frame. Source: RFC 6455, section 5.5.
const CONTROL_BYTES_MAX: u64 = 125;
const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// What one side says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Text; whoever wants it to be UTF-8 looks for himself.
    Text(Bytes),
    /// Bytes.
    Binary(Bytes),
    /// To be answered by [`Message::Pong`] with the same bytes.
    Ping(Bytes),
    /// Asks for nothing.
    Pong(Bytes),
    /// The end, with a code (0: none).
    Close(u16),
}

/// What is wrong with the other side's bytes: the connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Against the protocol: close with 1002.
    #[error("a frame that WebSocket does not know")]
    Protocol,
    /// Too long: close with 1009.
    #[error("a message longer than 32 MiB")]
    TooLong,
}

/// Reads messages from the pieces of a stream of bytes.
pub struct Decoder {
    read: BytesMut,
    /// Of a message that comes in several frames: whether it is text, and what has come.
    begun: Option<(bool, BytesMut)>,
    masked: bool,
}

impl Decoder {
    /// Reads what a client says (which must be masked), or what a server says (which must not).
    pub fn new(of_client: bool) -> Decoder {
        Decoder { read: BytesMut::new(), begun: None, masked: of_client }
    }

    /// Takes bytes as they came.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.read.extend_from_slice(bytes);
    }

    /// The next message; `None` when more bytes are needed.
    ///
    /// # Errors
    /// When the bytes are no WebSocket frames; nothing more can be read then.
    pub fn pull(&mut self) -> Result<Option<Message>, Error> {
        loop {
            let Some((head, opcode, body)) = self.frame()? else { return Ok(None) };
            let last = head & FINAL != 0;
            let message = match (opcode, self.begun.take()) {
                (0, Some((text, mut all))) => {
                    all.extend_from_slice(&body);
                    if !last {
                        self.begun = Some((text, all));
                        continue;
                    }
                    whole(text, all.freeze())
                }
                (1 | 2, None) if last => whole(opcode == 1, body.freeze()),
                (1 | 2, None) => {
                    self.begun = Some((opcode == 1, body));
                    continue;
                }
                // Control frames may come between the frames of a message.
                (8..=10, begun) if last => {
                    self.begun = begun;
                    match opcode {
                        8 => Message::Close(body.first_chunk::<2>().map_or(0, |c| u16::from_be_bytes(*c))),
                        9 => Message::Ping(body.freeze()),
                        _ => Message::Pong(body.freeze()),
                    }
                }
                _ => return Err(Error::Protocol),
            };
            return Ok(Some(message));
        }
    }

    /// One frame: its first byte, its opcode, its bytes without the mask.
    fn frame(&mut self) -> Result<Option<(u8, u8, BytesMut)>, Error> {
        let mut from = &self.read[..];
        let (Ok(head), Ok(second)) = (from.try_get_u8(), from.try_get_u8()) else { return Ok(None) };
        let opcode = head & 0x0f;
        if head & RESERVED != 0 || (second & MASKED != 0) != self.masked {
            return Err(Error::Protocol);
        }
        let length = match second & !MASKED {
            126 => from.try_get_u16().map(u64::from),
            127 => from.try_get_u64(),
            short => Ok(u64::from(short)),
        };
        let Ok(length) = length else { return Ok(None) };
        if opcode >= 8 && length > CONTROL_BYTES_MAX {
            return Err(Error::Protocol);
        }
        let before = self.begun.as_ref().map_or(0, |(_, all)| all.len());
        let length = usize::try_from(length).map_err(|_| Error::TooLong)?;
        if length > MESSAGE_BYTES_MAX.saturating_sub(before) {
            return Err(Error::TooLong);
        }
        let mask = match self.masked {
            false => 0,
            true => match from.try_get_u32() {
                Ok(mask) => mask,
                Err(_) => return Ok(None),
            },
        };
        if from.len() < length {
            return Ok(None);
        }
        self.read.advance(self.read.len() - from.len());
        let mut body = self.read.split_to(length);
        apply(mask, &mut body);
        Ok(Some((head, opcode, body)))
    }
}

fn whole(text: bool, bytes: Bytes) -> Message {
    if text { Message::Text(bytes) } else { Message::Binary(bytes) }
}

fn apply(mask: u32, bytes: &mut [u8]) {
    let mask = mask.to_be_bytes();
    bytes.iter_mut().enumerate().for_each(|(i, byte)| *byte ^= mask[i % 4]);
}

/// Appends a message to `out`, as one frame; a client gives a mask, which must be random.
pub fn encode(message: &Message, mask: Option<u32>, out: &mut Vec<u8>) {
    let code;
    let (opcode, body): (u8, &[u8]) = match message {
        Message::Text(bytes) => (1, bytes),
        Message::Binary(bytes) => (2, bytes),
        Message::Ping(bytes) => (9, bytes),
        Message::Pong(bytes) => (10, bytes),
        Message::Close(0) => (8, &[]),
        Message::Close(given) => {
            code = given.to_be_bytes();
            (8, &code)
        }
    };
    let masked = if mask.is_some() { MASKED } else { 0 };
    out.push(FINAL | opcode);
    match body.len() {
        short @ 0..126 => out.push(masked | short as u8),
        middle @ 126..0x1_0000 => {
            out.push(masked | 126);
            out.extend((middle as u16).to_be_bytes());
        }
        long => {
            out.push(masked | 127);
            out.extend((long as u64).to_be_bytes());
        }
    }
    if let Some(mask) = mask {
        out.extend(mask.to_be_bytes());
    }
    let start = out.len();
    out.extend_from_slice(body);
    if let Some(mask) = mask {
        apply(mask, &mut out[start..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(of_client: bool, bytes: &[u8], size: usize) -> Result<Vec<Message>, Error> {
        let (mut decoder, mut got) = (Decoder::new(of_client), Vec::new());
        for piece in bytes.chunks(size) {
            decoder.feed(piece);
            while let Some(message) = decoder.pull()? {
                got.push(message);
            }
        }
        Ok(got)
    }

    #[test]
    fn a_message_in_frames_is_one_and_control_goes_between() {
        let sent = b"\x01\x02ab\x89\x01p\x00\x01c\x80\x01d";
        let want = [Message::Ping(Bytes::from_static(b"p")), Message::Text(Bytes::from_static(b"abcd"))];
        assert_eq!(read(false, sent, 1).as_deref(), Ok(&want[..]));
    }

    #[test]
    fn what_is_against_the_protocol_is_refused() {
        for (of_client, sent, why) in [
            (true, &b"\x82\x00"[..], Error::Protocol),
            (false, b"\x82\x80\0\0\0\0", Error::Protocol),
            (false, b"\xc2\x00", Error::Protocol),
            (false, b"\x83\x00", Error::Protocol),
            (false, b"\x80\x00", Error::Protocol),
            (false, b"\x02\x00\x82\x00", Error::Protocol),
            (false, b"\x09\x00", Error::Protocol),
            (false, b"\x89\x7e\x00\x7e", Error::Protocol),
            (false, b"\x82\x7f\0\0\0\0\x02\0\0\x01", Error::TooLong),
            (false, b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", Error::TooLong),
        ] {
            assert_eq!(read(of_client, sent, 100), Err(why), "{sent:?}");
        }
    }
}
