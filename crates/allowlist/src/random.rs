//! Random bytes from the system, or from a seed in simulations.

/// Random bytes that cannot be guessed.
///
/// # Panics
/// The system has no random generator, without which nothing here is safe.
pub fn bytes<const LENGTH: usize>() -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    #[cfg(feature = "test-util")]
    if seeded::fill(&mut bytes) {
        return bytes;
    }
    getrandom::fill(&mut bytes).expect("the system's random generator works");
    bytes
}

/// Randomness that is the same in each run.
#[cfg(feature = "test-util")]
pub mod seeded {
    use std::cell::Cell;

    thread_local!(static STATE: Cell<Option<u64>> = const { Cell::new(None) });

    /// From here on, all random bytes of this thread are determined by the seed. Only for simulations.
    pub fn seed(seed: u64) {
        STATE.set(Some(seed));
    }

    /// Fills `bytes` by SplitMix64; false if this thread has no seed.
    pub(super) fn fill(bytes: &mut [u8]) -> bool {
        let Some(mut state) = STATE.get() else { return false };
        for chunk in bytes.chunks_mut(8) {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes()[..chunk.len()]);
        }
        STATE.set(Some(state));
        true
    }
}
