//! Errors as texts.

use std::error::Error;

/// The error and all its causes as one line, with `: ` between.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Trouble {
        #[error("cannot read the list")]
        List(#[source] Box<Trouble>),
        #[error("no such file")]
        Absent,
    }

    #[test]
    fn every_cause_is_told_once() {
        let file = Trouble::List(Box::new(Trouble::Absent));
        assert_eq!(with_causes(&file), "cannot read the list: no such file");
        assert_eq!(
            with_causes(&Trouble::List(Box::new(file))),
            "cannot read the list: cannot read the list: no such file"
        );
    }
}
