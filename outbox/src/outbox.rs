//! Writes messages to the log, in the caller's transaction.

use onceward_core::{Draft, Entry, MAX_PAYLOAD, MessageId, Schema};
use sqlx::{PgConnection, SqlStr};

use crate::statement::{INSERT, INSERT_ONE, Row};
use crate::{EnqueueError, Statement, sql, trace};

/// Enqueues messages. Cheap to clone; make one and keep it.
///
/// ```no_run
/// use onceward::{Message, Outbox};
/// # async fn example(pool: sqlx::PgPool, order: serde_json::Value) -> Result<(), Box<dyn std::error::Error>> {
/// let outbox = Outbox::new();
/// let mut transaction = pool.begin().await?;
/// // … lock or change the order first, then say so:
/// let message = Message::json("orders.created", &order)?.key(17).header("tenant", "acme");
/// outbox.enqueue(&mut transaction, message).await?;
/// transaction.commit().await?; // now, and only now, it will be published
/// # Ok(())
/// # }
/// ```
///
/// **Order.** Messages with one key keep the order in which their transactions were *enqueued*, so enqueue after you have
/// locked or changed what the message is about. Two lanes have no order between them.
///
/// **Poolers.** Behind a transaction pooler that knows no prepared statements, connect with
/// `statement_cache_capacity(0)`, as for every other query of yours.
#[derive(Debug, Clone)]
pub struct Outbox {
    schema: Schema,
    max_payload: usize,
    insert: SqlStr,
    insert_one: SqlStr,
}

impl Outbox {
    /// The outbox in the schema `onceward`, for payloads of up to 1,000,000 bytes.
    #[must_use]
    pub fn new() -> Self {
        Self::in_schema(Schema::default())
    }

    /// The outbox in a schema of another name.
    #[must_use]
    pub fn in_schema(schema: Schema) -> Self {
        Self {
            max_payload: MAX_PAYLOAD,
            insert: sql::render(&schema, INSERT),
            insert_one: sql::render(&schema, INSERT_ONE),
            schema,
        }
    }

    /// The largest payload that is taken, in bytes. Above 1,000,000, check that your broker takes it too: most
    /// allow 1 MiB for payload and headers together unless they are told otherwise.
    #[must_use]
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.max_payload = bytes;
        self
    }

    /// Enqueues one message in the transaction of `connection`, or at once if there is none.
    ///
    /// # Errors
    /// - [`EnqueueError::Invalid`]: correct the message; the transaction can go on.
    /// - [`EnqueueError::NoSchema`], [`EnqueueError::Forbidden`]: set up the database.
    /// - [`EnqueueError::Database`]: roll back, and try the whole transaction again.
    ///
    /// # Cancel safety
    /// If the future is dropped, roll the transaction back: the message may or may not be in it.
    pub async fn enqueue(
        &self,
        connection: &mut PgConnection,
        draft: Draft,
    ) -> Result<MessageId, EnqueueError> {
        let row = Row::from(self.finish(0, draft)?);
        sqlx::query(self.insert_one.clone())
            .bind(row.lane)
            .bind(row.id)
            .bind(row.topic)
            .bind(row.key)
            .bind(row.kind)
            .bind(row.headers)
            .bind(row.payload)
            .execute(connection)
            .await
            .map_err(|error| EnqueueError::from_database(&self.schema, error))?;
        Ok(MessageId::Uuid(row.id))
    }

    /// Enqueues any number of messages in their order, with one statement, and returns their ids.
    ///
    /// # Errors
    /// Those of [`enqueue`](Self::enqueue), and [`EnqueueError::DuplicateId`]. None of the messages is written then.
    ///
    /// # Cancel safety
    /// If the future is dropped, roll the transaction back: the messages may or may not be in it.
    pub async fn enqueue_many(
        &self,
        connection: &mut PgConnection,
        drafts: impl IntoIterator<Item = Draft>,
    ) -> Result<Vec<MessageId>, EnqueueError> {
        let statement = self.statement(drafts)?;
        if statement.is_empty() {
            return Ok(Vec::new());
        }
        sqlx::query(self.insert.clone())
            .bind(statement.lanes)
            .bind(&statement.ids)
            .bind(statement.topics)
            .bind(statement.keys)
            .bind(statement.kinds)
            .bind(statement.headers)
            .bind(statement.payloads)
            .execute(connection)
            .await
            .map_err(|error| EnqueueError::from_database(&self.schema, error))?;
        Ok(statement.ids.into_iter().map(MessageId::Uuid).collect())
    }

    /// What [`enqueue_many`](Self::enqueue_many) would run, for another driver to run.
    ///
    /// # Errors
    /// [`EnqueueError::Invalid`] and [`EnqueueError::DuplicateId`].
    pub fn statement(
        &self,
        drafts: impl IntoIterator<Item = Draft>,
    ) -> Result<Statement, EnqueueError> {
        let entries = drafts
            .into_iter()
            .enumerate()
            .map(|(position, draft)| self.finish(position, draft))
            .collect::<Result<Vec<Entry>, EnqueueError>>()?;
        Statement::new(self.insert.clone(), entries)
    }

    fn finish(&self, position: usize, draft: Draft) -> Result<Entry, EnqueueError> {
        trace::finish(draft, self.max_payload)
            .map_err(|source| EnqueueError::Invalid { position, source })
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}
