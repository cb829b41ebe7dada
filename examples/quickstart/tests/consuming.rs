//! The handlers that `docs/consuming.md` shows as types of their own: they compile, they do what the page says, and the page shows
//! them word for word.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod snippets;

use onceward_consumer::{BatchSettings, Consumer, HandlerSettings, Message};
use onceward_core::MAX_PAYLOAD;
use onceward_memory::MemoryBroker;
use onceward_testkit::postgres::Postgres;
use snippets::{read, snippets, stands_in};

mod payments {
    use onceward_consumer::{Handler, HandlerError, Message, Tx};

    struct Payments {
        currency: &'static str,
    }

    impl Handler for Payments {
        async fn handle(&self, message: &Message, tx: &mut Tx) -> Result<(), HandlerError> {
            let Some(customer) = &message.key else {
                return Err(HandlerError::reject("a payment has a key"));
            };
            sqlx::query("insert into payments (customer, currency, body) values ($1, $2, $3)")
                .bind(customer.as_str())
                .bind(self.currency)
                .bind(&message.payload[..])
                .execute(&mut **tx)
                .await?;
            Ok(())
        }
    }

    pub(super) fn handler() -> impl Handler {
        Payments { currency: "EUR" }
    }
}

mod clicks {
    use std::sync::Arc;

    use onceward_consumer::{BatchHandler, BatchTx, HandlerError, Message};

    struct Clicks {
        site: i64,
    }

    impl BatchHandler for Clicks {
        async fn handle(
            &self,
            messages: &[Arc<Message>],
            tx: &mut BatchTx,
        ) -> Result<(), HandlerError> {
            let bodies: Vec<&[u8]> = messages.iter().map(|one| &one.payload[..]).collect();
            sqlx::query("insert into clicks (site, body) select $1, * from unnest($2::bytea[])")
                .bind(self.site)
                .bind(bodies)
                .execute(&mut **tx)
                .await?;
            Ok(())
        }
    }

    pub(super) fn handler() -> impl BatchHandler {
        Clicks { site: 7 }
    }
}

#[tokio::test]
async fn handlers_that_are_types_get_whole_messages() {
    let database = Postgres::shared().await.database().await;
    let pool = sqlx::PgPool::connect(database.url()).await.unwrap();
    onceward_migrations::run(&pool).await.unwrap();
    let tables = "create table payments (customer text, currency text, body bytea);
                  create table clicks (site bigint, body bytea)";
    sqlx::raw_sql(tables).execute(&pool).await.unwrap();
    let broker = MemoryBroker::new();
    let paid = |topic, body: &str| Message::bytes(topic, body.as_bytes().to_vec());
    for draft in [
        paid("payments.made", "5").key("ada"),
        paid("payments.made", "6"),
        paid("clicks.seen", "a"),
        paid("clicks.seen", "b"),
    ] {
        broker
            .publish(draft.finish(MAX_PAYLOAD).unwrap().message)
            .unwrap();
    }

    let consumer = Consumer::builder("docs")
        .pool(pool.clone())
        .handler("payments.*", payments::handler())
        .batch("clicks.*", clicks::handler())
        .with(HandlerSettings {
            batch: BatchSettings {
                messages: 500,
                ..Default::default()
            },
            ..Default::default()
        })
        .build()
        .unwrap();
    let member = broker.subscriber("docs", &["payments.made", "clicks.seen"]);
    let settled = consumer.run_until_idle(member).await.unwrap();

    assert_eq!((settled.handled, settled.dead), (3, 1));
    let payment: (String, String, Vec<u8>) = sqlx::query_as("select * from payments")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(payment, ("ada".to_owned(), "EUR".to_owned(), b"5".to_vec()));
    let clicks: Vec<(i64, Vec<u8>)> = sqlx::query_as("select * from clicks order by body")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(clicks, [(7, b"a".to_vec()), (7, b"b".to_vec())]);
}

#[test]
fn the_page_shows_these_handlers() {
    let source = read("examples/quickstart/tests/consuming.rs");
    let shown = snippets("docs/consuming.md", "rust");

    let types: Vec<&String> = shown
        .iter()
        .filter(|snippet| snippet.contains("\nimpl "))
        .collect();

    assert_eq!(types.len(), 2);
    for snippet in types {
        assert!(stands_in(snippet, &source), "not in this file:\n{snippet}");
    }
}
