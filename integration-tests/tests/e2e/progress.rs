//! How far a test has come, and waiting until it has come further.

use onceward_testkit::nats::Nats;
use onceward_testkit::wait;

use crate::place::Place;
use crate::stage::{SOON, Stage};

impl Stage {
    pub(crate) async fn published(&self) -> u64 {
        let known = || async { self.ledger.published().await.ok() };
        wait::until(SOON, "the broker to tell what it has", known).await
    }

    pub(crate) async fn handled(&self) -> u64 {
        let known = || async { self.ledger.handled().await.ok() };
        wait::until(SOON, "the database to tell what took effect", known).await
    }

    /// Waits until at least so many messages, copies included, lie in the broker.
    pub(crate) async fn wait_until_published(&self, count: u64) {
        let there = || async { self.published().await >= count };
        wait::until_true(SOON, &format!("{count} messages in the broker"), there).await;
    }

    /// Waits until at least so many messages took effect.
    pub(crate) async fn wait_until_handled(&self, count: u64) {
        let there = || async { self.handled().await >= count };
        wait::until_true(SOON, &format!("{count} effects"), there).await;
    }

    /// Waits until the stored cursor has passed everything that was written, whenever that was committed. Writers must
    /// have stopped.
    pub(crate) async fn wait_until_passed(&self) {
        let statement = "
            select not exists (
              select from onceward.messages m
              where m.seq > c.last_seq or not pg_visible_in_snapshot(m.txid, c.snapshot))
            from onceward.cursors c
            where c.stream = 'events' and c.lane = 1 and c.detour = ''";
        let passed = || async {
            let answer = sqlx::query_scalar::<_, bool>(statement).fetch_optional(self.log.pool());
            answer.await.ok().flatten().unwrap_or(false)
        };
        wait::until_true(SOON, "the cursor to pass everything", passed).await;
    }

    /// Waits until JetStream has the ack of everything in the stage's stream, of a consumer that is not spread. Nothing may be published any more.
    pub(crate) async fn wait_until_all_is_acked(&self) {
        let jetstream = async_nats::jetstream::new(Nats::shared().await.client().await);
        let done = || async {
            let mut stream = jetstream.get_stream(&self.name).await.ok()?;
            let last = stream.info().await.ok()?.state.last_sequence;
            let info = stream.consumer_info(&self.name).await.ok()?;
            // A durable that was made just now may say that nothing waits for it.
            Some(info.ack_floor.stream_sequence >= last && info.num_ack_pending == 0)
        };
        wait::until_true(SOON, "the broker to have everything acked", || async {
            done().await.unwrap_or(false)
        })
        .await;
    }

    /// How many messages are parked, in any state.
    pub(crate) async fn parked(&self) -> i64 {
        sqlx::query_scalar("select count(*) from onceward.parked")
            .fetch_one(self.log.pool())
            .await
            .unwrap()
    }

    /// Waits until no key is held any more in the consumer's database.
    pub(crate) async fn wait_until_no_key_is_held(&self) {
        let database = self.elsewhere.as_ref().unwrap_or(&self.log);
        let none = || async {
            let count = sqlx::query_scalar::<_, i64>("select count(*) from onceward.held_keys");
            count
                .fetch_one(database.pool())
                .await
                .is_ok_and(|count| count == 0)
        };
        wait::until_true(SOON, "no key to be held", none).await;
    }

    /// How many messages the consumer has passed, by the positions that it has noted. None: the broker has none.
    pub(crate) async fn passed(&self) -> Option<u64> {
        let database = self.elsewhere.as_ref().unwrap_or(&self.log);
        let first = match &self.place {
            Place::Nats { .. } => 1_i64,
            Place::Kafka { .. } => 0,
            Place::Sqs { .. } => return None,
        };
        let passed: i64 = sqlx::query_scalar(
            "select coalesce(sum(highest_settled + 1 - $1), 0)::int8 from onceward.consumer_positions",
        )
        .bind(first)
        .fetch_one(database.pool())
        .await
        .unwrap();
        Some(u64::try_from(passed).unwrap())
    }
}
