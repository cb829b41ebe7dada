//! What a consumer sets up before its member runs, and what goes on beside that.

use std::pin::Pin;
use std::sync::Arc;

use onceward_core::{Capabilities, Subscriber};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::Consumer;
use crate::age::outlives_marks;
use crate::clock::DatabaseClock;
use crate::commits::Commits;
use crate::health::{Health, Probe};
use crate::keeper::{Keep, Keeper, Link};
use crate::member::Member;
use crate::meters::Meters;
use crate::nudge::Nudge;
use crate::plan::places::Places;
use crate::register::register;
use crate::room::Room;
use crate::sql::Statements;
use crate::transaction::{Database, Sequences};
use crate::types::Types;
use crate::work::Workshop;
use crate::{ConsumerError, Limits, Settled, gauges, ring, schema};

type SettingUp = Pin<Box<dyn Future<Output = Result<Ready, ConsumerError>> + Send>>;

/// A consumer whose member may run.
struct Ready {
    shop: Workshop,
    limits: Limits,
    places: Places,
    background: JoinSet<()>,
    _nudge: Option<Nudge>,
}

impl Consumer {
    pub(super) async fn start<S: Subscriber>(
        self,
        subscriber: S,
        stop: CancellationToken,
        until_idle: bool,
    ) -> Result<Settled, ConsumerError> {
        let mut ready = self.setting_up(subscriber.capabilities()).await?;
        let sizes = (ready.limits, ready.places);
        let member = Member::new(Arc::new(ready.shop), sizes, until_idle, subscriber);
        tokio::select! {
            ended = Box::pin(member.run(stop)) => ended,
            Some(ended) = ready.background.join_next() => Err(ConsumerError::task(ended.err())),
        }
    }

    /// Boxed in a function without types of the user's: so all of it is compiled once, in this crate.
    fn setting_up(self, broker: Capabilities) -> SettingUp {
        Box::pin(self.set_up(broker))
    }

    /// All that does not depend on the subscriber's type.
    async fn set_up(self, broker: Capabilities) -> Result<Ready, ConsumerError> {
        let link = self.enter().await?;
        let clock = DatabaseClock::ask(&self.pool).await;
        let clock = clock.map_err(ConsumerError::Database)?;
        let commits = Commits::ask(&self.pool).await;
        let commits = commits.map_err(ConsumerError::Database)?;
        let sequences = self.by_sequence.then(|| Sequences::new(clock.now()));
        let (health, meters) = (Health::new(), Meters::new(&self.name));
        let nudge = Nudge::start();
        let mut background = self.background(&health, &meters, commits);
        let places = self.places();
        let limits = Limits {
            concurrency: places.limit,
            ..self.limits.clone()
        };
        warn_of_retention(&broker);
        info!(consumer = %self.name, broker = broker.broker, concurrency = limits.concurrency, "the consumer starts");
        let statements = Statements::new(self.schema);
        let (keeper, asked) = Keeper::new();
        let keep = Keep {
            link,
            statements: statements.clone(),
            consumer: self.name.clone(),
            member: Uuid::now_v7(),
        };
        background.spawn(keep.run(asked));
        let shop = Workshop {
            database: Database {
                pool: self.pool,
                statements,
                consumer: self.name,
                commits,
                outbound: self.outbound,
                sequences,
            },
            routes: self.routes,
            defaults: self.defaults,
            clock,
            health,
            meters,
            kill: CancellationToken::new(),
            types: Types::new(self.failing_types),
            keeper,
            room: Room::of_process(),
        };
        // Before anything is handled: a type may be paused.
        let asked = shop.ask_for_paused_types().await;
        asked.map_err(ConsumerError::Database)?;
        Ok(Ready {
            shop,
            limits,
            places,
            background,
            _nudge: nudge,
        })
    }

    /// Refuses a database where a consumer could not do its work, and says there that it starts.
    async fn enter(&self) -> Result<Link, ConsumerError> {
        let sends = self.outbound.is_some();
        let rights = schema::check(&self.pool, &self.schema, sends).await?;
        schema::altered::refuse(&self.pool, &self.schema, &rights).await?;
        let link = Link::beside(&self.pool);
        // What is done to the connections of a pool may give them another role.
        schema::check(link.own(), &self.schema, false).await?;
        register(&self.pool, &self.schema, &self.name).await;
        Ok(link)
    }

    /// What goes on beside the loop, and never ends.
    fn background(&self, health: &Health, meters: &Meters, commits: Commits) -> JoinSet<()> {
        let (pool, schema) = (self.pool.clone(), self.schema.clone());
        let mut background = JoinSet::new();
        let probe = Probe {
            pool: pool.clone(),
            schema: schema.clone(),
            consumer: self.name.clone(),
            commits,
        };
        background.spawn(health.clone().keep_probing(probe));
        background.spawn(ring::keep(pool.clone(), schema.clone()));
        let (name, meters) = (self.name.clone(), meters.clone());
        background.spawn(gauges::keep(pool, schema, name, meters));
        background
    }

    /// Each handler holds a connection: more places than the pool has connections would only wait for one another.
    fn places(&self) -> Places {
        let connections = self.pool.options().get_max_connections();
        let connections = usize::try_from(connections).unwrap_or(usize::MAX);
        let wanted = self.limits.concurrency;
        let places = Places::within_pool(wanted, connections);
        if places.limit < wanted {
            let concurrency = places.limit;
            info!(
                connections,
                wanted, concurrency, "the pool limits the concurrency"
            );
        }
        places
    }
}

fn warn_of_retention(broker: &Capabilities) {
    if let Some(retention) = outlives_marks(broker) {
        warn!(
            broker = broker.broker,
            ?retention,
            marks = ?ring::RETENTION,
            "the broker keeps messages for longer than marks are kept; one that it repeats after that is handled again; keep the broker's retention at 7 days or less"
        );
    }
}
