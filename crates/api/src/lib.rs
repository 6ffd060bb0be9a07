//! What each built-in kind is: names, versions, defaults, validation, columns. One file per kind, one explicit
//! list; all of it synchronous and without IO. Only the API server sees this room.

mod apps;
mod coordination;
pub mod core;
mod discovery;
pub mod generic;
mod ingress;
pub mod kind;
mod list;
mod networking;
mod node;
pub mod print;
mod rbac;
mod reviews;
mod rules;
mod scheduling;
mod suggest;
#[cfg(test)]
mod tests;
mod workload;

pub use ingress::CLASS_ANNOTATION as INGRESS_CLASS_ANNOTATION;
pub use kind::{
    Action, Allocations, Cell, Class, Column, Generation, Kind, NameRule, Op, ScalePaths, Scope,
    SelectableField, Strategy, Sub, SubKind, Version,
};
pub use list::kinds;
pub use reviews::token_request_defaults;
pub use suggest::suggest;
