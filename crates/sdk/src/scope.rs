//! Where jobs are added: inside groups, conditions and loops.

use std::fmt::Write;
use std::panic::Location;

use crate::ci::Ci;
use crate::condition::Condition;
use crate::job::Job;

impl Ci {
    /// Adds jobs under a condition: each of them has it, so where it does not hold they are shown as skipped, with the reason.
    #[track_caller]
    pub fn when<R>(&self, condition: impl Into<Condition>, add: impl FnOnce(&Ci) -> R) -> R {
        let mut inside = self.clone();
        inside.scope.conditions.push((condition.into().0, Location::caller()));
        add(&inside)
    }

    /// Adds jobs whose names begin with `name/`: a need of `name` means all of them.
    pub fn group<R>(&self, name: &str, add: impl FnOnce(&Ci) -> R) -> R {
        let mut inside = self.clone();
        let _ = write!(inside.scope.prefix, "{name}/");
        add(&inside)
    }

    /// Adds a job `name/VALUE` for each value, and gives what `add` made of each, in their order. Names come from the values
    /// alone, so another value changes no other job.
    #[track_caller]
    pub fn matrix<L, R>(
        &self,
        name: &str,
        values: impl IntoIterator<Item = L>,
        mut add: impl FnMut(Job, L) -> R,
    ) -> Vec<R>
    where
        L: Leg,
    {
        let mut results = Vec::new();
        for value in values {
            let job = self.job(format!("{name}/{}", value.leg()));
            results.push(add(job, value));
        }
        results
    }
}

/// A value that names a job of [`Ci::matrix`].
pub trait Leg {
    /// The name: letters, digits, `_`, `-`, and `/` between parts. Different values must have different names.
    fn leg(&self) -> String;
}

/// The text with what names cannot hold replaced by `-`.
pub(crate) fn nameable(text: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-') { letter } else { '-' };
    text.chars().map(plain).collect()
}

macro_rules! leg {
    ($($kind:ty),*) => {$(
        impl Leg for $kind {
            fn leg(&self) -> String {
                nameable(&self.to_string())
            }
        }
    )*};
}

leg!(str, String, char, bool, i8, i16, i32, i64, u8, u16, u32, u64, usize);

impl<L: Leg + ?Sized> Leg for &L {
    fn leg(&self) -> String {
        L::leg(self)
    }
}

impl<A: Leg, B: Leg> Leg for (A, B) {
    fn leg(&self) -> String {
        format!("{}/{}", self.0.leg(), self.1.leg())
    }
}

impl<A: Leg, B: Leg, C: Leg> Leg for (A, B, C) {
    fn leg(&self) -> String {
        format!("{}/{}/{}", self.0.leg(), self.1.leg(), self.2.leg())
    }
}
