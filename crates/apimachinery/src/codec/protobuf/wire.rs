//! Protobuf's wire format: tags, numbers and lengths. It knows nothing of types.
//! Source: protobuf.dev, "Encoding".

use super::ProtoError;

/// A field's value as the wire has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    pub(super) fn bytes(self, name: &'static str) -> Result<&'a [u8], ProtoError> {
        match self {
            Wire::Bytes(bytes) => Ok(bytes),
            _ => Err(ProtoError::Form(name)),
        }
    }

    pub(super) fn text(self, name: &'static str) -> Result<&'a str, ProtoError> {
        std::str::from_utf8(self.bytes(name)?).map_err(|_| ProtoError::Text(name))
    }

    pub(super) fn varint(self, name: &'static str) -> Result<u64, ProtoError> {
        match self {
            Wire::Varint(n) => Ok(n),
            _ => Err(ProtoError::Form(name)),
        }
    }
}

/// Calls `each` for every field of a message that may have come in parts: protobuf reads them as one. Groups are
/// skipped.
pub(super) fn scan<'a>(
    parts: &[&'a [u8]],
    mut each: impl FnMut(u32, Wire<'a>) -> Result<(), ProtoError>,
) -> Result<(), ProtoError> {
    for part in parts {
        let mut rest = *part;
        // How many groups are open; what lies in them is not passed on.
        let mut groups = 0usize;
        while !rest.is_empty() {
            let tag = varint(&mut rest)?;
            let number = u32::try_from(tag >> 3).ok().filter(|n| (1..1 << 29).contains(n));
            let number = number.ok_or(ProtoError::Tag(tag))?;
            let value = match tag & 7 {
                0 => Wire::Varint(varint(&mut rest)?),
                1 => Wire::Fixed64(u64::from_le_bytes(fixed(&mut rest)?)),
                2 => {
                    let len = usize::try_from(varint(&mut rest)?).map_err(|_| ProtoError::Truncated)?;
                    Wire::Bytes(take(&mut rest, len)?)
                }
                5 => Wire::Fixed32(u32::from_le_bytes(fixed(&mut rest)?)),
                3 => {
                    groups += 1;
                    continue;
                }
                4 => {
                    groups = groups.checked_sub(1).ok_or(ProtoError::Tag(tag))?;
                    continue;
                }
                _ => return Err(ProtoError::Tag(tag)),
            };
            if groups == 0 {
                each(number, value)?;
            }
        }
        if groups > 0 {
            return Err(ProtoError::Truncated);
        }
    }
    Ok(())
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], ProtoError> {
    let (head, tail) = rest.split_at_checked(len).ok_or(ProtoError::Truncated)?;
    *rest = tail;
    Ok(head)
}

fn fixed<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], ProtoError> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(ProtoError::Truncated)?;
    *rest = tail;
    Ok(*head)
}

/// A number of up to ten bytes; what does not fit into 64 bits is dropped, as in Go.
pub(super) fn varint(rest: &mut &[u8]) -> Result<u64, ProtoError> {
    let mut out = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first().ok_or(ProtoError::Truncated)?;
        *rest = tail;
        out |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(out);
        }
    }
    Err(ProtoError::Overflow)
}

pub(super) fn put_varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// A field's tag and number.
pub(super) fn put_number(field: u16, n: u64, out: &mut Vec<u8>) {
    put_varint(u64::from(field) << 3, out);
    put_varint(n, out);
}

/// A field's tag, length and bytes.
pub(super) fn put_bytes(field: u16, bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(u64::from(field) << 3 | 2, out);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// A field's tag, and the length of what `body` writes before it.
pub(super) fn put_message(field: u16, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    put_varint(u64::from(field) << 3 | 2, out);
    let at = out.len();
    out.push(0);
    body(out);
    let len = out.len() - at - 1;
    let mut prefix = Vec::with_capacity(5);
    put_varint(len as u64, &mut prefix);
    if prefix.len() == 1 {
        out[at] = prefix[0];
    } else {
        out.splice(at..=at, prefix);
    }
}
