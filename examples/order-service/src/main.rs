//! An order service: `POST /orders` writes the order and the event that tells of it in one transaction.
//!
//! Configuration: `DATABASE_URL`, and `LISTEN` (default `127.0.0.1:8080`). Try it with
//! `curl -d '{"customer":"ada","cents":1999}' -H 'content-type: application/json' 127.0.0.1:8080/orders`.

use std::env;
use std::error::Error;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use onceward::{EnqueueError, InvalidMessage, Message, Outbox};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};
use uuid::Uuid;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().init();
    let database = env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL")?;
    let listen = env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".into());

    let pool = PgPoolOptions::new()
        .max_connections(16)
        .connect(&database)
        .await?;
    sqlx::raw_sql(include_str!("../schema.sql"))
        .execute(&pool)
        .await?;
    let shop = Shop {
        pool,
        outbox: Outbox::new(),
    };

    let routes = Router::new()
        .route("/orders", post(create_order))
        .route("/healthz", get(|| async { "ok" }))
        .with_state(shop);
    let listener = TcpListener::bind(&listen).await?;
    info!(listen = %listener.local_addr()?, "order service is ready");
    let mut term = signal(SignalKind::terminate())?;
    axum::serve(listener, routes)
        .with_graceful_shutdown(async move {
            term.recv().await;
        })
        .await?;
    Ok(())
}

/// What every request needs. Cloning is cheap.
#[derive(Clone)]
struct Shop {
    pool: PgPool,
    outbox: Outbox,
}

/// What a customer asks for.
#[derive(Debug, Deserialize)]
struct Wish {
    customer: String,
    cents: i64,
}

/// An order; also the payload of `orders.created`.
#[derive(Debug, Serialize)]
struct Order {
    id: Uuid,
    customer: String,
    /// Counts the orders of this customer, from 1 and without gaps.
    number: i64,
    cents: i64,
}

async fn create_order(
    State(shop): State<Shop>,
    Json(wish): Json<Wish>,
) -> Result<(StatusCode, Json<Order>), Failure> {
    let mut transaction = shop.pool.begin().await?;

    // Locks the customer until the commit. What keeps order is locked or changed first, and enqueued after that.
    let number: i64 = sqlx::query_scalar(
        "insert into shop.customers (name, orders)
         values ($1, 1)
         on conflict (name) do update set orders = customers.orders + 1
         returning orders",
    )
    .bind(&wish.customer)
    .fetch_one(&mut *transaction)
    .await?;

    let order = Order {
        id: Uuid::now_v7(),
        customer: wish.customer,
        number,
        cents: wish.cents,
    };
    sqlx::query("insert into shop.orders (id, customer, number, cents) values ($1, $2, $3, $4)")
        .bind(order.id)
        .bind(&order.customer)
        .bind(order.number)
        .bind(order.cents)
        .execute(&mut *transaction)
        .await?;

    let event = Message::json("orders.created", &order)?.key(&order.customer);
    shop.outbox.enqueue(&mut transaction, event).await?;

    transaction.commit().await?;
    Ok((StatusCode::CREATED, Json(order)))
}

/// Why an order was not taken. Nothing of it was written, unless the answer of the commit itself was lost.
#[derive(Debug)]
enum Failure {
    /// The order cannot become a valid message, such as a customer without a name.
    Refused(InvalidMessage),
    /// The database failed.
    Broken(Box<dyn Error>),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Broken(error.into())
    }
}

impl From<InvalidMessage> for Failure {
    fn from(error: InvalidMessage) -> Self {
        Self::Refused(error)
    }
}

impl From<EnqueueError> for Failure {
    fn from(error: EnqueueError) -> Self {
        if let EnqueueError::Invalid { source, .. } = error {
            Self::Refused(source)
        } else {
            Self::Broken(error.into())
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(error) => {
                (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).into_response()
            }
            Self::Broken(error) => {
                error!(error, "order was not taken");
                StatusCode::SERVICE_UNAVAILABLE.into_response()
            }
        }
    }
}

#[cfg(test)]
mod tests;
