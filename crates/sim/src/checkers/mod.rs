//! What must hold at every moment, one checker per file, one ordered list. What must hold once all is healed is asked by
//! the story itself; that nothing acknowledged is lost, by [`crate::history`].

mod no_double_bind;
mod quota_never_exceeded;
mod unique_pod_ips;

use apimachinery::{Doc, codec};

use crate::history::Write;

/// Looks at every change of the store, in order.
pub trait Checker: Send {
    /// What it is called in accusations.
    fn name(&self) -> &'static str;
    /// A key changed; gives what is wrong with that.
    fn wrote(&mut self, write: &Write<'_>) -> Vec<String>;
}

/// All checkers.
pub fn all() -> Vec<Box<dyn Checker>> {
    vec![
        Box::new(no_double_bind::NoDoubleBind::default()),
        Box::new(quota_never_exceeded::QuotaNeverExceeded::default()),
        Box::new(unique_pod_ips::UniquePodIps::default()),
    ]
}

/// The object that was written, if the key is one of this resource (`pods`).
fn object(write: &Write<'_>, resource: &str) -> Option<Option<Doc>> {
    let rest = write.key.strip_prefix("/registry/")?.strip_prefix(resource)?;
    if !rest.starts_with('/') {
        return None;
    }
    Some(write.value.and_then(|value| Some(codec::json::parse(value.to_vec()).ok()?.doc)))
}
