//! The thread of a member: polls the group so that the member stays in it, and leaves at the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use onceward_core::SubscribeErrorKind;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::Message as _;
use tracing::{debug, warn};

use super::member::{LOOK_EVERY, Member};
use super::questions::ANSWER_WITHIN;
use super::shared::Shared;

/// How often a partition that cannot be read on is tried again.
const RESUME_EVERY: Duration = Duration::from_millis(500);

/// Tells everybody that the member has gone at the end of its thread, however it ends.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let what = "the member has left its group";
        self.0.locked().end(SubscribeErrorKind::Unavailable, what);
        self.0.ended.send_replace(true);
        self.0.moved.notify_one();
    }
}

/// Runs until the member is told to leave; then it has left.
pub(super) fn run(mut consumer: Arc<BaseConsumer<Member>>, shared: &Shared) {
    let _ended = Ended(shared);
    let member = Arc::clone(consumer.context());
    let mut next_commit = Instant::now() + member.subscription.commit_every;
    let mut next_resume = Instant::now();
    let leaves_by = loop {
        if let Some(by) = shared.leaves_by() {
            break by;
        }
        match consumer.poll(LOOK_EVERY) {
            None => {}
            Some(Ok(record)) => {
                // Not expected: every partition has its queue before it is read. Read again from there, so that it is not lost.
                let at = Offset::Offset(record.offset());
                let again = consumer.seek(record.topic(), record.partition(), at, ANSWER_WITHIN);
                warn!(
                    topic = record.topic(),
                    partition = record.partition(),
                    ?again,
                    "record outside its partition's queue"
                );
            }
            Some(Err(error)) => member.failed(error),
        }
        // In case a queue has told too early or too late.
        shared.moved.notify_one();
        let now = Instant::now();
        if now >= next_resume && !shared.locked().stuck().is_empty() {
            member.resume_stuck(&consumer);
            next_resume = Instant::now() + RESUME_EVERY;
        }
        if now >= next_commit {
            member.commit(&consumer, None, CommitMode::Async);
            next_commit = now + member.subscription.commit_every;
        }
    };
    commit_last(&member, &consumer, leaves_by);
    let untold = shared.locked().clear();
    drop(untold);
    drop(member);
    // Leaving blocks, so it must happen here: a task may hold the consumer for the length of one call.
    loop {
        match Arc::try_unwrap(consumer) {
            Ok(last) => break drop(last),
            Err(still) => consumer = still,
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Commits what is settled, again and again while the group does not take it: after a restart of the broker it may
/// need a moment. What is not committed by then comes again.
fn commit_last(member: &Member, consumer: &BaseConsumer<Member>, by: Instant) {
    loop {
        member.commit(consumer, None, CommitMode::Sync);
        if member.is_committed() || Instant::now() >= by {
            return;
        }
        // Stays in the group meanwhile, or learns that its partitions are lost: then there is nothing left to commit.
        if let Some(Err(error)) = consumer.poll(LOOK_EVERY) {
            debug!(%error, "the group cannot be read while the member leaves it");
        }
    }
}
