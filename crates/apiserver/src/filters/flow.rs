//! How many requests may be under way: one limit for reads, one for writes. Watches count only until they have begun.
//! Upstream: k8s.io/apiserver/pkg/server/filters/maxinflight.go.

use std::sync::Arc;

use apimachinery::call::{User, Verb, Who};
use apimachinery::{Call, Status};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Reads under way at most; upstream's default.
const READING_MAX: usize = 400;
/// Writes under way at most; upstream's default.
const MUTATING_MAX: usize = 200;
/// What a client is told to wait, in seconds.
const RETRY_AFTER_SECONDS: u32 = 1;

/// The limits and what is left of them.
pub struct Flow {
    reading: Arc<Semaphore>,
    mutating: Arc<Semaphore>,
}

impl Default for Flow {
    fn default() -> Self {
        Flow {
            reading: Arc::new(Semaphore::new(READING_MAX)),
            mutating: Arc::new(Semaphore::new(MUTATING_MAX)),
        }
    }
}

/// A place among the requests under way, until dropped. The privileged need none.
pub struct Place(#[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

impl Flow {
    /// A place for a request.
    ///
    /// # Errors
    /// 429 when there are too many.
    pub fn admit(&self, call: &Call, user: &User) -> Result<Place, Status> {
        // What connects lasts as long as people look at it; the cluster's own components must get through.
        let exempt = call.verb == Verb::Connect
            || matches!(call.who, Who::Component(_))
            || user.groups.iter().any(|g| g == "system:masters");
        if exempt {
            return Ok(Place(None));
        }
        let limit = if call.verb.is_mutating() { &self.mutating } else { &self.reading };
        match limit.clone().try_acquire_owned() {
            Ok(permit) => Ok(Place(Some(permit))),
            Err(_) => Err(Status::too_many_requests(
                "Too many requests, please try again later.",
                RETRY_AFTER_SECONDS,
            )),
        }
    }
}
