use onceward_core::{MAX_PAYLOAD, Message};
use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds {
    messages: 300,
    bytes: 1 << 20,
    per_route: 200,
};

fn outgoing(route: &str, seq: i64) -> Outgoing {
    sized(route, seq, 1)
}

fn sized(route: &str, seq: i64, bytes: usize) -> Outgoing {
    let payload = "x".repeat(bytes);
    let entry = Message::bytes("t", payload).key("k").finish(MAX_PAYLOAD);
    let mut message = entry.unwrap().message;
    message.seq = Some(seq);
    Outgoing {
        route: Route::new(route),
        message,
        replay: None,
    }
}

fn seqs(offer: &Offer) -> Vec<i64> {
    let all = offer.batch.messages.iter();
    all.filter_map(|outgoing| outgoing.message.seq).collect()
}

fn any(_: &Route) -> Allowance {
    Allowance::Any
}

fn every(_: Line, _: &Route) -> Allowance {
    Allowance::Any
}

#[test]
fn a_chunk_is_passed_only_when_it_and_all_before_it_are_done() {
    let mut window = Window::new(BOUNDS);
    window.push(Line::main(Lane::Standard), vec![outgoing("a", 1)], 1);
    window.push(Line::main(Lane::Standard), vec![outgoing("a", 2)], 2);
    let offer = window.offer(10, 1 << 20, every).unwrap();

    window.done(offer.entries[1]);
    assert!(window.advance().is_empty());

    window.done(offer.entries[0]);
    assert_eq!(window.advance(), [(Line::main(Lane::Standard), 2)]);
    assert!(window.is_empty());
}

#[test]
fn what_is_told_to_the_cursors_behind_chunks_comes_with_them() {
    let mut window = Window::new(BOUNDS);
    window.push(Line::main(Lane::Standard), vec![outgoing("a", 1)], 1);
    window.push(Line::main(Lane::Bulk), vec![outgoing("a", 2)], 2);

    for cursor in window.cursors_mut() {
        *cursor += 10;
    }

    let offer = window.offer(10, 1 << 20, every).unwrap();
    for entry in &offer.entries {
        window.done(*entry);
    }
    let passed = [
        (Line::main(Lane::Standard), 11),
        (Line::main(Lane::Bulk), 12),
    ];
    assert_eq!(window.advance(), passed);
}

#[test]
fn an_empty_chunk_moves_the_cursor_only_behind_those_before_it() {
    let mut window = Window::new(BOUNDS);
    window.push(Line::main(Lane::Bulk), vec![outgoing("a", 1)], 1);
    window.push(Line::main(Lane::Bulk), vec![], 9);

    assert!(window.advance().is_empty());

    let offer = window.offer(10, 1 << 20, every).unwrap();
    window.done(offer.entries[0]);
    assert_eq!(window.advance(), [(Line::main(Lane::Bulk), 9)]);
}

#[test]
fn what_is_unconfirmed_is_offered_again_before_what_follows() {
    let mut window = Window::new(BOUNDS);
    let messages = (1..=3).map(|seq| outgoing("a", seq)).collect();
    window.push(Line::main(Lane::Standard), messages, ());
    let offer = window.offer(2, 1 << 20, every).unwrap();

    window.again(offer.entries[0]);
    window.again(offer.entries[1]);

    assert_eq!(seqs(&window.offer(9, 1 << 20, every).unwrap()), [1, 2, 3]);
}

#[test]
fn a_paused_route_waits_and_the_others_go_on() {
    let mut window = Window::new(BOUNDS);
    let messages = vec![outgoing("bad", 1), outgoing("good", 2), outgoing("bad", 3)];
    window.push(Line::main(Lane::Standard), messages, ());
    let pause = |_: Line, route: &Route| {
        let paused = route.as_str() == "bad";
        if paused {
            Allowance::None
        } else {
            Allowance::Any
        }
    };

    let offer = window.offer(9, 1 << 20, pause).unwrap();
    assert_eq!(seqs(&offer), [2]);
    assert!(window.offer(9, 1 << 20, pause).is_none());

    let probe = window.offer(9, 1 << 20, |_, _| Allowance::One).unwrap();
    assert_eq!(seqs(&probe), [1]);
    assert!(window.offer(9, 1 << 20, |_, _| Allowance::One).is_none());
}

#[test]
fn a_search_offers_one_at_a_time_in_order_and_leaves_other_routes_alone() {
    let mut window = Window::new(BOUNDS);
    let messages = vec![
        outgoing("a", 1),
        outgoing("b", 2),
        outgoing("a", 3),
        outgoing("a", 4),
    ];
    window.push(Line::main(Lane::Standard), messages, ());
    let offer = window.offer(9, 1 << 20, every).unwrap();
    window.again(offer.entries[0]);
    window.again(offer.entries[1]);
    window.suspect(offer.entries[2]);
    window.again(offer.entries[3]);

    assert!(window.searching(any));
    let mut searched = Vec::new();
    while window.searching(any) {
        let single = window.offer_suspect(any).unwrap();
        searched.extend(seqs(&single));
        window.done(single.entries[0]);
    }
    assert_eq!(searched, [1, 3]);
    assert_eq!(seqs(&window.offer(9, 1 << 20, every).unwrap()), [2, 4]);
}

#[test]
fn a_suspect_of_a_paused_route_holds_nobody_else() {
    let mut window = Window::new(BOUNDS);
    window.push(
        Line::main(Lane::Standard),
        vec![outgoing("a", 1), outgoing("b", 2)],
        (),
    );
    let offer = window.offer(9, 1 << 20, every).unwrap();
    window.suspect(offer.entries[0]);
    window.again(offer.entries[1]);

    assert!(window.offer_suspect(|_| Allowance::None).is_none());
    assert_eq!(seqs(&window.offer(9, 1 << 20, every).unwrap()), [2]);
}

#[test]
fn a_full_bulk_lane_leaves_room_for_the_critical_one() {
    let mut window = Window::new(BOUNDS);
    let messages = (1..=100).map(|seq| outgoing("a", seq)).collect();
    window.push(Line::main(Lane::Bulk), messages, ());

    assert_eq!(window.room(Lane::Bulk), 0);
    assert_eq!(window.room(Lane::Critical), 100);
}

#[test]
fn nothing_is_read_while_a_route_has_filled_its_share_whatever_room_its_lanes_have() {
    let mut window = Window::new(BOUNDS);
    let messages = |count| (1..=count).map(|seq| outgoing("a", seq)).collect();
    window.push(Line::main(Lane::Bulk), messages(100), ());
    window.push(Line::main(Lane::Standard), messages(99), ());
    assert_eq!(window.room(Lane::Critical), 100);

    window.push(Line::main(Lane::Standard), messages(1), ());
    assert_eq!(window.room(Lane::Critical), 0);

    let offer = window.offer(1, 1 << 20, every).unwrap();
    window.done(offer.entries[0]);
    assert_eq!(window.room(Lane::Critical), 100);
}

#[test]
fn what_is_done_behind_a_message_that_waits_is_held_only_so_far() {
    let mut window = Window::new(BOUNDS);
    window.push(Line::main(Lane::Standard), vec![outgoing("bad", 0)], 0);
    let pause = |_: Line, route: &Route| match route.as_str() {
        "bad" => Allowance::None,
        _ => Allowance::Any,
    };
    let mut read = 1;

    while window.room(Lane::Standard) > 0 && read < 10_000 {
        let chunk = (read..read + 50).map(|seq| outgoing("good", seq)).collect();
        window.push(Line::main(Lane::Standard), chunk, read);
        let offer = window.offer(50, 1 << 20, pause).unwrap();
        offer.entries.iter().for_each(|id| window.done(*id));
        read += 50;
    }

    assert!(window.advance().is_empty());
    assert!((1_000..=1_100).contains(&read), "{read}");
}

#[test]
fn the_lanes_share_an_offer() {
    let mut window = Window::new(BOUNDS);
    for lane in Lane::ALL {
        let messages = (1..=50).map(|seq| outgoing("a", seq)).collect();
        window.push(Line::main(lane), messages, ());
    }

    let offer = window.offer(30, 1 << 20, every).unwrap();

    for lane in Lane::ALL {
        let count = offer
            .entries
            .iter()
            .filter(|id| id.line.lane == lane)
            .count();
        assert_eq!(count, 10, "{lane}");
    }
}

/// What happens to one offered message.
#[derive(Debug, Clone, Copy)]
enum Fortune {
    Done,
    Again,
    Suspect,
}

proptest! {
    #[test]
    fn whatever_happens_no_message_overtakes_an_earlier_one_of_its_route(
        routes in prop::collection::vec(0..3_u8, 1..60),
        fortunes in prop::collection::vec(
            prop_oneof![Just(Fortune::Done), Just(Fortune::Again), Just(Fortune::Suspect)], 1..40
        ),
        most in 1..8_usize,
    ) {
        let mut window = Window::new(BOUNDS);
        let names = ["a", "b", "c"];
        for (n, chunk) in routes.chunks(7).enumerate() {
            let messages = chunk.iter().enumerate().map(|(i, route)| {
                outgoing(names[usize::from(*route)], i64::try_from(n * 7 + i).unwrap())
            });
            window.push(Line::main(Lane::Standard), messages.collect(), n);
        }
        let mut done: Vec<i64> = Vec::new();
        let mut fortunes = fortunes.into_iter().cycle();
        let mut passed = None;
        for round in 0..400 {
            let offer = window.offer_suspect(any).or_else(|| window.offer(most, 1 << 20, every));
            let Some(offer) = offer else { break };
            for (id, outgoing) in offer.entries.iter().zip(&offer.batch.messages) {
                let seq = outgoing.message.seq.unwrap();
                let index = usize::try_from(seq).unwrap();
                let earlier = (0..index).filter(|i| routes[*i] == routes[index]);
                for i in earlier {
                    let earlier = i64::try_from(i).unwrap();
                    let known = done.contains(&earlier)
                        || offer.batch.messages.iter().any(|o| o.message.seq == Some(earlier));
                    prop_assert!(known, "{seq} was offered before {earlier}");
                }
                // Later rounds finish everything, so that the run ends.
                match if round < 100 { fortunes.next().unwrap() } else { Fortune::Done } {
                    Fortune::Done => { window.done(*id); done.push(seq); }
                    Fortune::Again => window.again(*id),
                    Fortune::Suspect => window.suspect(*id),
                }
            }
            passed = window.advance().pop().map(|(_, after)| after).or(passed);
        }
        prop_assert_eq!(done.len(), routes.len());
        prop_assert_eq!(passed, Some(routes.len().div_ceil(7) - 1));
        prop_assert_eq!(window.open(), 0);
        prop_assert_eq!(window.byte_room(), BOUNDS.bytes);
    }
}

#[test]
fn what_waits_for_a_detour_is_passed_and_the_detour_holds_it_instead() {
    let mut window = Window::new(BOUNDS);
    let (main, detour) = (Line::main(Lane::Standard), Line::detour(Lane::Standard, 1));
    let messages = vec![outgoing("bad", 1), outgoing("good", 2), outgoing("bad", 3)];
    window.push(main, messages, 3);
    let good = |_: Line, route: &Route| match route.as_str() {
        "good" => Allowance::Any,
        _ => Allowance::None,
    };
    let offer = window.offer(9, 1 << 20, good).unwrap();
    window.done(offer.entries[0]);
    assert!(window.advance().is_empty());

    window.open_line(detour);
    window.leave_to_others(main, |outgoing| outgoing.route.as_str() == "bad");
    window.push(detour, vec![outgoing("bad", 1), outgoing("bad", 3)], 3);

    assert_eq!(window.advance(), [(main, 3)]);
    assert!(window.is_line_empty(main) && !window.is_line_empty(detour));
    assert_eq!(seqs(&window.offer(9, 1 << 20, every).unwrap()), [1, 3]);
}

#[test]
fn a_detour_takes_no_room_from_the_lanes_and_needs_one_message_while_its_topic_is_away() {
    let mut window = Window::new(BOUNDS);
    let detour = Line::detour(Lane::Standard, 1);
    window.open_line(detour);
    let room = window.room(Lane::Standard);
    assert!(window.detour_room(detour, false) > 0);

    let messages = (0..200).map(|seq| outgoing("bad", seq)).collect();
    window.push(detour, messages, ());

    assert_eq!(window.room(Lane::Standard), room);
    assert_eq!(window.byte_room(), BOUNDS.bytes);
    assert_eq!(window.detour_room(detour, false), 0);
    assert_eq!(window.detour_room(detour, true), 0);
}

#[test]
fn what_is_held_does_not_keep_a_search_going() {
    let mut window = Window::new(BOUNDS);
    let (main, held) = (Line::main(Lane::Standard), Line::detour(Lane::Standard, 1));
    window.open_line(held);
    window.push(held, vec![outgoing("a", 1)], ());
    window.push(main, vec![outgoing("a", 2)], ());
    let offer = window.offer(9, 1 << 20, every).unwrap();
    for id in &offer.entries {
        window.again(*id);
    }
    window.suspect(
        offer
            .entries
            .iter()
            .copied()
            .find(|id| id.line == held)
            .unwrap(),
    );

    window.acquit(held);

    assert!(!window.searching(any));
    let others = |line: Line, _: &Route| match line.is_main() {
        true => Allowance::Any,
        false => Allowance::None,
    };
    assert_eq!(seqs(&window.offer(9, 1 << 20, others).unwrap()), [2]);
}

#[test]
fn lanes_read_nothing_more_while_they_hold_as_many_bytes_as_they_may() {
    let mut window = Window::new(BOUNDS);
    let half = || sized("a", 1, BOUNDS.bytes / 2);
    window.push(Line::main(Lane::Standard), vec![half()], ());
    assert!(Lane::ALL.iter().all(|lane| window.room(*lane) > 0));

    window.push(Line::main(Lane::Bulk), vec![half()], ());

    assert_eq!(window.byte_room(), 0);
    assert!(Lane::ALL.iter().all(|lane| window.room(*lane) == 0));
    let offer = window.offer(1, BOUNDS.bytes, every).unwrap();
    window.done(offer.entries[0]);
    assert!(Lane::ALL.iter().all(|lane| window.room(*lane) > 0));
}

#[test]
fn a_detour_reads_nothing_more_while_the_detours_hold_as_many_bytes_as_they_may() {
    let mut window = Window::new(BOUNDS);
    let [one, other] = [1, 2].map(|number| Line::detour(Lane::Standard, number));
    window.open_line(one);
    window.open_line(other);
    window.push(one, vec![sized("a", 1, BOUNDS.bytes / 8)], ());
    assert!(window.detour_room(one, true) > 0);

    window.push(one, vec![sized("a", 2, BOUNDS.bytes / 8)], ());

    assert_eq!(window.detour_byte_room(), 0);
    assert_eq!(window.detour_room(one, true), 0);
    // One that holds nothing still gets on.
    assert!(window.detour_room(other, true) > 0);
    assert!(window.room(Lane::Standard) > 0);
    let offer = window.offer(1, BOUNDS.bytes, every).unwrap();
    window.done(offer.entries[0]);
    assert!(window.detour_room(one, true) > 0);
}
