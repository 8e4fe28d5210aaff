//! What nobody can guess.

use graph::hex;
use ring::rand::{SecureRandom, SystemRandom};

/// This many random bytes as hexadecimal digits, two a byte.
///
/// # Panics
/// If the system gives no random numbers.
pub(crate) fn random_digits<const BYTES: usize>() -> String {
    let mut bytes = [0; BYTES];
    SystemRandom::new().fill(&mut bytes).expect("the system has random numbers");
    hex::digits(&bytes)
}
