//! The variables of a process to be, in one piece of memory: each attempt makes them anew, and most are always the same.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// An environment: values by name, sorted by name, no name twice. A copy costs two pieces of memory, however many there are.
#[derive(Clone, Default)]
pub struct Variables {
    /// `name=value` one after the other; also values that were replaced.
    text: Vec<u8>,
    places: Vec<Place>,
    /// Whether a variable was ever set that no process can be given.
    is_doubtful: bool,
}

/// Where a variable stands in the text.
#[derive(Clone, Copy)]
struct Place {
    start: usize,
    equals: usize,
    end: usize,
}

impl Variables {
    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: impl AsRef<OsStr>) -> Option<&OsStr> {
        let index = self.find(name.as_ref().as_bytes()).ok()?;
        Some(self.at(self.places[index]).1)
    }

    /// Sets a variable, in place of what it was.
    pub fn insert(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) {
        let (name, value) = (name.as_ref().as_bytes(), value.as_ref().as_bytes());
        let start = self.text.len();
        let place = Place { start, equals: start + name.len(), end: start + name.len() + 1 + value.len() };
        match self.find(name) {
            Ok(index) => self.places[index] = place,
            Err(index) => self.places.insert(index, place),
        }
        let is_name = !name.is_empty() && memchr::memchr2(b'=', 0, name).is_none();
        self.is_doubtful |= !is_name || memchr::memchr(0, value).is_some();
        self.text.extend_from_slice(name);
        self.text.push(b'=');
        self.text.extend_from_slice(value);
    }

    /// Takes a variable away, if it is there.
    pub fn remove(&mut self, name: impl AsRef<OsStr>) {
        if let Ok(index) = self.find(name.as_ref().as_bytes()) {
            self.places.remove(index);
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Names and values, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.places.iter().map(|place| self.at(*place))
    }

    /// Whether some name may be empty or hold `=`, or something hold NUL; if not, nothing does.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.is_doubtful
    }

    /// Each as `name=value`, with the length of its name, in order of name.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&[u8], usize)> {
        self.places.iter().map(|place| (&self.text[place.start..place.end], place.equals - place.start))
    }

    /// Where a variable of this name is, or would be.
    fn find(&self, name: &[u8]) -> Result<usize, usize> {
        self.places.binary_search_by(|place| self.text[place.start..place.equals].cmp(name))
    }

    fn at(&self, place: Place) -> (&OsStr, &OsStr) {
        let (name, value) = (&self.text[place.start..place.equals], &self.text[place.equals + 1..place.end]);
        (OsStr::from_bytes(name), OsStr::from_bytes(value))
    }
}

impl std::fmt::Debug for Variables {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

impl<Name: AsRef<OsStr>, Value: AsRef<OsStr>> Extend<(Name, Value)> for Variables {
    fn extend<Pairs: IntoIterator<Item = (Name, Value)>>(&mut self, pairs: Pairs) {
        for (name, value) in pairs {
            self.insert(name, value);
        }
    }
}

impl<Name: AsRef<OsStr>, Value: AsRef<OsStr>> FromIterator<(Name, Value)> for Variables {
    fn from_iter<Pairs: IntoIterator<Item = (Name, Value)>>(pairs: Pairs) -> Self {
        let mut variables = Self::default();
        variables.extend(pairs);
        variables
    }
}

#[cfg(test)]
mod tests {
    use super::Variables;

    #[test]
    fn the_last_value_of_a_name_stands() {
        let mut variables: Variables = [("B", "1"), ("A", "x=y"), ("B", ""), ("C", "3")].into_iter().collect();
        variables.remove("C");
        variables.remove("none");
        assert_eq!(format!("{variables:?}"), r#"{"A": "x=y", "B": ""}"#);
        assert_eq!((variables.get("B"), variables.get("C")), (Some("".as_ref()), None));
        let pairs: Vec<_> = variables.pairs().collect();
        assert_eq!(pairs, [(&b"A=x=y"[..], 1), (b"B=", 1)]);
        assert_eq!((variables.len(), variables.is_empty()), (2, false));
        for (name, value) in [("", "1"), ("a=b", "1"), ("a\0", "1"), ("a", "\0")] {
            assert!([(name, value)].into_iter().collect::<Variables>().is_doubtful());
        }
        assert!(!variables.is_doubtful());
    }
}
