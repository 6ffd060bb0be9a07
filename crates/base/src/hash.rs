//! Hash maps whose hasher is seeded from [`crate::rand`]: safe against chosen keys in production, the same
//! order of iteration in every run of one simulation seed.

use std::hash::BuildHasher;

/// A hash map with base's seeded hasher.
#[allow(clippy::disallowed_types)]
pub type Map<K, V> = std::collections::HashMap<K, V, Seeded>;
/// A hash set with base's seeded hasher.
#[allow(clippy::disallowed_types)]
pub type Set<K> = std::collections::HashSet<K, Seeded>;

/// The hasher factory behind [`Map`] and [`Set`].
#[derive(Clone)]
pub struct Seeded(ahash::RandomState);

impl Default for Seeded {
    fn default() -> Self {
        let [a, b, c, d] = crate::rand::hash_seeds();
        Seeded(ahash::RandomState::with_seeds(a, b, c, d))
    }
}

impl BuildHasher for Seeded {
    type Hasher = ahash::AHasher;
    fn build_hasher(&self) -> ahash::AHasher {
        self.0.build_hasher()
    }
}
