//! Patches: from a document and a patch to a new document.

pub mod json;
pub mod merge;
pub mod strategic;
