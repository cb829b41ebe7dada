//! Partitioned subjects: one configuration becomes one per partition. Pure.

use onceward_core::SubscribeError;

use super::durable::misconfigured;
use crate::config::SubscriberConfig;

/// More would only cost requests: a partition is the unit that a member takes.
const MOST: u16 = 256;

/// What a member reads, one configuration per partition.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    /// Whether members share out the partitions; else there is one durable, for which all of them stand by.
    pub(crate) spread: bool,
    pub(crate) configs: Vec<SubscriberConfig>,
}

/// Splits a configuration into one per partition, if its subjects are partitioned.
///
/// # Errors
/// `Misconfigured` when the partitions would not be a partition of what is read.
pub(crate) fn split(config: &SubscriberConfig) -> Result<Parts, SubscribeError> {
    let counts = config.subjects.iter().map(|subject| count_in(subject));
    let counts: Vec<Option<u16>> = counts.collect::<Result<_, _>>()?;
    let Some(count) = counts.iter().copied().flatten().next() else {
        return Ok(Parts {
            spread: false,
            configs: vec![config.clone()],
        });
    };
    for (subject, other) in config.subjects.iter().zip(counts) {
        if other != Some(count) {
            return Err(misconfigured(format!(
                "the subject {subject} has not {{partition/{count}}} as the others have; all subjects of a member are spread over the same number of partitions"
            )));
        }
    }
    refuse_overlap(&config.subjects)?;
    let configs = (0..count).map(|number| SubscriberConfig {
        durable: format!("{}-{number}", config.durable),
        subjects: numbered(&config.subjects, &number.to_string()),
        ..config.clone()
    });
    Ok(Parts {
        spread: true,
        configs: configs.collect(),
    })
}

/// How many partitions a subject is spread over; none: it is not.
fn count_in(subject: &str) -> Result<Option<u16>, SubscribeError> {
    let refused = |why: &str| Err(misconfigured(format!("the subject {subject} {why}")));
    let mut found = None;
    for token in subject.split('.') {
        if !token.contains(['{', '}']) {
            continue;
        }
        let inner = token.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
        let number = inner.and_then(|inner| inner.strip_prefix("partition/"));
        let Some(number) = number else {
            return refused(
                "has braces in another place than a whole token {partition/8}, between dots",
            );
        };
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        let count = number.parse::<u16>().ok().filter(|_| digits);
        let Some(count) = count.filter(|count| (1..=MOST).contains(count)) else {
            return refused("has a number of partitions that is not from 1 to 256");
        };
        if found.replace(count).is_some() {
            return refused("has two tokens {partition/…}; a message has one partition");
        }
    }
    Ok(found)
}

/// A message that two of the subjects take, in different places, would be in two partitions.
fn refuse_overlap(subjects: &[String]) -> Result<(), SubscribeError> {
    let any = numbered(subjects, "*");
    for (index, one) in any.iter().enumerate() {
        for (later, other) in any.iter().enumerate().skip(index + 1) {
            if overlap(one, other) {
                return Err(misconfigured(format!(
                    "the subjects {} and {} can take one and the same message, which would be in two partitions",
                    subjects[index], subjects[later]
                )));
            }
        }
    }
    Ok(())
}

fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (None, None) | (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(a), Some(b)) if a == "*" || b == "*" || a == b => {}
            (Some(_) | None, Some(_) | None) => return false,
        }
    }
}

/// The subjects with that in place of the token.
fn numbered(subjects: &[String], number: &str) -> Vec<String> {
    let token = |token: &str| {
        let token = if token.starts_with('{') {
            number
        } else {
            token
        };
        token.to_owned()
    };
    let tokens = subjects.iter().map(|subject| subject.split('.').map(token));
    tokens
        .map(|tokens| tokens.collect::<Vec<_>>().join("."))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(subjects: &[&str]) -> SubscriberConfig {
        SubscriberConfig::new("billing", subjects.iter().copied())
    }

    #[test]
    fn each_partition_has_a_durable_with_the_subjects_of_its_number() {
        let config = config(&["shop.orders.*.{partition/3}", "shop.{partition/3}.paid"]);

        let parts = split(&config).unwrap();

        assert!(parts.spread);
        let read = |n: usize| {
            let part = &parts.configs[n];
            (part.durable.as_str(), part.subjects.join(" "))
        };
        assert_eq!(parts.configs.len(), 3);
        assert_eq!(
            read(0),
            ("billing-0", "shop.orders.*.0 shop.0.paid".to_owned())
        );
        assert_eq!(
            read(2),
            ("billing-2", "shop.orders.*.2 shop.2.paid".to_owned())
        );
    }

    #[test]
    fn without_partitions_everything_stays_as_it_is() {
        let parts = split(&config(&["shop.orders.>", "shop.payments"])).unwrap();

        assert!(!parts.spread);
        assert_eq!(parts.configs.len(), 1);
        assert_eq!(parts.configs[0].durable, "billing");
        assert_eq!(
            parts.configs[0].subjects,
            ["shop.orders.>", "shop.payments"]
        );
    }

    #[test]
    fn partitions_that_are_none_are_refused_with_a_clear_text() {
        for (subjects, words) in [
            (&["a.{partition/0}"][..], "from 1 to 256"),
            (&["a.{partition/257}"], "from 1 to 256"),
            (&["a.{partition/+8}"], "from 1 to 256"),
            (&["a.{partition/}"], "from 1 to 256"),
            (&["a.x{partition/8}"], "whole token"),
            (&["a.{partition/8}x.b"], "whole token"),
            (&["a.{partition}"], "whole token"),
            (&["a.{topic}.{partition/8}"], "whole token"),
            (&["a.{partition/8}.{partition/8}"], "two tokens"),
            (&["a.{partition/8}", "b.{partition/4}"], "b.{partition/4}"),
            (&["a.{partition/8}", "b.c"], "b.c has not"),
            (&["b.c", "a.{partition/8}"], "b.c has not"),
            (
                &["a.0.{partition/8}", "a.{partition/8}.1"],
                "two partitions",
            ),
            (
                &["a.{partition/8}.>", "a.*.{partition/8}"],
                "two partitions",
            ),
        ] {
            let error = split(&config(subjects)).unwrap_err();

            assert!(error.what.contains(words), "{subjects:?}: {}", error.what);
        }
    }

    #[test]
    fn subjects_overlap_if_one_message_fits_both() {
        for (one, other, expected) in [
            ("a.*", "a.b", true),
            ("a.*", "b.*", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            ("a.*", "a.*.c", false),
            ("*.b", "a.*", true),
        ] {
            assert_eq!(overlap(one, other), expected, "{one} and {other}");
            assert_eq!(overlap(other, one), expected, "{other} and {one}");
        }
    }
}
