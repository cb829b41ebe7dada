//! What is said of workloads, metrics and contestants. Whoever measures something else says here what it is.

/// A workload's title, and what is done in it.
pub(super) const WORKLOADS: [(&str, &str, &str); 7] = [
    (
        "W1",
        "Drain",
        "A committed backlog of messages of 300 bytes over 1,000 keys, written one a transaction (`1/tx`) and 1,000 a transaction \
         (`1000/tx`), is published to Kafka topics of one and of twelve partitions and to a JetStream stream of files. The rate is told \
         by how much the broker holds, from the first look that finds a message to the first that finds all. Then everything is read back: \
         a lost message ends the run, `duplicates` counts the copies. `kafka-4p` stands beside other relays (`make bench-peers`), and has no ceiling. \
         `make bench` writes 200,000 messages, to be done in time, `make bench-full` 500,000: the table of the machine says how many there were. With a network of a quarter of a millisecond to Kafka, they stand in [W7](#w7-distance). Relays that were measured \
         elsewhere are [quoted](performance-notes.md#other-relays).",
    ),
    (
        "W2",
        "Latency",
        "Transactions of one message each at a steady rate, by eight connections whose times are spread as far as a timer of a millisecond can, whether or not the relay keeps up. The time is from the \
         return of the commit until a reader at the broker has the message. `kafka-1000` is Kafka at 1,000 a second; `kafka-1000 \
         visible` is the same with `publish_after = \"visible\"`: a message is published as soon as its commit can be seen, not only once it is on \
         PostgreSQL's disk. `kafka-1000 beside peers` is the same in the runs with other relays (`make bench-peers`). `raw-client` is no relay: \
         the writer hands each message to the broker's client as soon as its commit has returned, which is about as soon as anybody can be. `bare-poll` is none either: it asks \
         for the newest rows every half a millisecond and hands them to that client, without a cursor that would survive, order by key or a \
         wait for a disk or an ack: about the least that whoever polls has to do.",
    ),
    (
        "W3",
        "Producer",
        "What an outbox costs the service: a business transaction that inserts a row, alone, with a message enqueued, with an ordinary \
         outbox row, and with such a row and NOTIFY.",
    ),
    (
        "W4",
        "Consumer",
        "Messages that lie in the broker are handled once by a handler that does nothing: one by one, and in batches; on Kafka also beside \
         100,000 messages that wait for another attempt (`retries`), on all brokers with a second copy of every tenth message (`duplicates`). The clock \
         runs from the first message until the last one is stored. `sqs-send` is sending through the adapter, without a consumer. `nats-spread` \
         compares four members with one such member: one message at a time each, a handler that takes 2 ms, a topic of eight partitions.",
    ),
    (
        "W5",
        "Growth",
        "A short drain (`1000/tx`, twelve partitions of Kafka) and the latency at 1,000 a second: with messages retained in the log, over the \
         slots of three days; with a transaction held open that has written to the log; with streams that pass over what another one \
         publishes; with autovacuum dead and nothing analyzed; and once with a backlog of 10,000,000 after an outage, whose latency is that once all of it is published. `bare-run` is the \
         same in a fresh database with one stream, in the same round. Of messages after a pause there are fifty in each run, of a stream that otherwise \
         passes over those of another one, which come at 1,000 a second.",
    ),
    (
        "W6",
        "Idle",
        "A relay with one stream and nothing to do for 10 seconds. Then a hundred single messages, each after 50 to 250 ms of nothing: from \
         the return of the commit until a reader at the broker has it.",
    ),
    (
        "W7",
        "Distance",
        "The drain (`1000/tx`, twelve partitions on Kafka) and the latency at 1,000 a second once more, with the brokers or PostgreSQL behind \
         a proxy that delays each way. `no delay` passes the same proxies, `direct` none: what is left of its rate in the same repeat is what is wanted. `kafka-4p` is W1 beside other relays \
         (`make bench-peers`) with a network of a quarter of a millisecond each way between the relay and Kafka: most of them send one message and wait for its ack, also \
         those that are only [quoted](performance-notes.md#other-relays).",
    ),
];

/// Metrics, in the order of the page.
pub(super) const METRICS: [(&str, &str); 28] = [
    ("rate", "Rate"),
    ("rate_warm", "Rate of the second half"),
    ("fraction_of_ceiling", "Share of the combined ceiling"),
    ("fraction_of_direct", "Share of the rate without a proxy"),
    ("fraction_of_bare", "Share of the rate of the bare run"),
    ("p99_of_bare", "The 99th of 100, times that of the bare run"),
    ("committed", "Committed in fact"),
    ("p50_ms", "Half of the messages are readable within"),
    ("p99_ms", "99 of 100 messages are readable within"),
    ("p999_ms", "999 of 1,000 messages are readable within"),
    ("max_ms", "The slowest message is readable within"),
    (
        "first_p50_ms",
        "Half of the messages after a pause are readable within",
    ),
    (
        "first_p99_ms",
        "99 of 100 messages after a pause are readable within",
    ),
    ("cpu_relay", "CPU of the relay"),
    (
        "cpu_postgres",
        "CPU of the PostgreSQL processes that serve the relay",
    ),
    ("statements", "Statements"),
    ("connections", "Connections to PostgreSQL"),
    ("cpu_us_relay", "CPU of the relay, each message"),
    (
        "cpu_us_relay_warm",
        "CPU of the relay, each message of the second half",
    ),
    ("cpu_us_consumer", "CPU of the consumer, each message"),
    ("cpu_us_postgres", "CPU of PostgreSQL, each message"),
    ("cpu_us_broker", "CPU of the broker, each message"),
    ("cpu_us_client", "CPU of the client, each message"),
    ("wal", "Write-ahead log"),
    (
        "wal_period",
        "Write-ahead log from a checkpoint on, with the removal of what was written",
    ),
    ("rss_mib", "Peak of resident memory"),
    ("duplicates", "Duplicates"),
    ("lost", "Lost"),
];
