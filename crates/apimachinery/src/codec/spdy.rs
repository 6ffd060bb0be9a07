//! SPDY/3.1 framing, as far as streams of commands and ports need it. Pure: bytes to frames and back.
//!
//! The clients that speak it to Kubernetes (moby/spdystream) neither send nor await window updates, so none are made
//! here: what holds a sender back is the connection below. Source: the SPDY protocol, draft 3.1, sections 2.2 to 2.6.

use bytes::{Buf, Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};

/// The longest control frame, and the most that one's headers may become.
const CONTROL_BYTES_MAX: usize = 64 << 10;
/// The longest data frame.
const DATA_BYTES_MAX: usize = (1 << 24) - 1;
/// A piece that a data frame is sent in.
const SENT_BYTES_MAX: usize = 64 << 10;
const VERSION: u16 = 3;
const CONTROL: u16 = 0x8000;
const LAST: u8 = 1;
/// What the headers' compression begins with: deflate, 32 KB of window, a dictionary.
const ZLIB_HEAD: [u8; 2] = [0x78, 0x20];
/// Any that says the same at another level of compression.
const ZLIB_DICTIONARY: u8 = 0x20;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// Words of the compression's dictionary, each with its length before it. Source: section 2.6.10.1.
const WORDS: &str = "options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|accept-ranges|age|allow|authorization|cache-control|connection|content-base|content-encoding|content-language|content-length|content-location|content-md5|content-range|content-type|date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|location|max-forwards|pragma|proxy-authenticate|proxy-authorization|range|referer|retry-after|server|te|trailer|transfer-encoding|upgrade|user-agent|vary|via|warning|www-authenticate|method|get|status|200 OK|version|HTTP/1.1|url|public|set-cookie|keep-alive|origin";
/// What follows the words.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
/// The dictionary's Adler-32.
const DICTIONARY_ID: u32 = 0xe3c6_a7c2;

/// Names and values; a name stands once for each of its values.
pub type Headers = Vec<(String, String)>;

/// What one side says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A stream begins.
    Open {
        /// Its number: odd ones are the client's.
        stream: u32,
        /// What it is for.
        headers: Headers,
        /// Whoever opens it will send nothing on it.
        last: bool,
    },
    /// The other side takes the stream.
    Reply {
        /// Which.
        stream: u32,
    },
    /// Bytes of a stream.
    Data {
        /// Which.
        stream: u32,
        /// The bytes.
        bytes: Bytes,
        /// They are its last.
        last: bool,
    },
    /// A stream ends at once, both ways.
    Reset {
        /// Which.
        stream: u32,
        /// Why; 5 is the usual: it is not needed any more.
        status: u32,
    },
    /// To be sent back as it is.
    Ping(u32),
    /// No more streams will be opened.
    GoAway,
}

/// What is wrong with the other side's bytes: the connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A frame of another version.
    #[error("a frame of another version than SPDY/3")]
    Version,
    /// A control frame that is too long or too short for its kind.
    #[error("a control frame of a wrong length")]
    Length,
    /// Headers that cannot be read.
    #[error("headers that are compressed or written wrongly")]
    Headers,
}

/// Reads frames from the pieces of a stream of bytes.
pub struct Decoder {
    read: BytesMut,
    inflate: Option<Decompress>,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder { read: BytesMut::new(), inflate: None }
    }
}

impl Decoder {
    /// Takes bytes as they came.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.read.extend_from_slice(bytes);
    }

    /// The next frame; `None` when more bytes are needed. What this side has no use for is skipped.
    ///
    /// # Errors
    /// When the bytes are no SPDY/3; nothing more can be read then.
    pub fn pull(&mut self) -> Result<Option<Frame>, Error> {
        loop {
            let Some(head) = self.read.first_chunk::<8>() else { return Ok(None) };
            let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            let (flags, length) = (head[4], u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize);
            let kind = u16::from_be_bytes([head[2], head[3]]);
            let control = first >> 31 == 1;
            if control && u16::from_be_bytes([head[0], head[1]]) != CONTROL | VERSION {
                return Err(Error::Version);
            }
            if control && length > CONTROL_BYTES_MAX {
                return Err(Error::Length);
            }
            if self.read.len() < 8 + length {
                return Ok(None);
            }
            self.read.advance(8);
            let body = self.read.split_to(length).freeze();
            let last = flags & LAST != 0;
            let frame = match control {
                false => Some(Frame::Data { stream: first, bytes: body, last }),
                true => self.control(kind, body, last)?,
            };
            if frame.is_some() {
                return Ok(frame);
            }
        }
    }

    fn control(&mut self, kind: u16, mut body: Bytes, last: bool) -> Result<Option<Frame>, Error> {
        let mut number = || body.try_get_u32().map_err(|_| Error::Length);
        let stream = |n: u32| n & (u32::MAX >> 1);
        Ok(Some(match kind {
            SYN_STREAM => {
                let stream = stream(number()?);
                number()?;
                body.try_get_u16().map_err(|_| Error::Length)?;
                Frame::Open { stream, headers: self.headers(&body)?, last }
            }
            // Their headers say nothing, but the compression goes on from frame to frame.
            SYN_REPLY | HEADERS => {
                let stream = stream(number()?);
                self.headers(&body)?;
                match (kind, last) {
                    (SYN_REPLY, _) => Frame::Reply { stream },
                    (_, true) => Frame::Data { stream, bytes: Bytes::new(), last },
                    _ => return Ok(None),
                }
            }
            RST_STREAM => Frame::Reset { stream: stream(number()?), status: number()? },
            PING => Frame::Ping(number()?),
            GOAWAY => Frame::GoAway,
            // Settings and windows, and what nobody knows.
            _ => return Ok(None),
        }))
    }

    fn headers(&mut self, mut packed: &[u8]) -> Result<Headers, Error> {
        let inflate = match &mut self.inflate {
            Some(inflate) => inflate,
            None => {
                let (head, rest) = packed.split_first_chunk::<6>().ok_or(Error::Headers)?;
                let id = u32::from_be_bytes([head[2], head[3], head[4], head[5]]);
                let dictionary = head[1] & ZLIB_DICTIONARY != 0 && id == DICTIONARY_ID;
                if head[0] & 0x0f != ZLIB_HEAD[0] & 0x0f || !dictionary {
                    return Err(Error::Headers);
                }
                packed = rest;
                let mut inflate = Decompress::new(false);
                inflate.set_dictionary(&dictionary_bytes()).map_err(|_| Error::Headers)?;
                self.inflate.insert(inflate)
            }
        };
        let mut out = vec![0; CONTROL_BYTES_MAX];
        let before = inflate.total_out();
        while !packed.is_empty() {
            let (read, written) = (inflate.total_in(), (inflate.total_out() - before) as usize);
            let status = inflate.decompress(packed, &mut out[written..], FlushDecompress::Sync);
            let taken = (inflate.total_in() - read) as usize;
            let grown = (inflate.total_out() - before) as usize - written;
            match status {
                Ok(Status::StreamEnd) | Err(_) => return Err(Error::Headers),
                // No room: more than a frame may become.
                Ok(_) if taken == 0 && grown == 0 => return Err(Error::Headers),
                Ok(_) => packed = &packed[taken..],
            }
        }
        out.truncate((inflate.total_out() - before) as usize);
        if out.len() == CONTROL_BYTES_MAX {
            return Err(Error::Headers);
        }
        unpack(&out)
    }
}

fn unpack(mut from: &[u8]) -> Result<Headers, Error> {
    fn text(from: &mut &[u8]) -> Result<String, Error> {
        let length = from.try_get_u32().map_err(|_| Error::Headers)? as usize;
        let bytes = from.get(..length).ok_or(Error::Headers)?;
        *from = &from[length..];
        String::from_utf8(bytes.to_vec()).map_err(|_| Error::Headers)
    }
    let count = from.try_get_u32().map_err(|_| Error::Headers)?;
    let mut out = Vec::new();
    for _ in 0..count {
        let (name, values) = (text(&mut from)?, text(&mut from)?);
        out.extend(values.split('\0').map(|value| (name.to_ascii_lowercase(), value.to_owned())));
    }
    Ok(out)
}

fn dictionary_bytes() -> Vec<u8> {
    let mut out = Vec::new();
    for word in WORDS.split('|') {
        out.extend((word.len() as u32).to_be_bytes());
        out.extend(word.as_bytes());
    }
    out.extend(TAIL.as_bytes());
    out
}

/// Writes frames. Headers are packed without being made smaller: this side has few to send.
#[derive(Default)]
pub struct Encoder {
    begun: bool,
}

impl Encoder {
    /// Appends a frame to `out`.
    pub fn encode(&mut self, frame: &Frame, out: &mut Vec<u8>) {
        let mut control = |kind: u16, flags: u8, body: &[u8]| {
            out.extend((CONTROL | VERSION).to_be_bytes());
            out.extend(kind.to_be_bytes());
            out.extend((body.len() as u32 | u32::from(flags) << 24).to_be_bytes());
            out.extend(body);
        };
        match frame {
            Frame::Open { stream, headers, last } => {
                let mut body = stream.to_be_bytes().to_vec();
                // It belongs to no other and goes before none.
                body.extend([0; 6]);
                self.headers(headers, &mut body);
                control(SYN_STREAM, u8::from(*last), &body);
            }
            Frame::Reply { stream } => {
                let mut body = stream.to_be_bytes().to_vec();
                self.headers(&Vec::new(), &mut body);
                control(SYN_REPLY, 0, &body);
            }
            Frame::Reset { stream, status } => {
                control(RST_STREAM, 0, &[stream.to_be_bytes(), status.to_be_bytes()].concat());
            }
            Frame::Ping(id) => control(PING, 0, &id.to_be_bytes()),
            Frame::GoAway => control(GOAWAY, 0, &[0; 8]),
            Frame::Data { stream, bytes, last } => {
                let mut pieces = bytes.chunks(SENT_BYTES_MAX.min(DATA_BYTES_MAX)).peekable();
                loop {
                    let piece = pieces.next().unwrap_or_default();
                    let flags = u8::from(*last && pieces.peek().is_none());
                    out.extend(stream.to_be_bytes());
                    out.extend((piece.len() as u32 | u32::from(flags) << 24).to_be_bytes());
                    out.extend(piece);
                    if pieces.peek().is_none() {
                        return;
                    }
                }
            }
        }
    }

    /// Deflate blocks, stored as they are; the first goes after the compression's own head. An empty block ends them:
    /// without it Go's reader awaits more.
    fn headers(&mut self, headers: &Headers, out: &mut Vec<u8>) {
        let mut names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let mut text = (names.len() as u32).to_be_bytes().to_vec();
        for name in names {
            let values: Vec<&str> =
                headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect();
            for part in [name, &values.join("\0")] {
                text.extend((part.len() as u32).to_be_bytes());
                text.extend(part.as_bytes());
            }
        }
        if !std::mem::replace(&mut self.begun, true) {
            out.extend(ZLIB_HEAD);
            out.extend(DICTIONARY_ID.to_be_bytes());
        }
        for block in text.chunks(usize::from(u16::MAX)).chain([&[][..]]) {
            let length = block.len() as u16;
            out.push(0);
            out.extend(length.to_le_bytes());
            out.extend((!length).to_le_bytes());
            out.extend(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&str, &str)]) -> Headers {
        all.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_dictionary_is_the_protocols() {
        let bytes = dictionary_bytes();
        let (mut a, mut b) = (1u32, 0u32);
        for byte in &bytes {
            a = (a + u32::from(*byte)) % 65_521;
            b = (b + a) % 65_521;
        }
        assert_eq!((bytes.len(), b << 16 | a), (1423, DICTIONARY_ID));
    }

    #[test]
    fn frames_come_back_whatever_pieces_they_travel_in() {
        let all = [
            Frame::Open {
                stream: 1,
                headers: headers(&[("port", "80"), ("streamtype", "error")]),
                last: true,
            },
            Frame::Open { stream: 3, headers: headers(&[("a", "1"), ("a", "2")]), last: false },
            Frame::Reply { stream: 1 },
            Frame::Data { stream: 3, bytes: Bytes::from_static(b"bytes"), last: false },
            Frame::Data { stream: 3, bytes: Bytes::new(), last: true },
            Frame::Reset { stream: 1, status: 5 },
            Frame::Ping(7),
            Frame::GoAway,
        ];
        let (mut encoder, mut bytes) = (Encoder::default(), Vec::new());
        all.iter().for_each(|frame| encoder.encode(frame, &mut bytes));
        for size in [1, 3, 7, bytes.len()] {
            let (mut decoder, mut got) = (Decoder::default(), Vec::new());
            for piece in bytes.chunks(size) {
                decoder.feed(piece);
                while let Some(frame) = decoder.pull().expect("frames") {
                    got.push(frame);
                }
            }
            assert_eq!(got, all);
        }
    }

    #[test]
    fn headers_that_were_made_smaller_are_read() {
        // Two frames, the second in the words of the first, as zlib writes them at its best.
        let mut zlib = flate2::Compress::new(flate2::Compression::best(), true);
        zlib.set_dictionary(&dictionary_bytes()).expect("a dictionary");
        let mut decoder = Decoder::default();
        for (stream, kind) in [(1u32, "error"), (3, "stdout")] {
            let mut text = 2u32.to_be_bytes().to_vec();
            for part in ["content-length", "0", "streamtype", kind] {
                text.extend((part.len() as u32).to_be_bytes());
                text.extend(part.as_bytes());
            }
            let mut packed = Vec::with_capacity(1000);
            zlib.compress_vec(&text, &mut packed, flate2::FlushCompress::Sync).expect("compress");
            let mut frame = vec![0x80, 3, 0, 1, 0, 0, 0, packed.len() as u8 + 10];
            frame.extend(stream.to_be_bytes());
            frame.extend([0; 6]);
            frame.extend(packed);
            decoder.feed(&frame);
            let headers = headers(&[("content-length", "0"), ("streamtype", kind)]);
            assert_eq!(decoder.pull(), Ok(Some(Frame::Open { stream, headers, last: false })));
        }
        assert_eq!(decoder.pull(), Ok(None));
    }

    #[test]
    fn what_is_no_spdy_is_refused_and_what_is_not_needed_skipped() {
        let read = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.feed(bytes);
            decoder.pull()
        };
        assert_eq!(read(b"GET / HTTP/1.1"), Ok(None));
        assert_eq!(read(&[0x80, 2, 0, 1, 0, 0, 0, 0]), Err(Error::Version));
        assert_eq!(read(&[0x80, 3, 0, 1, 0, 1, 0, 1]), Err(Error::Length));
        assert_eq!(read(&[0x80, 3, 0, 6, 0, 0, 0, 1, 9]), Err(Error::Length));
        let open = |packed: &[u8]| {
            let mut frame = vec![0x80, 3, 0, 1, 0, 0, 0, packed.len() as u8 + 10];
            frame.extend([0; 10]);
            frame.extend(packed);
            read(&frame)
        };
        assert_eq!(open(b""), Err(Error::Headers));
        assert_eq!(open(b"\x78\x20\xe3\xc6\xa7\xc3\x00"), Err(Error::Headers));
        assert_eq!(open(b"\x78\x20\xe3\xc6\xa7\xc2\x07"), Err(Error::Headers));
        assert_eq!(
            open(b"\x78\x20\xe3\xc6\xa7\xc2\x00\x04\x00\xfb\xff\x00\x00\x00\x01"),
            Err(Error::Headers)
        );
        let mut settings = vec![0x80, 3, 0, 4, 0, 0, 0, 4, 0, 0, 0, 0];
        settings.extend([0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9]);
        assert_eq!(read(&settings), Ok(Some(Frame::Ping(9))));
    }
}
