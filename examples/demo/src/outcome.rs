//! What is said at the end: the ledger's verdict, in words and as JSON. Pure.

use std::fmt;

use onceward_testkit::ledger::{Facts, Verdict, judge};
use serde::Serialize;

/// How a run went, besides what its books say.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Course {
    pub(crate) dead_letters: u64,
    /// Deliveries that came again and had no effect, as the consumers count them.
    pub(crate) duplicates_absorbed: u64,
    /// Requests that customers got no good answer to.
    pub(crate) requests_failed: u64,
    /// Whether everything had arrived before the waiting ended.
    pub(crate) drained: bool,
    /// Processes that did not end in good order when asked to.
    pub(crate) ended_badly: Vec<String>,
    /// What was to be done to the processes, and could not be.
    pub(crate) left_out: Vec<&'static str>,
}

/// The end of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    /// Whether the promise was kept.
    pub(crate) kept: bool,
    orders_committed: u64,
    messages_published: u64,
    invoices_written: u64,
    lost: u64,
    doubled: u64,
    out_of_order: u64,
    /// Copies at the broker beyond the first of each message.
    copies_at_broker: u64,
    #[serde(flatten)]
    course: Course,
    ledger: Verdict,
}

impl Outcome {
    pub(crate) fn new(facts: &Facts, course: Course) -> Self {
        let ledger = judge(facts);
        Self {
            // This run gives no reason for a dead letter.
            kept: ledger.is_green() && course.dead_letters == 0 && proves(&ledger, &course),
            orders_committed: ledger.committed,
            messages_published: ledger.published,
            invoices_written: ledger.handled.unwrap_or_default() + ledger.doubled_effects,
            lost: ledger.lost.max(ledger.missing_effects),
            doubled: ledger.doubled_effects,
            out_of_order: ledger.out_of_order + ledger.effects_out_of_order,
            copies_at_broker: ledger.duplicates,
            course,
            ledger,
        }
    }
}

/// Nothing is proven by a run without orders, or in which nobody was killed.
fn proves(ledger: &Verdict, course: &Course) -> bool {
    ledger.committed > 0 && course.left_out.is_empty()
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "The ledger: what was committed, against what came of it")?;
        let rows = [
            ("orders committed", self.orders_committed),
            ("invoices written", self.invoices_written),
            ("lost", self.lost),
            ("doubled", self.doubled),
            ("out of order", self.out_of_order),
        ];
        for (name, count) in rows {
            writeln!(f, "  {name:<24}{count:>9}")?;
        }
        writeln!(
            f,
            "  {:<24}{:>9}   ({})",
            "duplicates absorbed",
            self.copies_at_broker.max(self.course.duplicates_absorbed),
            self.duplicates()
        )?;
        self.oddities(f)?;
        let verdict = if self.kept {
            "The promise was kept."
        } else if self.ledger.is_green() && self.course.dead_letters == 0 {
            "NOTHING IS PROVEN: the run did not go as it should."
        } else {
            "THE PROMISE WAS BROKEN."
        };
        write!(f, "\n{verdict}")
    }
}

impl Outcome {
    /// Where they came from, or why there may have been none.
    fn duplicates(&self) -> String {
        if self.copies_at_broker.max(self.course.duplicates_absorbed) == 0 {
            return "none came: nobody was killed between a commit and its ack, or the broker dropped the copy itself".to_owned();
        }
        format!(
            "copies at the broker: {}; deliveries dropped by the consumers: {}",
            self.copies_at_broker, self.course.duplicates_absorbed
        )
    }

    /// What there is to say only if something went another way than it should.
    fn oddities(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.course.dead_letters > 0 {
            writeln!(f, "  {:<24}{:>9}", "dead letters", self.course.dead_letters)?;
        }
        if self.course.requests_failed > 0 {
            writeln!(
                f,
                "  {:<24}{:>9}",
                "requests failed", self.course.requests_failed
            )?;
        }
        if !self.course.drained {
            writeln!(f, "  not everything had arrived when the waiting ended")?;
        }
        for what in &self.course.left_out {
            writeln!(f, "  {what}")?;
        }
        for name in &self.course.ended_badly {
            writeln!(f, "  {name} did not end in good order when asked to")?;
        }
        if !self.ledger.is_green() {
            write!(f, "\n{}", self.ledger)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use onceward_testkit::ledger::{Arrival, Committed, Effect};
    use uuid::Uuid;

    use super::*;

    fn facts() -> Facts {
        let ids = [1, 2].map(Uuid::from_u128);
        let committed = |(version, id): (i64, Uuid)| Committed {
            id,
            key: Some("ada".to_owned()),
            version,
            payload: None,
        };
        let arrival = |(position, id): (u64, Uuid)| Arrival {
            id: Some(id),
            key: Some("ada".to_owned()),
            payload: Vec::new(),
            partition: "ORDERS".into(),
            position,
        };
        Facts {
            committed: (1..).zip(ids).map(committed).collect(),
            arrivals: (1..).zip(ids).map(arrival).collect(),
            effects: Some(ids.map(|id| Effect { id }).to_vec()),
            ..Facts::default()
        }
    }

    fn outcome(facts: &Facts, dead_letters: u64) -> Outcome {
        let course = Course {
            dead_letters,
            drained: true,
            ..Course::default()
        };
        Outcome::new(facts, course)
    }

    #[test]
    fn books_that_agree_keep_the_promise() {
        let outcome = outcome(&facts(), 0);

        assert!(outcome.kept);
        assert!(outcome.to_string().ends_with("The promise was kept."));
    }

    #[test]
    fn a_run_without_duplicates_says_that_none_came() {
        let mut outcome = outcome(&facts(), 0);
        assert!(outcome.to_string().contains("0   (none came: "));

        outcome.course.duplicates_absorbed = 2;
        assert!(
            outcome
                .to_string()
                .contains("2   (copies at the broker: 0; deliveries dropped by the consumers: 2)")
        );
    }

    #[test]
    fn what_is_lost_doubled_or_out_of_order_breaks_it_and_is_told() {
        let mut lost = facts();
        lost.effects = lost.effects.map(|effects| effects[..1].to_vec());
        let mut doubled = facts();
        doubled.effects = doubled
            .effects
            .map(|effects| [&effects[..], &effects[..1]].concat());
        let mut reversed = facts();
        reversed.effects = reversed
            .effects
            .map(|effects| effects.into_iter().rev().collect());

        for (facts, expected) in [
            (lost, (1, 0, 0)),
            (doubled, (0, 1, 0)),
            (reversed, (0, 0, 1)),
        ] {
            let outcome = outcome(&facts, 0);

            let told = (outcome.lost, outcome.doubled, outcome.out_of_order);
            assert_eq!(told, expected);
            assert!(!outcome.kept);
            assert!(outcome.to_string().contains("BROKEN"));
        }
    }

    #[test]
    fn a_run_in_which_nobody_was_killed_proves_nothing_and_says_so() {
        let course = Course {
            left_out: vec!["no relay was killed: none was at work"],
            ..Course::default()
        };

        let outcome = Outcome::new(&facts(), course);

        assert!(!outcome.kept);
        let told = outcome.to_string();
        assert!(told.contains("no relay was killed") && told.contains("NOTHING IS PROVEN"));
    }

    #[test]
    fn a_dead_letter_breaks_the_promise_whoever_was_killed() {
        let course = Course {
            dead_letters: 1,
            left_out: vec!["no relay was killed: none was at work"],
            ..Course::default()
        };

        let told = Outcome::new(&facts(), course).to_string();

        assert!(told.contains("THE PROMISE WAS BROKEN"), "{told}");
    }

    #[test]
    fn a_dead_letter_or_no_orders_at_all_prove_nothing() {
        assert!(!outcome(&facts(), 1).kept);
        let nothing = Facts {
            effects: Some(Vec::new()),
            ..Facts::default()
        };
        assert!(!outcome(&nothing, 0).kept);
    }
}
