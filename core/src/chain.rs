//! An error with what lies behind it, for people.

use std::error::Error;
use std::fmt;

/// An error and its sources in one line, as in `the subscription is refused: no such stream`. Our errors show it as their `Debug` too:
/// that is what a program prints whose `main` returns one.
#[derive(Debug, Clone, Copy)]
pub struct Chain<'e>(pub &'e dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Some libraries repeat their source in their own text.
            if !said.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            said = text;
            next = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::{SubscribeError, SubscribeErrorKind};

    #[test]
    fn a_program_that_returns_our_error_from_main_prints_what_happened_and_why() {
        let broken = std::io::Error::other("connection refused");
        let kind = SubscribeErrorKind::Unavailable;
        let error = SubscribeError::with_source(kind, "the broker does not answer", broken);

        assert_eq!(
            format!("{error:?}"),
            "the broker does not answer: connection refused"
        );
    }

    #[test]
    fn what_a_source_says_again_is_said_once() {
        let kind = SubscribeErrorKind::Unavailable;
        let again = SubscribeError::with_source(kind, "no answer: refused", "refused");

        assert_eq!(super::Chain(&again).to_string(), "no answer: refused");
    }
}
