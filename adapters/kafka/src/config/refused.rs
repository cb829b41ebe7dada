//! The properties of librdkafka that the promise depends on, and why nobody else may set them.

const GAP_FREE: &str =
    "a session must store a prefix of what it was offered, in order, without gaps";
const CONFIRMED: &str = "a message counts as published only once every in-sync replica has it";
const OWN_DEADLINE: &str = "a message that times out inside librdkafka lets later ones of its key pass; set the deadline instead";
const RETRIES: &str = "giving up after some retries lets later messages of the key pass";
const POSITIONS: &str = "positions are committed only past what is settled";
const OWN_SETTING: &str = "it has a setting of its own";
const REBALANCE: &str = "partitions are handed over one by one, with work in progress finished first; only that way is tested";

/// Names and reasons.
pub(super) const REFUSED: [(&str, &str); 36] = [
    ("enable.idempotence", GAP_FREE),
    ("enable.gapless.guarantee", GAP_FREE),
    ("max.in.flight", GAP_FREE),
    ("max.in.flight.requests.per.connection", GAP_FREE),
    ("queuing.strategy", GAP_FREE),
    ("msg_order_cmp", GAP_FREE),
    ("acks", CONFIRMED),
    ("request.required.acks", CONFIRMED),
    ("delivery.report.only.error", CONFIRMED),
    ("dr_cb", CONFIRMED),
    ("dr_msg_cb", CONFIRMED),
    ("enabled_events", CONFIRMED),
    ("message.timeout.ms", OWN_DEADLINE),
    ("delivery.timeout.ms", OWN_DEADLINE),
    ("retries", RETRIES),
    ("message.send.max.retries", RETRIES),
    (
        "partitioner",
        "keys must land in the partitions in which every other client looks for them",
    ),
    (
        "partitioner_cb",
        "keys must land in the partitions in which every other client looks for them",
    ),
    (
        "transactional.id",
        "sessions are not transactions: what is aborted would have been confirmed",
    ),
    ("enable.auto.commit", POSITIONS),
    ("auto.commit.enable", POSITIONS),
    ("auto.commit.interval.ms", POSITIONS),
    ("enable.auto.offset.store", POSITIONS),
    ("offset.store.method", POSITIONS),
    (
        "auto.offset.reset",
        "a jump over lost messages must be seen; set where a new group starts instead",
    ),
    ("offset_commit_cb", POSITIONS),
    ("rebalance_cb", REBALANCE),
    ("partition.assignment.strategy", REBALANCE),
    ("group.protocol", REBALANCE),
    ("group.remote.assignor", REBALANCE),
    ("group.protocol.type", REBALANCE),
    ("group.id", OWN_SETTING),
    ("bootstrap.servers", OWN_SETTING),
    ("metadata.broker.list", OWN_SETTING),
    ("log.queue", "librdkafka's log is read from there already"),
    (
        "default_topic_conf",
        "it would bring in settings that are refused here",
    ),
];

/// Why a property may not be set, if it may not.
pub(super) fn why(name: &str) -> Option<&'static str> {
    let found = REFUSED.iter().find(|(refused, _)| *refused == name);
    found.map(|(_, why)| *why)
}
