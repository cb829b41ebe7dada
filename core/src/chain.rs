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
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Some libraries repeat their source in their own text.
            if !said.ends_with(&text) {
                said.push_str(": ");
                said.push_str(&text);
            }
            next = cause.source();
        }
        f.write_str(&one_line(said))
    }
}

/// A text in one line: what stands in lines of their own is set apart by semicolons, or follows its colon.
fn one_line(text: String) -> String {
    if !text.contains(['\n', '\r']) {
        return text;
    }
    let lines = text.split(['\n', '\r']).map(str::trim);
    let mut joined = String::with_capacity(text.len());
    for line in lines.filter(|line| !line.is_empty()) {
        if joined.ends_with([':', ';', ',']) {
            joined.push(' ');
        } else if !joined.is_empty() {
            joined.push_str("; ");
        }
        joined.push_str(line);
    }
    joined
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
    fn what_a_library_says_in_several_lines_is_told_in_one() {
        let kind = SubscribeErrorKind::Unauthorized;
        let source = "no credentials. Attempted:\n  Environment: none\r\n  Profile: none\n";
        let error = SubscribeError::with_source(kind, "SQS", source);

        assert_eq!(
            super::Chain(&error).to_string(),
            "SQS: no credentials. Attempted: Environment: none; Profile: none"
        );
    }

    #[test]
    fn what_a_source_says_again_is_said_once() {
        let kind = SubscribeErrorKind::Unavailable;
        let again = SubscribeError::with_source(kind, "no answer: refused", "refused");

        assert_eq!(super::Chain(&again).to_string(), "no answer: refused");
    }
}
