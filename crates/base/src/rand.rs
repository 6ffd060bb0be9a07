//! Randomness: the operating system's in production, a seeded generator inside [`crate::sim`].
//!
//! Not for keys and certificates: those come from the TLS library's own generator.

use std::cell::RefCell;
use std::sync::OnceLock;

/// SplitMix64: small, well distributed, one word of state. Source: Steele, Lea, Flood, OOPSLA 2014.
#[derive(Clone, Debug)]
pub struct SplitMix(u64);

impl SplitMix {
    /// A generator whose whole sequence follows from `seed`.
    pub fn new(seed: u64) -> Self {
        SplitMix(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..n`; 0 when `n` is 0. The bias is below 2⁻³² for `n` under 2³².
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }
}

thread_local! {
    static SEEDED: RefCell<Option<SplitMix>> = const { RefCell::new(None) };
}

/// How many bytes a thread asks the operating system for at once.
const POOL_BYTES: usize = 512;

thread_local! {
    /// Random bytes, and how many of them have not been given out.
    static POOL: RefCell<([u8; POOL_BYTES], usize)> = const { RefCell::new(([0; POOL_BYTES], 0)) };
}

/// Makes this thread's randomness follow `seed`, or the operating system again with `None`.
pub(crate) fn install(seed: Option<u64>) {
    SEEDED.with(|s| *s.borrow_mut() = seed.map(SplitMix::new));
}

/// Fills `out` with random bytes.
///
/// # Panics
/// When the operating system has no randomness to give, without which nothing here is safe to run.
pub fn fill(out: &mut [u8]) {
    let seeded = SEEDED.with(|s| {
        let mut s = s.borrow_mut();
        let Some(generator) = s.as_mut() else { return false };
        for chunk in out.chunks_mut(8) {
            let word = generator.next_u64().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        true
    });
    if seeded {
        return;
    }
    POOL.with(|pool| {
        let (bytes, left) = &mut *pool.borrow_mut();
        if *left < out.len() {
            *left = bytes.len();
            os_fill(bytes);
        }
        match left.checked_sub(out.len()) {
            Some(rest) => {
                out.copy_from_slice(&bytes[rest..*left]);
                *left = rest;
            }
            None => os_fill(out),
        }
    });
}

#[allow(unsafe_code)]
fn os_fill(out: &mut [u8]) {
    let mut done = 0;
    while done < out.len() {
        // SAFETY: the pointer and length describe the rest of a live, writable slice.
        let got = unsafe { libc::getrandom(out[done..].as_mut_ptr().cast(), out.len() - done, 0) };
        match usize::try_from(got) {
            Ok(n) => done += n,
            Err(_) => {
                let err = std::io::Error::last_os_error();
                assert!(err.kind() == std::io::ErrorKind::Interrupted, "getrandom: {err}");
            }
        }
    }
}

/// 64 random bits.
pub fn u64() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// A random number in `0..n`; 0 when `n` is 0.
pub fn below(n: u64) -> u64 {
    ((u128::from(u64()) * u128::from(n)) >> 64) as u64
}

/// A random fraction in `0.0..1.0`.
pub fn fraction() -> f64 {
    (u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// A random (version 4) UUID in its usual text form. Source: RFC 9562.
pub fn uuid() -> String {
    let mut b = [0u8; 16];
    fill(&mut b);
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    // By hand: every request draws one, and formatting is most of the work.
    let mut out = vec![b'-'; 36];
    let mut at = 0;
    for (i, byte) in b.into_iter().enumerate() {
        at += usize::from(matches!(i, 4 | 6 | 8 | 10));
        for digit in [byte >> 4, byte & 0xf] {
            out[at] = b"0123456789abcdef"[usize::from(digit)];
            at += 1;
        }
    }
    String::from_utf8(out).expect("digits and dashes")
}

/// Seeds for [`crate::hash`]: fixed inside a simulation (iteration order must follow from the seed of the
/// run, not from how many maps were made before), one draw per process outside.
pub(crate) fn hash_seeds() -> [u64; 4] {
    if SEEDED.with(|s| s.borrow().is_some()) {
        return [1, 2, 3, 4];
    }
    static SEEDS: OnceLock<[u64; 4]> = OnceLock::new();
    *SEEDS.get_or_init(|| [u64(), u64(), u64(), u64()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence() {
        let draw = |seed| {
            install(Some(seed));
            let out = (uuid(), u64(), below(10));
            install(None);
            out
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn uuid_has_version_and_variant() {
        let id = uuid();
        assert_eq!(id.len(), 36);
        assert_eq!(id.as_bytes()[14], b'4');
        assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
    }
}
