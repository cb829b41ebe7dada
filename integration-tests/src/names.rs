//! Names that no other test uses, for topics, streams and consumers on a shared broker.

const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// `prefix`, an underscore and ten random letters or digits, all lower case.
#[must_use]
pub fn unique(prefix: &str) -> String {
    let random: String = std::iter::repeat_with(|| fastrand::choice(ALPHABET))
        .flatten()
        .map(|byte| char::from(*byte))
        .take(10)
        .collect();
    format!("{prefix}_{random}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_names_differ() {
        assert_ne!(unique("orders"), unique("orders"));
    }
}
