//! Choices at random that a seed repeats, for the stress tests.

use std::{env, time::Duration};

/// xorshift64*: random enough, and the same on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of `UMCG_STRESS_SEED`, or one that begins with the time. Prints the seed, so
    /// that the choices of a run that failed can be repeated.
    ///
    /// # Panics
    /// If the variable is no number.
    #[must_use]
    pub fn from_env() -> Self {
        let clock = std::time::UNIX_EPOCH
            .elapsed()
            .map_or(1, |time| time.as_nanos() as u64);
        let seed = number("UMCG_STRESS_SEED", clock);
        println!("UMCG_STRESS_SEED={seed}");
        // Zero would be followed by zeros.
        Self(seed | 1)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number from 0 to `end`, without `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    /// True once in `many` times.
    pub fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    /// A time of less than `below` microseconds.
    pub fn micros(&mut self, below: u64) -> Duration {
        Duration::from_micros(self.below(below))
    }

    /// Another sequence, for a task of its own.
    #[must_use]
    pub fn split(&mut self) -> Self {
        Self(self.draw() | 1)
    }
}

/// The number in an environment variable, or `default` if it is not set.
///
/// # Panics
/// If the variable is no number.
#[must_use]
pub fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text}: want a number"))
    })
}
