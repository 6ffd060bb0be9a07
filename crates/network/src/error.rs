//! The one error type of this room.

use std::io;
use std::path::PathBuf;

use crate::IpNet;

/// What can go wrong between a request and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{action}: {source}")]
    System {
        /// What was tried, as verb and object.
        action: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel refused one object of an nftables batch; none of the batch took effect.
    #[error("nftables refused {object}: {source}")]
    Nft {
        /// The object the error belongs to.
        object: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A reply from the kernel did not have the documented form.
    #[error("malformed netlink reply to {action}")]
    MalformedReply {
        /// What was asked.
        action: String,
    },
    /// A field of a configuration cannot be honoured.
    #[error("{field}: {reason}")]
    Config {
        /// The field's name.
        field: &'static str,
        /// Why, and what would do.
        reason: String,
    },
    /// All addresses of a pod range are in use.
    #[error("no free address in {cidr}")]
    NoFreeAddress {
        /// The range.
        cidr: IpNet,
    },
    /// A file of the state directory cannot be understood.
    #[error("state file {path}, line {line}: not an address record")]
    State {
        /// The file.
        path: PathBuf,
        /// The first bad line, from 1.
        line: usize,
    },
}

impl Error {
    /// A failed system call: `action` is verb and object.
    pub(crate) fn system(action: impl Into<String>, source: io::Error) -> Error {
        Error::System { action: action.into(), source }
    }

    /// The errno of the system call or message that failed, if one did.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::System { source, .. } | Error::Nft { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
