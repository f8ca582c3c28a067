//! CHAP: who asks proves that it knows a secret without telling it (RFC 1994; RFC 7143, section 12.1.3).

use std::fmt;

use md5::{Digest, Md5};
use sha2::Sha256;

/// The shortest secret that may be used without IPsec, in bytes (RFC 7143, section 9.2.1: 96 bits).
pub const MIN_SECRET_BYTES: usize = 12;

/// Of a challenge that we make, in bytes.
pub const CHALLENGE_BYTES: usize = 32;

/// The longest challenge or response of others: nothing may be longer than 1024 bytes (section 12.1.3).
pub(super) const MAX_BINARY_BYTES: usize = 1024;

/// What an initiator has to know, and what it may ask of the target.
#[derive(Clone, PartialEq, Eq)]
pub struct Chap {
    pub name: String,
    pub secret: Vec<u8>,
    /// What the target answers with when the initiator asks it for a proof too.
    pub mutual: Option<Mutual>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Mutual {
    pub name: String,
    pub secret: Vec<u8>,
}

/// How a response is computed, by its number (IANA, "PPP Authentication Algorithms").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Md5,
    Sha256,
}

impl Algorithm {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Md5 => 5,
            Self::Sha256 => 7,
        }
    }

    /// The better one of a list that we know.
    pub(super) fn best_of(list: &str) -> Option<Self> {
        let offers = |it: Self| list.split(',').any(|number| number.trim() == it.number().to_string());
        [Self::Sha256, Self::Md5].into_iter().find(|it| offers(*it))
    }

    /// RFC 1994, section 4.1: the hash of the identifier, the secret and the challenge.
    pub(super) fn response(self, identifier: u8, secret: &[u8], challenge: &[u8]) -> Vec<u8> {
        match self {
            Self::Md5 => hash(Md5::new(), identifier, secret, challenge),
            Self::Sha256 => hash(Sha256::new(), identifier, secret, challenge),
        }
    }
}

fn hash<D: Digest>(hasher: D, identifier: u8, secret: &[u8], challenge: &[u8]) -> Vec<u8> {
    hasher.chain_update([identifier]).chain_update(secret).chain_update(challenge).finalize().to_vec()
}

/// Whether they are equal, in a time that does not tell where they differ.
pub(super) fn is_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

impl fmt::Debug for Chap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chap").field("name", &self.name).field("mutual", &self.mutual).finish_non_exhaustive()
    }
}

impl fmt::Debug for Mutual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutual").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_better_algorithm_is_taken() {
        assert_eq!(Algorithm::best_of("5,6,7"), Some(Algorithm::Sha256));
        assert_eq!(Algorithm::best_of("5"), Some(Algorithm::Md5));
        assert_eq!(Algorithm::best_of("6,8"), None);
    }

    /// Computed with Python's hashlib: identifier 1, "secretsecret", sixteen bytes 0 to 15.
    #[test]
    fn responses_are_the_hash_of_identifier_secret_and_challenge() {
        let challenge: Vec<u8> = (0..16).collect();
        let hex = |algorithm: Algorithm| crate::text::hex(&algorithm.response(1, b"secretsecret", &challenge));
        assert_eq!(hex(Algorithm::Md5), "0x226dc576c33f04ff9c3a200ffe35f442");
        assert_eq!(hex(Algorithm::Sha256), "0x024aef34e176668b34ec2bf7f5525e3bf7f0e94d7cec77cb07d08c3d5a8e23ca");
    }
}
