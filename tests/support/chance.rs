//! Chance that can be repeated: the seed of a run is printed, and taken from the environment.

/// xorshift64*: all that a test needs of chance.
pub(crate) struct Chance {
    state: u64,
    pub(crate) seed: u64,
}

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            state: seed | 1,
            seed,
        }
    }

    /// From `GROUPSHOT_TEST_SEED`, else a seed of its own, which it prints.
    pub(crate) fn from_environment() -> Self {
        let seed = std::env::var("GROUPSHOT_TEST_SEED")
            .ok()
            .map(|s| s.parse().unwrap());
        let seed = seed.unwrap_or_else(|| {
            u64::from_le_bytes(*uuid::Uuid::new_v4().as_bytes().first_chunk().unwrap())
        });
        eprintln!(
            "GROUPSHOT_TEST_SEED={seed} repeats the moments of this run, as far as the machine allows"
        );
        Self::new(seed)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let value = self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        value as usize % limit
    }
}
