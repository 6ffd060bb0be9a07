//! The explicit, ordered list of built-in kinds. Discovery follows this order within a group; where one kind is in
//! several groups, its first version says where it belongs.

use std::sync::{Arc, LazyLock};

use crate::kind::Kind;
use crate::{apps, coordination, core, discovery, networking, node, rbac, reviews, scheduling};

/// Every built-in kind, virtual ones included.
pub fn kinds() -> Vec<Arc<Kind>> {
    all().to_vec()
}

pub(crate) fn all() -> &'static [Arc<Kind>] {
    static ALL: LazyLock<Vec<Arc<Kind>>> = LazyLock::new(|| {
        let mut all: Vec<Kind> = Vec::new();
        all.extend(core::kinds());
        all.extend(reviews::kinds());
        all.extend(apps::kinds());
        all.push(coordination::lease());
        all.push(discovery::endpoint_slice());
        all.extend(networking::kinds());
        all.push(node::runtime_class());
        all.extend(rbac::kinds());
        all.push(scheduling::priority_class());
        all.into_iter().map(Arc::new).collect()
    });
    &ALL
}
