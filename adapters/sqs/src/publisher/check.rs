//! Asks whether queues exist, what they limit, and what of their settings is dangerous.

use aws_sdk_sqs::Client;
use futures_util::stream::{self, StreamExt as _};
use onceward_core::{ErrorKind, Order, PublishError, Route, TopicReport, TopicState};

use crate::connection;
use crate::errors::Trouble;
use crate::queue::QueueName;

/// Queues that are asked about at a time.
const ASKED_AT_ONCE: usize = 8;

/// One report per route, in order.
pub(crate) async fn routes(client: &Client, order: Order, routes: &[Route]) -> Vec<TopicReport> {
    let asked = routes.iter().map(|route| async move {
        TopicReport {
            route: route.clone(),
            state: Box::pin(state(client, order, route)).await,
        }
    });
    let asked: Vec<_> = asked.collect();
    stream::iter(asked).buffered(ASKED_AT_ONCE).collect().await
}

async fn state(client: &Client, order: Order, route: &Route) -> Result<TopicState, PublishError> {
    let name = queue(order, route)?;
    let queue = connection::find(client, &name)
        .await
        .map_err(Trouble::into_publish_error)?;
    Ok(TopicState {
        max_message: Some(queue.attributes.limit),
        warnings: queue.attributes.warnings(&name),
        unread: None,
    })
}

/// The queue that a route names, if the destination may use it.
pub(crate) fn queue(order: Order, route: &Route) -> Result<QueueName, PublishError> {
    let name = QueueName::parse(route.as_str())
        .map_err(|error| PublishError::new(ErrorKind::UnknownTopic, error.to_string()))?;
    match order {
        Order::PerKey if !name.is_fifo() => Err(PublishError::new(
            ErrorKind::UnknownTopic,
            format!(
                "queue {name} is a standard queue, which keeps no order; use one whose name ends in .fifo, or say order = \"none\""
            ),
        )),
        Order::PerKey | Order::None => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standard_queue_is_used_only_by_who_says_that_order_does_not_matter() {
        let route = Route::new("orders");

        let error = queue(Order::PerKey, &route).unwrap_err();

        assert!(error.what.contains("order = \"none\""), "{error}");
        assert!(queue(Order::None, &route).is_ok());
        assert!(queue(Order::PerKey, &Route::new("orders.fifo")).is_ok());
    }
}
