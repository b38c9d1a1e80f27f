//! Splitmix64: the same seed gives the same choices on every machine.

pub struct Random(u64);

impl Random {
    pub fn of(seed: u64, name: &str) -> Random {
        let mix = name.bytes().fold(seed, |sum, byte| {
            sum.wrapping_mul(0x100_0000_01b3) ^ u64::from(byte)
        });
        Random(mix)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, and without, `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for at in (1..all.len()).rev() {
            all.swap(at, self.below(at as u64 + 1) as usize);
        }
    }
}
