//! The hot functions, each with an input like those of a busy service.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use onceward_core::wire::{self, Raw, Style};
use onceward_core::{
    Batch, Key, Lane, MAX_PAYLOAD, Message, MessageId, Offers, OnePerKey, Outcome as Published,
    Outgoing, Report, Route, RouteTemplate, Source, Topic, TopicGlob,
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::Outcome;
use crate::keys::{KeyId, Keys};
use crate::log::{Cursor, Found, LateBelow, Sequenced, Snapshot};
use crate::mark::Mark;
use crate::pause::Allowance;
use crate::plan::places::Places;
use crate::plan::{Fate, fate};
use crate::window::{Bounds, Line, Window};

/// Messages of a chunk.
const CHUNK: i64 = 500;

/// Keys of a chunk.
const KEYS: i64 = 100;

/// One call of a hot function. May be called as often as was said when it was made.
pub(crate) type Case = Box<dyn FnMut()>;

/// A hot function: its name, and what makes a case of it that can be called so many times.
pub(crate) type Maker = (&'static str, fn(usize) -> Outcome<Case>);

/// All of them.
pub(crate) const ALL: [Maker; 15] = [
    ("topic: pattern matched", pattern),
    ("route: partition of a key", partition),
    ("log: snapshot read", snapshot),
    ("log: cursor, chunk of 500 new rows", new_rows),
    ("log: cursor, chunk of 500 rows, 50 late", late_rows),
    ("relay: chunk of 500 through the window", window),
    ("adapters: offer of 500 answered", offer),
    ("adapters: 500 messages, one per key", one_per_key),
    ("wire: encoded as on kafka", encode_underscore),
    ("wire: encoded as on nats and sqs", encode_dash),
    ("wire: decoded as on kafka", decode_underscore),
    ("wire: decoded as on nats and sqs", decode_dash),
    ("consumer: mark of a message", mark),
    ("consumer: turns of 500 messages, 100 keys", turns_of_keys),
    (
        "consumer: turns of 500 messages, no key",
        turns_without_keys,
    ),
];

fn message(seq: i64, key: Option<i64>) -> Outcome<Message> {
    let mut payload = br#"{"order":17,"note":""#.to_vec();
    payload.resize(298, b'x');
    payload.extend_from_slice(br#""}"#);
    let draft = Message::bytes("orders.created", payload)
        .content_type("application/json")
        .header("tenant", "acme")
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        // Not a random one: its text would be as long, its bits would not sort alike.
        .id(Uuid::from_u128(
            0x0190_0000_0000_7000_8000_0000_0000_0000 + u128::try_from(seq)?,
        ));
    let draft = match key {
        Some(key) => draft.key(format!("customer-{key}")),
        None => draft,
    };
    let mut message = draft.finish(MAX_PAYLOAD)?.message;
    message.source = Some(Source::try_from("/shop/orders")?);
    message.seq = Some(seq);
    message.time = Some(OffsetDateTime::from_unix_timestamp_nanos(
        1_790_000_000_123_456_000,
    )?);
    Ok(message)
}

fn outgoing(seq: i64) -> Outcome<Outgoing> {
    Ok(Outgoing {
        route: Route::new("orders.created"),
        message: message(seq, Some(seq % KEYS))?,
        replay: None,
    })
}

fn partition(_: usize) -> Outcome<Case> {
    let template = RouteTemplate::new("orders.{partition/8}", BTreeMap::new())?;
    let routes = template.routes(&Topic::try_from("orders.created")?);
    let key = Key::try_from("customer-4711")?;
    Ok(Box::new(move || {
        black_box(routes.of_key(black_box(&key)));
    }))
}

fn pattern(_: usize) -> Outcome<Case> {
    let pattern = TopicGlob::try_from("orders.*.v1")?;
    Ok(Box::new(move || {
        black_box(pattern.matches(black_box("orders.created.v1")));
    }))
}

fn snapshot(_: usize) -> Outcome<Case> {
    let snapshot = Snapshot::new(700, 900, (700..732).collect())?.to_string();
    Ok(Box::new(move || {
        drop(black_box(black_box(&snapshot).parse::<Snapshot>()));
    }))
}

/// A row as the log's reader gives it.
#[derive(Clone)]
struct Row {
    seq: i64,
    _lane: Lane,
    _message: Message,
}

impl Sequenced for Row {
    fn seq(&self) -> i64 {
        self.seq
    }
}

/// Rows with these numbers, in no order.
fn rows(numbers: impl DoubleEndedIterator<Item = i64>) -> Outcome<Vec<Row>> {
    let rows = numbers.rev().map(|seq| {
        Ok(Row {
            seq,
            _lane: Lane::Standard,
            _message: message(seq, Some(seq % KEYS))?,
        })
    });
    rows.collect()
}

fn new_rows(calls: usize) -> Outcome<Case> {
    chunk(calls, Vec::new(), rows(10_001..10_001 + CHUNK)?)
}

fn late_rows(calls: usize) -> Outcome<Case> {
    let late = rows((0..50).map(|n| 9_000 + 2 * n))?;
    chunk(calls, late, rows(10_001..9_951 + CHUNK)?)
}

fn chunk(calls: usize, late: Vec<Row>, new: Vec<Row>) -> Outcome<Case> {
    let cursor = Cursor {
        last: 10_000,
        snapshot: Snapshot::new(700, 900, (700..732).collect())?,
        paging: None,
        floor: 0,
        late_below: LateBelow::default(),
    };
    let found = Found {
        late,
        more_late: false,
        new,
        seen: Snapshot::new(800, 1_000, (800..832).collect())?,
        more_new: false,
    };
    let mut inputs = vec![found; calls].into_iter();
    Ok(Box::new(move || {
        if let Some(found) = inputs.next() {
            black_box(cursor.request());
            black_box(cursor.advance(found));
        }
    }))
}

fn window(calls: usize) -> Outcome<Case> {
    let chunk = (1..=CHUNK).map(outgoing).collect::<Outcome<Vec<_>>>()?;
    let mut inputs = vec![chunk; calls].into_iter();
    Ok(Box::new(move || {
        if let Some(chunk) = inputs.next() {
            black_box(through_the_window(chunk));
        }
    }))
}

/// The way of a chunk when all goes well: taken in, offered, confirmed, passed.
fn through_the_window(chunk: Vec<Outgoing>) -> usize {
    let mut window = Window::new(Bounds {
        messages: 30_000,
        bytes: usize::MAX,
        per_route: 30_000,
    });
    window.push(Line::main(Lane::Standard), chunk, 1_u64);
    let mut offers = Vec::new();
    while let Some(offer) = window.offer(250, usize::MAX, |_, _| Allowance::Any) {
        offers.push(offer);
    }
    for id in offers.into_iter().flat_map(|offer| offer.entries) {
        if fate(&Published::Confirmed) == Fate::Done {
            window.done(id);
        }
    }
    window.advance().len()
}

fn offer(_: usize) -> Outcome<Case> {
    let messages = (1..=CHUNK).map(outgoing).collect::<Outcome<_>>()?;
    let batch = Arc::new(Batch { messages });
    let now = Instant::now();
    Ok(Box::new(move || {
        let mut offers = Offers::default();
        let report = Report::new(|receipts| drop(black_box(receipts)));
        for ticket in offers.open(Arc::clone(&batch), report, now) {
            black_box(offers.message(ticket));
            offers.answer(ticket, Published::Confirmed);
        }
    }))
}

fn one_per_key(_: usize) -> Outcome<Case> {
    Ok(Box::new(|| {
        let mut keys = OnePerKey::new();
        for n in 0..CHUNK {
            black_box(keys.push(Some(n % KEYS), n));
        }
        while let Some((key, n)) = keys.pop() {
            black_box(n);
            if let Some(key) = key {
                keys.confirmed(key);
            }
        }
    }))
}

fn encode_underscore(_: usize) -> Outcome<Case> {
    encode(Style::Underscore)
}

fn encode_dash(_: usize) -> Outcome<Case> {
    encode(Style::Dash)
}

fn encode(style: Style) -> Outcome<Case> {
    let outgoing = outgoing(1)?;
    Ok(Box::new(move || {
        black_box(wire::encode(black_box(&outgoing), style));
    }))
}

fn decode_underscore(_: usize) -> Outcome<Case> {
    decode(Style::Underscore, Some(b"customer-1"))
}

fn decode_dash(_: usize) -> Outcome<Case> {
    decode(Style::Dash, None)
}

fn decode(style: Style, key: Option<&'static [u8]>) -> Outcome<Case> {
    let outgoing = outgoing(1)?;
    let headers: Vec<(String, String)> = wire::encode(&outgoing, style)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into_owned()))
        .collect();
    let position_id = MessageId::from_position("broker", "orders/0", "1");
    Ok(Box::new(move || {
        let headers = headers.iter();
        let raw = Raw {
            route: "orders.created",
            key,
            headers: headers.map(|(n, v)| (n.as_str(), v.as_bytes())).collect(),
            payload: outgoing.message.payload.clone(),
            position_id: position_id.clone(),
        };
        drop(black_box(wire::decode(black_box(raw), style)));
    }))
}

fn mark(_: usize) -> Outcome<Case> {
    let message = message(1, Some(1))?;
    Ok(Box::new(move || {
        black_box(Mark::of(black_box(&message)));
    }))
}

fn turns_of_keys(_: usize) -> Outcome<Case> {
    turns(|seq| Some(seq % KEYS))
}

fn turns_without_keys(_: usize) -> Outcome<Case> {
    turns(|_| None)
}

/// The turns of messages that arrive together, by key and 16 at a time.
fn turns(key: impl Fn(i64) -> Option<i64>) -> Outcome<Case> {
    let messages = (1..=CHUNK).map(|seq| message(seq, key(seq)));
    let messages = messages.collect::<Outcome<Vec<_>>>()?;
    Ok(Box::new(move || {
        let mut keys = Keys::new(Places { limit: 16, all: 24 }, vec![16]);
        for (number, message) in (0..).zip(&messages) {
            keys.arrive(number, KeyId::of(message), 0);
        }
        loop {
            let running: Vec<u64> = std::iter::from_fn(|| keys.start()).collect();
            if running.is_empty() {
                return;
            }
            for number in running {
                keys.end(number);
            }
        }
    }))
}
