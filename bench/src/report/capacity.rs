//! The page of what a load takes, as Markdown, and the same for a load of somebody's own.

use std::fmt::Write as _;

use super::page::figure;
use crate::capacity::{
    Costs, Load, Message, OfBroker, added_wal, connections, cores, fleet, member, members,
    of_one_core, share_of_writes, steady_cores,
};

const HEAD: &str = include_str!("capacity/head.md");
const FLEETS: &str = include_str!("capacity/fleets.md");
const POSTGRES: &str = include_str!("capacity/postgres.md");
const CONSUMERS: &str = include_str!("capacity/consumers.md");
const END: &str = include_str!("capacity/end.md");

/// Handlers of a consumer at a time, by default.
const HANDLERS: f64 = 16.0;

/// The page.
pub(super) fn page(costs: &Costs, machine_cores: Option<usize>) -> String {
    let mut page = HEAD.to_owned();
    relays(&mut page, costs);
    page.push_str(FLEETS);
    fleets(&mut page, costs);
    page.push_str(POSTGRES);
    postgres(&mut page, costs, machine_cores);
    page.push_str(CONSUMERS);
    consumers(&mut page, costs);
    spread(&mut page, costs);
    page.push_str(END);
    page
}

fn known(value: Option<f64>) -> String {
    value.map_or_else(|| "not measured".to_owned(), figure)
}

/// A number of things.
fn count(value: Option<f64>) -> String {
    value.map_or_else(
        || "not measured".to_owned(),
        |value| {
            let text = figure(value);
            text.trim_end_matches('0')
                .strip_suffix('.')
                .map_or(text.clone(), str::to_owned)
        },
    )
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    // A string takes everything.
    writeln!(page, "{text}").ok();
}

const fn brokers(costs: &Costs) -> [(&'static str, &OfBroker); 2] {
    [("Kafka", &costs.kafka), ("NATS", &costs.nats)]
}

fn relays(page: &mut String, costs: &Costs) {
    line(
        page,
        format_args!(
            "| to | backlog | CPU of the relay, µs/msg | messages/s of one core | cores of PostgreSQL meanwhile | cores of the broker meanwhile |\n|---|---|---:|---:|---:|---:|"
        ),
    );
    for (name, of) in brokers(costs) {
        for (shape, message) in [
            ("one message a transaction", of.single),
            ("1,000 a transaction", of.bulk),
        ] {
            let Message {
                relay,
                postgres,
                broker,
            } = message;
            let rate = relay.and_then(of_one_core);
            let meanwhile = |each: Option<f64>| Some(cores(rate?, each?));
            let (postgres, broker) = (known(meanwhile(postgres)), known(meanwhile(broker)));
            let (relay, rate) = (known(relay), known(rate));
            line(
                page,
                format_args!("| {name} | {shape} | {relay} | **{rate}** | {postgres} | {broker} |"),
            );
        }
    }
}

fn fleets(page: &mut String, costs: &Costs) {
    line(
        page,
        format_args!(
            "| to | messages/s of each service | cores of all relays | GiB of all relays | cores of all databases | cores of the brokers, at most | connections, at most | idle statements/s |\n|---|---:|---:|---:|---:|---:|---:|---:|"
        ),
    );
    for (name, of) in brokers(costs) {
        for rate in [0.0, 1.0, 10.0, 100.0] {
            let load = Load {
                services: 1_000.0,
                rate,
                streams: 1.0,
                handler_ms: 0.0,
                partitions: 1,
            };
            let all = fleet(of, &load);
            let (relays, memory) = (known(all.relays), known(all.memory));
            let (databases, statements) = (known(all.databases), known(all.statements));
            let brokers = known(all.brokers);
            let (rate, connections) = (count(Some(rate)), count(Some(all.connections)));
            line(
                page,
                format_args!(
                    "| {name} | {rate} | {relays} | {memory} | {databases} | {brokers} | {connections} | {statements} |"
                ),
            );
        }
    }
    let each = count(Some(connections(1.0)));
    let measured = count(costs.kafka.idle.connections);
    let statements = known(costs.kafka.idle.statements);
    line(
        page,
        format_args!(
            "\nA service with a database of its own costs that database one thousandth of a row: at most {each} connections (seen of an idle relay with one stream on Kafka: {measured}), and statements a second while idle: {statements}."
        ),
    );
}

fn postgres(page: &mut String, costs: &Costs, machine_cores: Option<usize>) {
    let cores_text = machine_cores.map_or_else(|| "not recorded".to_owned(), |n| n.to_string());
    let (alone, enqueued) = (known(costs.alone), known(costs.enqueued));
    line(
        page,
        format_args!(
            "Measured with eight clients, which shared the machine's cores ({cores_text}) with PostgreSQL: {alone} transactions a second alone, {enqueued} with a message each.\n"
        ),
    );
    line(
        page,
        format_args!(
            "| messages/s, one a transaction | machines like that for the writers | write-ahead log added, MB/s | cores of PostgreSQL, the writers' part included | cores of the relay (Kafka) |\n|---:|---:|---:|---:|---:|"
        ),
    );
    for rate in [100.0, 1_000.0, 5_000.0, 20_000.0, 100_000.0] {
        let share = known(share_of_writes(rate, costs));
        let wal = known(added_wal(rate, costs).map(|bytes| bytes / 1e6));
        let databases = known(steady_cores(&costs.kafka, rate, |message| message.postgres));
        let relay = known(steady_cores(&costs.kafka, rate, |message| message.relay));
        let rate = figure(rate);
        line(
            page,
            format_args!("| {rate} | {share} | {wal} | {databases} | {relay} |"),
        );
    }
}

fn consumers(page: &mut String, costs: &Costs) {
    line(
        page,
        format_args!(
            "| from | handled | handler takes, ms | messages/s of one member | members for 1,000/s | for 10,000/s | for 100,000/s |\n|---|---|---:|---:|---:|---:|---:|"
        ),
    );
    for (name, of) in brokers(costs) {
        for (how, measured) in [("one by one", of.one_by_one), ("in batches", of.batches)] {
            for takes in [0.0, 1.0, 10.0, 100.0] {
                // A batch's handler takes its time once for all of it: only one by one does it bind.
                if how == "in batches" && takes > 0.0 {
                    continue;
                }
                let one = measured.map(|measured| member(measured, takes, HANDLERS));
                let need = |rate| count(one.and_then(|one| members(rate, one)));
                let (thousand, ten, hundred) = (need(1e3), need(1e4), need(1e5));
                let (takes, one) = (count(Some(takes)), known(one));
                line(
                    page,
                    format_args!(
                        "| {name} | {how} | {takes} | **{one}** | {thousand} | {ten} | {hundred} |"
                    ),
                );
            }
        }
    }
}

/// What members beside each other came to, as the table only multiplies.
fn spread(page: &mut String, costs: &Costs) {
    let (one, four) = (known(costs.one_member), known(costs.four_members));
    line(
        page,
        format_args!(
            "\nThe table multiplies. Measured was this: one member on NATS with a handler of 2 ms, one message at a time, handled {one} messages/s, and four of them {four}."
        ),
    );
}

/// What a load of somebody's own takes.
pub(super) fn answer(costs: &Costs, machine_cores: Option<usize>, load: &Load) -> String {
    let mut text = String::new();
    let Load {
        services,
        rate,
        streams,
        handler_ms,
        partitions,
    } = *load;
    line(
        &mut text,
        format_args!(
            "{services} services with {streams} streams each, {rate} messages/s of each; handlers of {handler_ms} ms"
        ),
    );
    for (name, of) in brokers(costs) {
        let all = fleet(of, load);
        line(&mut text, format_args!("\n{name}"));
        for (what, value) in [
            ("cores of all relays", all.relays),
            ("GiB of all relays", all.memory),
            ("cores of all databases", all.databases),
            ("cores of the brokers, at most", all.brokers),
            (
                "connections to all databases, at most",
                Some(all.connections),
            ),
            ("statements/s of idling", all.statements),
        ] {
            line(&mut text, format_args!("  {what:<42} {:>14}", known(value)));
        }
        let one = of.one_by_one.map(|one| member(one, handler_ms, HANDLERS));
        let need = one.and_then(|one| members(services * rate, one));
        let words = match need {
            Some(need) if need > f64::from(partitions) => ": more than there are partitions",
            Some(_) | None => "",
        };
        line(
            &mut text,
            format_args!(
                "  {:<42} {:>14}{words}",
                "members of one group, one by one",
                count(need)
            ),
        );
    }
    let cores_text = machine_cores.map_or_else(|| "?".to_owned(), |n| n.to_string());
    let share = known(share_of_writes(rate, costs));
    line(
        &mut text,
        format_args!(
            "\nWriting takes {share} of one machine of {cores_text} cores such as the measured one, for each service."
        ),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_said_to_be_so() {
        let page = page(&Costs::default(), None);

        assert!(
            page.contains(
                "| Kafka | one message a transaction | not measured | **not measured** |"
            ),
            "{page}"
        );
    }

    #[test]
    fn a_group_that_needs_more_members_than_partitions_is_told() {
        let mut costs = Costs::default();
        costs.kafka.one_by_one = Some(1_000.0);
        let load = Load {
            services: 1.0,
            rate: 10_000.0,
            streams: 1.0,
            handler_ms: 10.0,
            partitions: 4,
        };

        let text = answer(&costs, Some(2), &load);

        assert!(
            text.contains("10: more than there are partitions"),
            "{text}"
        );
    }
}
