//! The thread of a session: takes reports from librdkafka, watches deadlines, and ends the client.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use onceward_core::{Batch, ErrorKind, Receipts};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message as _;
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig,
};
use tokio::sync::{Notify, oneshot, watch};
use tracing::debug;

use super::session::{Phase, Reason, Session};
use crate::topics::Topics;
use crate::{errors, log};

/// How often a session that waits for reports looks at its deadlines, and whether it goes on. Reports are taken as they come; but the
/// library asks for nothing in the last part of a millisecond of each call, over and over, so that calls must not be short.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long the reports that came before a purge are waited for, and the end of a client that a task still holds.
const LAST_LOOK: Duration = Duration::from_millis(20);

/// How often a session that waits for nothing hears what its client says about itself.
const HEAR_EVERY: Duration = Duration::from_secs(1);

/// How many words of the client are heard at a time then.
const WORDS_AT_A_TIME: usize = 16;

/// A record on its way to the client, with the number of its message.
pub(super) type Record<'a> = BaseRecord<'a, [u8], [u8], usize>;

/// What a session's task and its thread share.
pub(super) struct Shared {
    // Held for a few lookups at a time, by the task that offers and by the thread that reports; never across an await.
    session: Mutex<Session>,
    // Told when there is something to wait for, or the session no longer goes on.
    work: Condvar,
    /// Told when there may be room again, or the session no longer goes on.
    pub(super) moved: Notify,
    ended: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            session: Mutex::new(Session::new()),
            work: Condvar::new(),
            moved: Notify::new(),
            ended: watch::Sender::new(false),
        }
    }

    pub(super) fn locked(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a record to the client, unless the session is over.
    pub(super) fn send<'a>(
        &self,
        client: &Weak<BaseProducer<Reports>>,
        record: Record<'a>,
    ) -> Result<Result<(), (KafkaError, Record<'a>)>, Reason> {
        // Under the lock: what is handed over after the end would leave after what was purged before it.
        let session = self.locked();
        let open = *session.phase() == Phase::Open;
        match client.upgrade().filter(|_| open) {
            Some(client) => Ok(client.send(record)),
            None => Err(Reason::new(ErrorKind::Unavailable, "the session has ended")),
        }
    }

    /// Takes an offer and gives the number of its first message.
    pub(super) fn take(
        &self,
        batch: Arc<Batch>,
        deadline: Instant,
        done: oneshot::Sender<Receipts>,
    ) -> usize {
        let first = self.locked().take(batch, deadline, done);
        self.work.notify_one();
        first
    }

    /// Takes no more offers.
    pub(super) fn drain(&self, why: Reason) {
        self.locked().drain(why);
        self.work.notify_one();
    }

    /// Ends the session and tells everybody who waits for it.
    pub(super) fn end(&self, why: Reason) {
        self.locked().end(why);
        self.work.notify_one();
        self.moved.notify_waiters();
    }

    /// Waits until there is something to wait for from the client, for a while. Tells whether there is.
    fn has_work(&self) -> bool {
        let idle = |session: &mut Session| session.is_idle();
        let waited = self
            .work
            .wait_timeout_while(self.locked(), HEAR_EVERY, idle);
        let (session, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !session.is_idle()
    }

    /// Waits until nothing of the session leaves any more.
    pub(super) async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        // The sender lives as long as `self`, so that this cannot fail.
        drop(ended.wait_for(|ended| *ended).await);
    }

    /// Says that there never was a client.
    pub(super) fn never_began(&self) {
        self.ended.send_replace(true);
    }
}

/// Takes the reports of one client.
pub(super) struct Reports(pub(super) Arc<Shared>);

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log::line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log::client_error(&error, reason);
        if let Some(code) = error.rdkafka_error_code() {
            let mut trouble = Reason::new(errors::kind(code), reason);
            trouble.code = Some(code);
            self.0.locked().note(trouble, Instant::now());
        }
    }

    fn stats_raw(&self, _statistics: &[u8]) {}
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        match result {
            Ok(_) => {
                let answered = self.0.locked().confirm(number);
                if answered {
                    self.0.moved.notify_waiters();
                }
            }
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
                self.0.locked().refuse(number, message.partition(), code);
            }
        }
    }
}

/// Answers everything at the end of the session's thread, however it ends.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.locked().settle();
        self.0.ended.send_replace(true);
        self.0.moved.notify_waiters();
    }
}

/// Runs until the session is over; then nothing of it leaves any more, and all its offers are answered.
pub(super) fn serve(mut client: Arc<BaseProducer<Reports>>, shared: &Shared, topics: &Topics) {
    let ended = Ended(shared);
    while shared.locked().goes_on(Instant::now()) {
        if shared.has_work() {
            client.poll(LOOK_EVERY);
        } else {
            for _ in 0..WORDS_AT_A_TIME {
                client.poll(Duration::ZERO);
            }
        }
        shared.moved.notify_waiters();
    }
    client.purge(PurgeConfig::default().queue().inflight());
    // Reports that came before the purge still count; for those that never come nobody waits.
    client.poll(LAST_LOOK);
    // Before anybody learns of the refusal: the next session must ask for the limits again.
    let refused = shared.locked().refused_routes();
    topics.forget(&refused);
    drop(ended);
    // The end of the client blocks, so it must happen here: a task may hold it for the length of one call.
    loop {
        match Arc::try_unwrap(client) {
            Ok(last) => break drop(last),
            Err(still) => client = still,
        }
        std::thread::sleep(LAST_LOOK);
    }
    debug!("Kafka session has ended");
}
