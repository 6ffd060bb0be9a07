//! Kubernetes' protobuf: the `k8s\0` envelope (`runtime.Unknown`) around a message whose shape is read from the schema
//! table, so that there is no code of any one kind here.
//!
//! What is read is untrusted: depth, lengths and numbers are checked, unknown fields are skipped. What was read has Go's
//! explicit zeros in it; `schema::decode` brings it into normal form, as it does JSON. What is written is what Go's
//! generated code writes, byte for byte: scalars always unless they are pointers, maps in the order of their keys.
//! Packed lists and groups are read and never written.
//! Upstream: k8s.io/apimachinery/pkg/runtime/serializer/protobuf, generated.pb.go of k8s.io/api.

mod read;
mod wire;
mod write;

pub use read::to_doc;
pub use write::{envelope, from_doc, list, object, watch_frame};

use crate::codec::json::{JsonError, Parsed};
use crate::doc::TEXT_BYTES_MAX;
use wire::scan;

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// What an enveloped object begins with.
pub const PREFIX: &[u8] = b"k8s\0";
/// The longest message that is read, in bytes: the text of its document is at most eight times as long.
pub const MESSAGE_BYTES_MAX: usize = TEXT_BYTES_MAX / 8;
/// How deep enveloped objects may lie in each other (a `List` of `List`s).
const NESTED_MAX: usize = 8;

/// Why bytes are no object.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProtoError {
    /// The prefix is missing.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoEnvelope,
    /// The bytes end within a field, or a length points beyond them.
    #[error("unexpected EOF")]
    Truncated,
    /// A number of more than 64 bits.
    #[error("proto: integer overflow")]
    Overflow,
    /// A field with a number or form that protobuf does not have.
    #[error("proto: illegal tag {0}")]
    Tag(u64),
    /// A field is not of the form that its type has.
    #[error("proto: wrong wireType for field {0:?}")]
    Form(&'static str),
    /// Text that is not UTF-8.
    #[error("proto: field {0:?} contains invalid UTF-8")]
    Text(&'static str),
    /// A value that the type does not have, such as a time in no year.
    #[error("proto: field {0:?} holds an impossible value")]
    Value(&'static str),
    /// JSON within the message is none.
    #[error("field {field:?}: {source}")]
    Json {
        /// Where.
        field: &'static str,
        /// Why.
        #[source]
        source: JsonError,
    },
    /// Messages nested deeper than [`crate::codec::json::DEPTH_MAX`], or too many envelopes in each other.
    #[error("exceeded max depth")]
    TooDeep,
    /// Longer than [`MESSAGE_BYTES_MAX`].
    #[error("message is too large")]
    TooLarge,
    /// The envelope says that its content is compressed or of another type.
    #[error("content type {0:?} within a protobuf envelope is not supported")]
    Content(String),
    /// The schema table has no such kind.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind {
        /// The envelope's `apiVersion`.
        api_version: String,
        /// The envelope's `kind`.
        kind: String,
    },
}

/// An opened envelope. Upstream: `runtime.Unknown`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unknown<'a> {
    /// `apiVersion`; may be empty.
    pub api_version: &'a str,
    /// `kind`; may be empty.
    pub kind: &'a str,
    /// The message.
    pub raw: &'a [u8],
    /// Empty for protobuf.
    pub content_type: &'a str,
    /// Empty for bytes as they are.
    pub content_encoding: &'a str,
}

/// Opens an envelope.
///
/// # Errors
/// [`ProtoError`] when the bytes are none.
pub fn decode(bytes: &[u8]) -> Result<Unknown<'_>, ProtoError> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(ProtoError::TooLarge);
    }
    let inner = bytes.strip_prefix(PREFIX).ok_or(ProtoError::NoEnvelope)?;
    let mut out = Unknown::default();
    scan(&[inner], |number, value| {
        match number {
            1 => scan(&[value.bytes("typeMeta")?], |number, value| {
                match number {
                    1 => out.api_version = value.text("apiVersion")?,
                    2 => out.kind = value.text("kind")?,
                    _ => {}
                }
                Ok(())
            })?,
            2 => out.raw = value.bytes("raw")?,
            3 => out.content_encoding = value.text("contentEncoding")?,
            4 => out.content_type = value.text("contentType")?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(out)
}

/// Reads an enveloped object of a kind that the schema table knows. Its values are as they were sent: bring it into
/// normal form with [`crate::schema::decode::decode`].
///
/// # Errors
/// [`ProtoError`] when the bytes are none, or of a kind that is not known.
pub fn read(bytes: &[u8]) -> Result<Parsed, ProtoError> {
    read::enveloped(bytes, 0, 0).map(|(doc, _)| Parsed { doc, duplicates: Vec::new() })
}

#[cfg(test)]
mod tests;
