//! Keys in order, where the place of each can be told without counting all before it.

use crate::schedule::Key;

/// The most keys of one piece.
const PIECE_MAX: usize = 512;

/// A sorted set in pieces. Insertion, removal and rank cost one search and at most one step for every
/// [`PIECE_MAX`] keys: of 100,000 keys some 400 steps.
#[derive(Debug, Default)]
pub(crate) struct Ranked {
    /// Sorted, none empty.
    pieces: Vec<Vec<Key>>,
    len: usize,
}

impl Ranked {
    pub fn insert(&mut self, key: Key) -> bool {
        let index = self.piece_of(key);
        let Some(piece) = self.pieces.get_mut(index) else {
            self.pieces.push(vec![key]);
            self.len += 1;
            return true;
        };
        let Err(place) = piece.binary_search(&key) else { return false };
        piece.insert(place, key);
        if piece.len() > PIECE_MAX {
            let rest = piece.split_off(PIECE_MAX / 2);
            self.pieces.insert(index + 1, rest);
        }
        self.len += 1;
        true
    }

    pub fn remove(&mut self, key: Key) -> bool {
        let index = self.piece_of(key);
        let Some(piece) = self.pieces.get_mut(index) else { return false };
        let Ok(place) = piece.binary_search(&key) else { return false };
        piece.remove(place);
        if piece.is_empty() {
            self.pieces.remove(index);
        }
        self.len -= 1;
        true
    }

    pub fn first(&self) -> Option<Key> {
        self.pieces.first().map(|piece| piece[0])
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many keys are smaller.
    pub fn rank(&self, key: Key) -> usize {
        let index = self.piece_of(key);
        let before: usize = self.pieces[..index.min(self.pieces.len())].iter().map(Vec::len).sum();
        before + self.pieces.get(index).map_or(0, |piece| piece.partition_point(|&other| other < key))
    }

    /// The keys larger than `after`, or all.
    pub fn after(&self, after: Option<Key>) -> impl Iterator<Item = Key> + use<'_> {
        let index = after.map_or(0, |after| self.piece_of(after));
        let pieces = self.pieces.get(index..).unwrap_or_default();
        pieces.iter().flatten().copied().filter(move |&key| after.is_none_or(|after| key > after))
    }

    pub fn iter(&self) -> impl Iterator<Item = Key> + use<'_> {
        self.pieces.iter().flatten().copied()
    }

    /// The piece in which a key is or belongs.
    fn piece_of(&self, key: Key) -> usize {
        self.pieces.partition_point(|piece| piece[0] <= key).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use graph::BuildId;
    use proptest::prelude::*;

    use super::{PIECE_MAX, Ranked};

    proptest! {
        #[test]
        fn it_is_a_sorted_set_with_ranks(steps in proptest::collection::vec((any::<bool>(), 0..3000_u32), 1..6000)) {
            let (mut ranked, mut set) = (Ranked::default(), BTreeSet::new());
            for (is_inserted, number) in steps {
                let key = (BuildId(u64::from(number % 7)), number, number);
                if is_inserted {
                    prop_assert_eq!(ranked.insert(key), set.insert(key));
                } else {
                    prop_assert_eq!(ranked.remove(key), set.remove(&key));
                }
                prop_assert_eq!(ranked.len(), set.len());
                prop_assert_eq!(ranked.first(), set.first().copied());
            }
            prop_assert!(ranked.iter().eq(set.iter().copied()));
            for (place, &key) in set.iter().enumerate().step_by(PIECE_MAX / 8) {
                prop_assert_eq!(ranked.rank(key), place);
            }
        }
    }
}
