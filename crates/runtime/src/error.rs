//! What can go wrong, so that callers can branch.

use std::io;
use std::time::Duration;

/// A runtime or image store error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such thing.
    #[error("{kind} {id:?} not found")]
    NotFound {
        /// `sandbox`, `container` or `image`.
        kind: &'static str,
        /// What was asked for.
        id: String,
    },
    /// The thing is in the wrong state for this.
    #[error("{kind} {id} is {state}")]
    State {
        /// `sandbox` or `container`.
        kind: &'static str,
        /// Which.
        id: String,
        /// Its state, in words.
        state: String,
    },
    /// A configuration that makes no sense.
    #[error("{field}: {message}")]
    Invalid {
        /// The member of the configuration.
        field: &'static str,
        /// What is wrong.
        message: String,
    },
    /// A configuration that makes sense but is not built.
    #[error("{field}: {value} is not supported by this runtime yet")]
    Unsupported {
        /// The member of the configuration.
        field: &'static str,
        /// What it asked for.
        value: String,
    },
    /// An image name that is none.
    #[error("couldn't parse image name {name:?}: {message}")]
    Reference {
        /// The name.
        name: String,
        /// What is wrong.
        message: &'static str,
    },
    /// An image that cannot be had.
    #[error("failed to pull image {name:?}: {message}")]
    Pull {
        /// The name, normalised.
        name: String,
        /// What the registry said, or why it could not be asked.
        message: String,
    },
    /// An archive that is broken, hostile or too large.
    #[error("archive: {message}")]
    Archive {
        /// What is wrong, and where.
        message: String,
    },
    /// A program could not be started.
    #[error("{message}")]
    Start {
        /// What failed.
        message: String,
    },
    /// It took too long.
    #[error("command did not end within {after:?}")]
    Timeout {
        /// The limit.
        after: Duration,
    },
    /// The sandbox's process does not answer or has died.
    #[error("sandbox {id}: its shim is gone: {message}")]
    ShimGone {
        /// The sandbox.
        id: String,
        /// What was seen.
        message: String,
    },
    /// The shim refused a request for a reason of its own.
    #[error("shim: {message}")]
    Shim {
        /// What it said.
        message: String,
    },
    /// The operating system refused.
    #[error("{context}: {source}")]
    Io {
        /// Verb and object.
        context: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: an operating system error with what was being done.
    pub(crate) fn io<E: Into<io::Error>>(context: impl Into<String>) -> impl FnOnce(E) -> Error {
        let context = context.into();
        move |source| Error::Io { context, source: source.into() }
    }

    /// An archive that is refused.
    pub(crate) fn archive(message: impl Into<String>) -> Error {
        Error::Archive { message: message.into() }
    }
}
