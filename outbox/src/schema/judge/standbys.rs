//! Judges whether publishing can wait for the standbys that it is told to wait for. Pure.

use super::super::{Facts, Finding};

/// What keeps messages that wait for these standbys from being published.
pub(super) fn judge(facts: &Facts, wanted: &[String]) -> Vec<Finding> {
    let server = &facts.server;
    if wanted.is_empty() || server.standby {
        return Vec::new();
    }
    if !server.sees_all_stats {
        // The server shows the name of a standby to everybody, and how far it is to these only.
        return vec![Finding::problem(
            "standby_hidden",
            format!(
                "the user {} may not see how far the standby {} is, so nothing that waits for it would ever be published",
                server.user,
                wanted.join(", ")
            ),
            format!("grant pg_read_all_stats to {}", server.user),
        )];
    }
    let connected = |name: &&String| {
        let mut names = server.standbys.iter().filter_map(|s| s.name.as_ref());
        names.any(|known| known == *name)
    };
    let absent = wanted.iter().filter(|name| !connected(name));
    absent
        .map(|name| {
            Finding::warning(
                "standby_absent",
                format!("no standby with the application_name {name:?} is connected: what waits for it is not published meanwhile"),
                "start it, or correct the stream's `standby`",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::sound;
    use super::*;
    use crate::schema::Standby;

    fn codes(facts: &Facts, wanted: &[&str]) -> Vec<&'static str> {
        let wanted: Vec<String> = wanted.iter().map(|&name| name.to_owned()).collect();
        judge(facts, &wanted).iter().map(|f| f.code).collect()
    }

    #[test]
    fn a_standby_that_is_waited_for_must_be_there_and_seen() {
        let mut facts = sound();
        facts.server.standbys.push(Standby {
            name: Some("one".to_owned()),
            state: None,
            sync_state: None,
            behind_bytes: None,
        });

        assert_eq!(codes(&facts, &["one"]), [""; 0]);
        assert_eq!(codes(&facts, &["one", "two"]), ["standby_absent"]);
        facts.server.sees_all_stats = false;
        assert_eq!(codes(&facts, &["one"]), ["standby_hidden"]);
    }

    #[test]
    fn who_waits_for_no_standby_need_not_see_any() {
        let mut facts = sound();
        facts.server.sees_all_stats = false;

        assert_eq!(codes(&facts, &[]), [""; 0]);
    }
}
