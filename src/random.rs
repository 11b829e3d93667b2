//! Random numbers: secrets from the operating system, and a fast generator for everything that is not
//! secret, which tests can seed.

use std::hash::{BuildHasher, RandomState};

use ring::rand::{SecureRandom, SystemRandom};

/// A fast generator (SplitMix64) for the choice of peers and intervals. Never for secrets.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// A generator that nobody can foresee at its start.
    pub fn from_system() -> Rng {
        Rng(RandomState::new().hash_one(0))
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `bound` - 1, or 0 where `bound` is 0. The bias is below 2^-32 for any swarm.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }
}

/// `BYTES` random bytes from the operating system as hex digits, for passkeys and API keys.
pub fn secret<const BYTES: usize>() -> Result<String, String> {
    let mut bytes = [0; BYTES];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| "the operating system provides no random numbers".to_string())?;
    Ok(hex(&bytes))
}

pub fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The bytes of hex digits, if there is nothing else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some((digit(high)? * 16 + digit(low)?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_that_is_none_is_refused() {
        assert_eq!(unhex("00fFa1"), Some(vec![0, 255, 161]));
        assert_eq!(hex(&[0, 255, 161]), "00ffa1");
        for broken in ["0", "0g", "+1", "é0"] {
            assert_eq!(unhex(broken), None);
        }
    }
}
