//! What adding up costs gives.

use super::*;

fn known() -> OfBroker {
    let steady = |rate, relay, postgres| Steady {
        rate,
        message: Message {
            relay: Some(relay),
            postgres: Some(postgres),
            broker: Some(50.0),
        },
    };
    OfBroker {
        single: Message {
            relay: Some(10.0),
            postgres: Some(5.0),
            broker: Some(2.0),
        },
        bulk: Message {
            relay: None,
            postgres: None,
            broker: None,
        },
        steady: vec![steady(1_000.0, 100.0, 300.0), steady(5_000.0, 60.0, 200.0)],
        idle: Idle {
            relay: Some(0.01),
            postgres: Some(0.02),
            statements: Some(40.0),
            connections: Some(4.0),
            memory: Some(16.0),
        },
        one_by_one: Some(2_000.0),
        batches: None,
    }
}

const LOAD: Load = Load {
    services: 1_000.0,
    rate: 0.0,
    streams: 1.0,
    handler_ms: 5.0,
    partitions: 12,
};

fn near(found: Option<f64>, wanted: f64) -> bool {
    found.is_some_and(|found| (found - wanted).abs() < 1e-9)
}

#[test]
fn what_one_core_carries_is_the_inverse_of_what_each_takes() {
    assert!(near(of_one_core(10.0), 100_000.0));
    assert_eq!(of_one_core(0.0), None);
}

#[test]
fn a_fleet_with_nothing_to_do_takes_what_idle_relays_take() {
    let fleet = fleet(&known(), &LOAD);

    assert!(near(fleet.relays, 10.0), "{fleet:?}");
    assert!(near(fleet.databases, 20.0), "{fleet:?}");
    assert!(near(fleet.statements, 40_000.0), "{fleet:?}");
    assert!(near(fleet.memory, 15.625), "{fleet:?}");
    assert!(near(Some(fleet.connections), 5_000.0), "{fleet:?}");
    assert_eq!(
        fleet.brokers, None,
        "what a broker takes then was not measured"
    );
}

#[test]
fn messages_come_on_top_of_idling() {
    let fleet = fleet(
        &known(),
        &Load {
            rate: 100.0,
            ..LOAD
        },
    );

    assert!(near(fleet.relays, 20.0), "{fleet:?}");
    assert!(near(fleet.databases, 50.0), "{fleet:?}");
    assert!(near(fleet.brokers, 5.0), "{fleet:?}");
}

#[test]
fn what_was_not_measured_stays_unknown() {
    let unknown = fleet(&OfBroker::default(), &LOAD);

    assert_eq!((unknown.relays, unknown.memory), (None, None));
    assert_eq!(share_of_writes(10.0, &Costs::default()), None);
}

#[test]
fn a_member_is_bound_by_its_handlers_or_by_what_it_was_measured_to_do() {
    let close = |found: f64, wanted: f64| (found - wanted).abs() < 1e-9;

    assert!(close(member(2_000.0, 0.0, 16.0), 2_000.0));
    assert!(close(member(2_000.0, 1.0, 16.0), 2_000.0));
    assert!(close(member(2_000.0, 100.0, 16.0), 160.0));
}

#[test]
fn members_are_whole_and_at_least_one() {
    assert!(near(members(1.0, 160.0), 1.0));
    assert!(near(members(1_000.0, 160.0), 7.0));
    assert_eq!(members(1.0, 0.0), None);
}

#[test]
fn steady_rates_are_taken_in_their_order() {
    let row = |variant: &str, median: f64| Row {
        workload: "W2".to_owned(),
        variant: variant.to_owned(),
        contestant: "onceward".to_owned(),
        metric: "cpu_us_relay".to_owned(),
        unit: "us/msg".to_owned(),
        min: 1.0,
        median,
        max: 900.0,
        runs: 3,
    };
    let rows = [
        row("kafka-5000", 60.0),
        row("kafka-100", 400.0),
        row("kafka-1000 visible", 9.0),
        row("nats-1", 7.0),
    ];

    let steady = Costs::of(&rows).kafka.steady;

    let found = steady.iter().map(|at| (at.rate, at.message.relay));
    assert!(found.eq([(100.0, Some(400.0)), (5_000.0, Some(60.0))]));
}

#[test]
fn cores_at_a_steady_rate_lie_between_those_that_were_measured_and_are_unknown_beyond() {
    let of_relay = |rate| steady_cores(&known(), rate, |message| message.relay);

    assert!(near(of_relay(100.0), 0.01));
    assert!(near(of_relay(1_000.0), 0.1));
    assert!(near(of_relay(3_000.0), 0.2), "{:?}", of_relay(3_000.0));
    assert!(near(of_relay(5_000.0), 0.3));
    assert_eq!(of_relay(5_001.0), None);
}
