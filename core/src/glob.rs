//! Patterns that choose topics.

use std::fmt;

/// A pattern over topics: `*` stands for any run of characters, also an empty one and also dots.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TopicGlob(String);

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the topic pattern {0:?} must have 1 to 249 of A-Z a-z 0-9 . _ - and *")]
pub struct InvalidGlob(pub String);

impl TopicGlob {
    /// The pattern that matches every topic.
    #[must_use]
    pub fn all() -> Self {
        Self("*".to_owned())
    }

    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the topic matches.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = topic.strip_prefix(first) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            return rest.is_empty();
        };
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.len() >= last.len() && rest.ends_with(last)
    }

    /// Whether some topic could match both patterns.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        overlap(self.0.as_bytes(), other.0.as_bytes())
    }
}

/// Two patterns over one alphabet, compared position by position; `reached[j]` says that some
/// text is matched by the part of `a` so far and the first `j` bytes of `b`.
fn overlap(a: &[u8], b: &[u8]) -> bool {
    let mut reached = vec![false; b.len() + 1];
    reached[0] = true;
    for j in 0..b.len() {
        reached[j + 1] = reached[j] && b[j] == b'*';
    }
    for &x in a {
        let before = reached.clone();
        reached[0] = before[0] && x == b'*';
        for j in 0..b.len() {
            let y = b[j];
            reached[j + 1] = match (x == b'*', y == b'*') {
                (true, true) => before[j + 1] || reached[j] || before[j],
                (true, false) => before[j + 1] || reached[j],
                (false, true) => reached[j] || before[j + 1],
                (false, false) => before[j] && x == y,
            };
        }
    }
    reached[b.len()]
}

impl TryFrom<&str> for TopicGlob {
    type Error = InvalidGlob;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'*');
        if (1..=249).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidGlob(text.to_owned()))
        }
    }
}

impl fmt::Display for TopicGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn glob(text: &str) -> TopicGlob {
        TopicGlob::try_from(text).unwrap()
    }

    #[test]
    fn a_star_matches_any_run_of_characters() {
        assert!(glob("orders.*").matches("orders.created.eu"));
        assert!(glob("orders.*").matches("orders."));
        assert!(!glob("orders.*").matches("orders"));
        assert!(glob("*.created").matches("orders.created"));
        assert!(glob("a*b*c").matches("a-b-b-c"));
        assert!(!glob("a*b*c").matches("a-c"));
        assert!(!glob("ab*ba").matches("aba"));
        assert!(glob("*").matches("anything"));
        assert!(glob("orders").matches("orders"));
        assert!(!glob("orders").matches("orders2"));
    }

    #[test]
    fn overlapping_patterns_are_found() {
        assert!(glob("orders.*").overlaps(&glob("*.created")));
        assert!(glob("*").overlaps(&glob("x")));
        assert!(!glob("orders.*").overlaps(&glob("payments.*")));
        assert!(!glob("orders").overlaps(&glob("orders2")));
    }

    proptest! {
        #[test]
        fn two_patterns_that_match_one_topic_overlap(
            a in "[ab.*]{1,6}", b in "[ab.*]{1,6}", topic in "[ab.]{0,6}"
        ) {
            let (a, b) = (glob(&a), glob(&b));

            if a.matches(&topic) && b.matches(&topic) {
                prop_assert!(a.overlaps(&b) && b.overlaps(&a));
            }
        }
    }
}
