//! Gives deliveries back, and decides what of them is tried again if that fails.

use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::acker::{SqsAcker, SqsToken};

/// Tries in all to give a delivery back: about a minute, if SQS answers at once. One that was not given back comes again once its
/// visibility has run out.
const TRIES: u32 = 20;

/// A delivery that goes back to SQS.
#[derive(Debug, Clone)]
pub(super) struct Return {
    pub(super) token: SqsToken,
    /// How often that was tried in vain.
    pub(super) tries: u32,
}

impl From<SqsToken> for Return {
    fn from(token: SqsToken) -> Self {
        Self { token, tries: 0 }
    }
}

/// What could not be given back.
#[derive(Debug)]
struct Left {
    again: Vec<Return>,
    /// How many were tried as often as they may be.
    given_up: usize,
}

/// Counts a try that has failed. Those of them that are no longer ours need not be given back: they were, or their time has run out.
fn after_failure(returns: Vec<Return>, is_ours: impl Fn(&SqsToken) -> bool) -> Left {
    let ours = returns.into_iter().filter(|one| is_ours(&one.token));
    let tried = ours.map(|one| Return {
        tries: one.tries + 1,
        ..one
    });
    let (again, given_up): (Vec<_>, Vec<_>) = tried.partition(|one| one.tries < TRIES);
    Left {
        again,
        given_up: given_up.len(),
    }
}

/// Has deliveries visible again. Gives those that are to be tried again.
///
/// # Cancel safety
/// Dropping it may leave them as they were, or visible: each comes again.
pub(super) async fn give_back(acker: SqsAcker, returns: Vec<Return>) -> Vec<Return> {
    let asked = returns.len();
    let tokens = returns.iter().map(|one| one.token.clone()).collect();
    let Err(error) = acker.show(tokens, Duration::ZERO).await else {
        return Vec::new();
    };
    let now = Instant::now();
    let Left { again, given_up } = after_failure(returns, |token| acker.has(token, now));
    if given_up > 0 {
        warn!(count = given_up, tries = TRIES, %error, "deliveries could not be given back; they come again once their visibility has run out");
    }
    debug!(asked, again = again.len(), %error, "not all deliveries could be given back");
    again
}

#[cfg(test)]
mod tests {
    use super::*;

    fn returns(numbers: std::ops::Range<u64>) -> Vec<Return> {
        let of = |number| Return {
            token: SqsToken {
                number,
                queue: 0,
                group: None,
                receipt: "r".into(),
                received: Instant::now(),
            },
            tries: 0,
        };
        numbers.map(of).collect()
    }

    #[test]
    fn what_is_no_longer_held_is_not_given_back_again() {
        let left = after_failure(returns(0..4), |token| token.number >= 2);

        let again = left.again.iter().map(|one| (one.token.number, one.tries));
        assert_eq!(again.collect::<Vec<_>>(), [(2, 1), (3, 1)]);
        assert_eq!(left.given_up, 0);
    }

    #[test]
    fn a_delivery_that_can_never_be_given_back_is_forgotten_in_the_end() {
        let (mut left, mut tries) = (returns(0..1), 0);
        let given_up = loop {
            tries += 1;
            let after = after_failure(left, |_| true);
            if after.again.is_empty() {
                break after.given_up;
            }
            left = after.again;
        };

        assert_eq!((tries, given_up), (TRIES, 1));
    }
}
