//! PrioritySort: the highest priority first, then who waits longest. Upstream: plugins/queuesort.

use crate::framework::{Member, QueueSort};
use crate::info::PodInfo;

/// The plugin.
pub const MEMBER: Member = Member { queue_sort: Some(&PrioritySort), ..Member::new("PrioritySort") };

struct PrioritySort;

impl QueueSort for PrioritySort {
    fn rank(&self, pod: &PodInfo, since: i128) -> (i64, i128) {
        (-pod.priority, since)
    }
}
