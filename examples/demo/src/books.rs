//! What the ledger rests on: the tables of both services and the tap, and nobody's word.

use std::collections::HashMap;

use onceward_testkit::ledger::{Arrival, Committed, Effect, Facts, Tap};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;

use crate::Failure;
use crate::servers::Servers;

/// Where the books lie.
#[derive(Debug)]
pub(crate) struct Books {
    shop: PgPool,
    billing: PgPool,
    tap: Tap,
}

/// How far things have come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Orders whose transaction committed.
    pub(crate) committed: u64,
    /// Messages at the broker, copies included.
    pub(crate) published: u64,
    /// Invoices.
    pub(crate) handled: u64,
    /// Dead letters.
    pub(crate) dead: u64,
}

/// An order, as the service writes it into its table and into its message: same fields, same order.
#[derive(Debug, Serialize, Deserialize, sqlx::FromRow)]
struct Order {
    id: Uuid,
    customer: String,
    number: i64,
    cents: i64,
}

#[derive(Debug, sqlx::FromRow)]
struct Invoice {
    order_id: Uuid,
    cents: i64,
}

impl Books {
    pub(crate) fn of(servers: &Servers) -> Self {
        Self {
            shop: servers.shop.clone(),
            billing: servers.billing.clone(),
            tap: servers.broker.tap(),
        }
    }

    /// Counts. Never more invoices than orders, unless something is wrong.
    pub(crate) async fn progress(&self) -> Result<Progress, Failure> {
        // From the end of the path to its beginning, as it moves on meanwhile.
        let handled = count(&self.billing, "select count(*) from billing.invoices").await?;
        let dead = count(&self.billing, "select count(*) from onceward.dead_letters").await?;
        let published = self.tap.count().await.map_err(|error| error.to_string())?;
        let committed = count(&self.shop, "select count(*) from shop.orders").await?;
        Ok(Progress {
            committed,
            published,
            handled,
            dead,
        })
    }

    /// Everything. Nothing may be running any more that changes it.
    pub(crate) async fn facts(&self) -> Result<Facts, Failure> {
        let orders: Vec<Order> =
            sqlx::query_as("select id, customer, number, cents from shop.orders")
                .fetch_all(&self.shop)
                .await?;
        // In the order in which they were written: an order of a customer is billed after the one before it is.
        let invoices: Vec<Invoice> =
            sqlx::query_as("select order_id, cents from billing.invoices order by entry")
                .fetch_all(&self.billing)
                .await?;
        let arrivals = self.tap.all().await.map_err(|error| error.to_string())?;

        let cents: HashMap<Uuid, i64> =
            orders.iter().map(|order| (order.id, order.cents)).collect();
        let effects = invoices.iter().map(|invoice| effect(invoice, &cents));
        Ok(Facts {
            committed: orders.iter().map(committed).collect::<Result<_, _>>()?,
            arrivals: arrivals.into_iter().map(by_order).collect(),
            effects: Some(effects.collect()),
            ..Facts::default()
        })
    }
}

async fn count(pool: &PgPool, statement: &'static str) -> Result<u64, Failure> {
    let count: i64 = sqlx::query_scalar(statement).fetch_one(pool).await?;
    Ok(u64::try_from(count)?)
}

fn committed(order: &Order) -> Result<Committed, serde_json::Error> {
    Ok(Committed {
        id: order.id,
        key: Some(order.customer.clone()),
        version: order.number,
        payload: Some(serde_json::to_vec(order)?),
    })
}

/// The ledger goes by orders; a message tells of the order in its payload.
fn by_order(arrival: Arrival) -> Arrival {
    let order = serde_json::from_slice::<Order>(&arrival.payload).ok();
    Arrival {
        id: order.map(|order| order.id),
        ..arrival
    }
}

/// An invoice over another sum is none of that order.
fn effect(invoice: &Invoice, cents: &HashMap<Uuid, i64>) -> Effect {
    let same = cents.get(&invoice.order_id) == Some(&invoice.cents);
    Effect {
        id: if same { invoice.order_id } else { Uuid::nil() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Order {
        Order {
            id: Uuid::from_u128(7),
            customer: "ada".to_owned(),
            number: 1,
            cents: 100,
        }
    }

    #[test]
    fn a_message_is_told_by_the_order_in_it_and_must_carry_its_very_bytes() {
        let committed = committed(&order()).unwrap();
        let arrival = Arrival {
            id: Some(Uuid::from_u128(1)),
            key: committed.key.clone(),
            payload: committed.payload.clone().unwrap(),
            partition: "ORDERS".into(),
            position: 1,
        };

        assert_eq!(by_order(arrival.clone()).id, Some(committed.id));
        let garbage = Arrival {
            payload: b"{".to_vec(),
            ..arrival
        };
        assert_eq!(by_order(garbage).id, None);
    }

    #[test]
    fn an_invoice_over_another_sum_is_none_of_that_order() {
        let cents = HashMap::from([(order().id, 100)]);
        let invoice = |cents| Invoice {
            order_id: order().id,
            cents,
        };

        assert_eq!(effect(&invoice(100), &cents).id, order().id);
        assert_eq!(effect(&invoice(99), &cents).id, Uuid::nil());
    }
}
