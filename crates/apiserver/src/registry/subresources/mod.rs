//! Parts of objects with paths of their own: one file each. `/status` and its like need none: they are updates whose
//! rules `api::generic` knows.

pub mod binding;
pub mod eviction;
pub mod finalize;
pub mod scale;
