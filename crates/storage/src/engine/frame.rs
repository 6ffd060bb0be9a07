//! The bytes of the log: frames with a checksum each, one per revision. Pure; knows no files.
//!
//! A frame is `magic u32, length u32, crc32 u32` (over the length and the body), then the body: `kind u8, synced u64,
//! payload`, all little-endian. `synced` is up to where the segment was known to be safe when the frame was written:
//! damage before it is corruption, damage after it the torn end of a crash.

/// Begins every frame.
pub const MAGIC: [u8; 4] = *b"KSF1";
/// Bytes before the body.
pub const HEADER: usize = 12;
/// What the format is called in a segment's first frame.
const FORMAT: u32 = 1;

const KIND_SEGMENT: u8 = 1;
const KIND_TXN: u8 = 2;
const KIND_RESERVE: u8 = 3;
const KIND_GAP: u8 = 4;
const KIND_COMPACT: u8 = 5;
const KIND_SEAL: u8 = 6;
const KIND_CLEAN: u8 = 7;

const FLAG_PUT: u8 = 1;

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// The first of a file: its number, and which revision was safe and which compacted when it was begun.
    Segment { number: u32, revision: u64, compacted: u64 },
    /// The changes of one revision (in a rewritten segment: one of them).
    Txn { revision: u64, records: Vec<Record<'a>> },
    /// Revisions up to `to` may be handed out.
    Reserve { to: u64 },
    /// Revisions between `after` and `before`, both exclusive, were lost in a crash.
    Gap { after: u64, before: u64 },
    /// History before `revision` may be forgotten.
    Compact { revision: u64 },
    /// The last of a segment that has a successor.
    Seal,
    /// The engine was closed in order at `revision`.
    Clean { revision: u64 },
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Revision of its creation; 0 for a delete.
    pub create: u64,
    /// Writes since its creation; 0 for a delete.
    pub version: u64,
    /// When it expires, in milliseconds since 1970; 0 = never.
    pub expiry_ms: u64,
    /// Where the value's checksum, which the value follows, begins: counted from the frame's first byte.
    pub value_at: usize,
    /// The value's length.
    pub value_len: usize,
}

/// A record to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    pub key: &'a [u8],
    pub create: u64,
    pub version: u64,
    pub expiry_ms: u64,
    pub value: &'a [u8],
}

/// What a record takes of the log, frame and all: the measure of dead and live bytes.
pub fn record_size(key: usize, value: usize) -> u64 {
    (HEADER + 9 + 12 + 37 + key + value) as u64
}

fn frame(out: &mut Vec<u8>, kind: u8, synced: u64, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; 8]);
    out.push(kind);
    out.extend_from_slice(&synced.to_le_bytes());
    fill(out);
    let len = u32::try_from(out.len() - start - HEADER).expect("a frame is limited far below 4 GiB");
    out[start + 4..start + 8].copy_from_slice(&len.to_le_bytes());
    let crc = checksum(&out[start..]);
    out[start + 8..start + 12].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(frame: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[4..8]);
    hasher.update(&frame[HEADER..]);
    hasher.finalize()
}

/// Appends a frame with the changes of one revision; gives for each record where its value begins in `out`.
pub fn txn<'a>(out: &mut Vec<u8>, synced: u64, revision: u64, records: &[NewRecord<'a>]) -> Vec<usize> {
    let mut places = Vec::with_capacity(records.len());
    frame(out, KIND_TXN, synced, |out| {
        out.extend_from_slice(&revision.to_le_bytes());
        out.extend_from_slice(&(records.len() as u32).to_le_bytes());
        for r in records {
            out.push(if r.version > 0 { FLAG_PUT } else { 0 });
            out.extend_from_slice(&r.create.to_le_bytes());
            out.extend_from_slice(&r.version.to_le_bytes());
            out.extend_from_slice(&r.expiry_ms.to_le_bytes());
            out.extend_from_slice(&(r.key.len() as u32).to_le_bytes());
            out.extend_from_slice(&(r.value.len() as u32).to_le_bytes());
            out.extend_from_slice(r.key);
            places.push(out.len());
            out.extend_from_slice(&crc32fast::hash(r.value).to_le_bytes());
            out.extend_from_slice(r.value);
        }
    });
    places
}

/// Appends any frame but that of a transaction.
///
/// # Panics
/// For [`Payload::Txn`], which [`txn`] writes.
pub fn other(out: &mut Vec<u8>, synced: u64, payload: &Payload<'_>) {
    let (kind, words): (u8, Vec<u64>) = match *payload {
        Payload::Segment { number, revision, compacted } => {
            (KIND_SEGMENT, vec![u64::from(FORMAT) << 32 | u64::from(number), revision, compacted])
        }
        Payload::Reserve { to } => (KIND_RESERVE, vec![to]),
        Payload::Gap { after, before } => (KIND_GAP, vec![after, before]),
        Payload::Compact { revision } => (KIND_COMPACT, vec![revision]),
        Payload::Seal => (KIND_SEAL, vec![]),
        Payload::Clean { revision } => (KIND_CLEAN, vec![revision]),
        Payload::Txn { .. } => panic!("transactions are written by frame::txn"),
    };
    frame(out, kind, synced, |out| words.iter().for_each(|w| out.extend_from_slice(&w.to_le_bytes())));
}

/// Whether `value`, read from a record's place, is what was written: `[crc32][value]` of `len` value bytes.
pub fn value_is_whole(stored: &[u8], len: usize) -> bool {
    stored.len() == len + 4 && crc32fast::hash(&stored[4..]).to_le_bytes() == stored[..4]
}

/// How many bytes the frame that begins with `head` takes, header included; `None` if no frame begins so.
pub fn length(head: &[u8]) -> Option<u64> {
    (head.len() >= HEADER && head[..4] == MAGIC).then(|| u64::from(word32(head, 4)) + HEADER as u64)
}

/// The frame that `bytes` are, with its `synced`; `None` if they are damaged.
pub fn parse(bytes: &[u8]) -> Option<(Payload<'_>, u64)> {
    if length(bytes)? != bytes.len() as u64 || checksum(bytes) != word32(bytes, 8) {
        return None;
    }
    let mut r = Reader { bytes, at: HEADER };
    let kind = r.u8()?;
    let synced = r.u64()?;
    let payload = match kind {
        KIND_SEGMENT => {
            let word = r.u64()?;
            if word >> 32 != u64::from(FORMAT) {
                return None;
            }
            Payload::Segment { number: word as u32, revision: r.u64()?, compacted: r.u64()? }
        }
        KIND_TXN => {
            let revision = r.u64()?;
            let count = r.u32()?;
            let records = (0..count).map(|_| r.record()).collect::<Option<_>>()?;
            Payload::Txn { revision, records }
        }
        KIND_RESERVE => Payload::Reserve { to: r.u64()? },
        KIND_GAP => Payload::Gap { after: r.u64()?, before: r.u64()? },
        KIND_COMPACT => Payload::Compact { revision: r.u64()? },
        KIND_SEAL => Payload::Seal,
        KIND_CLEAN => Payload::Clean { revision: r.u64()? },
        _ => return None,
    };
    Some((payload, synced))
}

fn word32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let out = self.bytes.get(self.at..self.at.checked_add(n)?)?;
        self.at += n;
        Some(out)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|b| word32(b, 0))
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|b| u64::from_le_bytes(b.try_into().expect("eight bytes")))
    }

    fn record(&mut self) -> Option<Record<'a>> {
        let put = self.u8()? & FLAG_PUT != 0;
        let (create, version, expiry_ms) = (self.u64()?, self.u64()?, self.u64()?);
        let (key_len, value_len) = (self.u32()? as usize, self.u32()? as usize);
        let key = self.take(key_len)?;
        let value_at = self.at;
        let stored = self.take(value_len + 4)?;
        if put != (version > 0) || !value_is_whole(stored, value_len) {
            return None;
        }
        Some(Record { key, create, version, expiry_ms, value_at, value_len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_and_every_flipped_bit_is_seen() {
        let mut out = Vec::new();
        let put = NewRecord { key: b"/a", create: 3, version: 2, expiry_ms: 9, value: b"value" };
        let delete = NewRecord { key: b"/b", create: 0, version: 0, expiry_ms: 0, value: b"" };
        let places = txn(&mut out, 77, 5, &[put, delete]);
        assert_eq!(length(&out), Some(out.len() as u64));
        let (payload, synced) = parse(&out).unwrap();
        assert_eq!(synced, 77);
        let Payload::Txn { revision: 5, records } = payload else { panic!("{payload:?}") };
        assert_eq!(records.iter().map(|r| r.value_at).collect::<Vec<_>>(), places);
        assert_eq!((records[0].key, records[0].version, records[0].expiry_ms), (&b"/a"[..], 2, 9));
        assert_eq!((records[1].key, records[1].version), (&b"/b"[..], 0));
        for bit in 0..out.len() * 8 {
            let mut bad = out.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&bad), None, "bit {bit}");
        }
        for payload in [
            Payload::Segment { number: 7, revision: 8, compacted: 6 },
            Payload::Reserve { to: 9 },
            Payload::Gap { after: 1, before: 5 },
            Payload::Compact { revision: 4 },
            Payload::Seal,
            Payload::Clean { revision: 3 },
        ] {
            let mut out = Vec::new();
            other(&mut out, 0, &payload);
            assert_eq!(parse(&out), Some((payload, 0)));
        }
    }
}
