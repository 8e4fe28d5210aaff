//! One text or several: what methods take where the native format takes either.

/// One text or several: `"main"`, `["src/**", "Cargo.*"]`, a `Vec`.
pub trait Texts {
    /// The texts in order.
    fn texts(self) -> Vec<String>;
}

impl Texts for &str {
    fn texts(self) -> Vec<String> {
        vec![self.to_owned()]
    }
}

impl Texts for String {
    fn texts(self) -> Vec<String> {
        vec![self]
    }
}

impl Texts for &String {
    fn texts(self) -> Vec<String> {
        vec![self.clone()]
    }
}

impl<T: Into<String>, const N: usize> Texts for [T; N] {
    fn texts(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<T: Into<String>> Texts for Vec<T> {
    fn texts(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<T: Clone + Into<String>> Texts for &[T] {
    fn texts(self) -> Vec<String> {
        self.iter().cloned().map(Into::into).collect()
    }
}
