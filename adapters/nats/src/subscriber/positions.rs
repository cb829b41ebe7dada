//! Whether the stream lost messages that this durable was never given. Pure.

/// How far the stream was delivered, in the stream's own numbers.
#[derive(Debug)]
pub(crate) struct Positions {
    last: u64,
    /// Whether the durable reads every message of the stream and nothing but limits removes one: only then is a gap in the
    /// numbers a loss. Else the numbers of messages on other subjects, or of acked ones, are missing rightly.
    whole: bool,
}

impl Positions {
    /// Everything up to `last` is settled.
    pub(crate) fn settled_up_to(last: u64, whole: bool) -> Self {
        Self { last, whole }
    }

    /// A delivery came. Tells the position expected and the one that came, if messages between them are lost.
    pub(crate) fn arrived(&mut self, sequence: u64) -> Option<(u64, u64)> {
        let expected = self.last + 1;
        self.last = self.last.max(sequence);
        (self.whole && sequence > expected).then_some((expected, sequence))
    }
}

/// Whether one of these filters takes every subject that the stream takes.
pub(crate) fn reads_everything(filters: &[String], stream_subjects: &[String]) -> bool {
    let covered = |subject: &String| filters.iter().any(|filter| covers(filter, subject));
    filters.is_empty() || stream_subjects.iter().all(covered)
}

/// Whether every subject that matches `inner` matches `outer` too.
fn covers(outer: &str, inner: &str) -> bool {
    let (mut outer, mut inner) = (outer.split('.'), inner.split('.'));
    loop {
        match (outer.next(), inner.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(wanted), Some(token)) if wanted == token && token != "*" => {}
            (Some(_) | None, Some(_) | None) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_a_loss_only_where_every_message_is_read() {
        let mut whole = Positions::settled_up_to(4, true);
        let mut part = Positions::settled_up_to(4, false);

        assert_eq!(whole.arrived(5), None);
        assert_eq!(whole.arrived(9), Some((6, 9)));
        assert_eq!(whole.arrived(7), None);
        assert_eq!(whole.arrived(10), None);
        assert_eq!(part.arrived(9), None);
    }

    #[test]
    fn a_filter_covers_what_all_of_its_subjects_match() {
        for (outer, inner, expected) in [
            ("a.>", "a.b", true),
            ("a.>", "a.>", true),
            (">", "a.*", true),
            ("a.*", "a.b", true),
            ("a.*", "a.*", true),
            ("a.*", "a.>", false),
            ("a.b", "a.*", false),
            ("a.b", "a.b", true),
            ("a.>", "a", false),
            ("a.b", "a.b.c", false),
            ("*.b", "*.b", true),
        ] {
            assert_eq!(covers(outer, inner), expected, "{outer} over {inner}");
        }
        assert!(reads_everything(&[], &["a".to_owned()]));
        assert!(!reads_everything(
            &["a".to_owned()],
            &["a".to_owned(), "b".to_owned()]
        ));
    }
}
