//! What each built-in kind is: names, versions, defaults, validation, columns. One file per kind, one explicit
//! list; all of it synchronous and without IO. Only the API server sees this room.

pub mod generic;
pub mod kind;
mod list;
pub mod print;
mod suggest;

pub use kind::{
    Action, Allocations, Cell, Class, Column, Generation, Kind, NameRule, Op, ScalePaths, Scope,
    SelectableField, Strategy, Sub, SubKind, Version,
};
pub use list::kinds;
pub use suggest::suggest;
