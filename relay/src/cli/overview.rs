//! A stream as the commands show it.

use std::collections::BTreeMap;

use onceward::schema::{CursorOverview, StreamOverview};
use onceward_core::Lane;
use serde::Serialize;
use serde_json::Value;

use super::Context;
use super::output::seconds;

#[derive(Debug, Serialize)]
pub(super) struct Stream {
    pub(super) stream: String,
    pub(super) configured: bool,
    pub(super) topics: Vec<String>,
    pub(super) unrouted: String,
    pub(super) lease: &'static str,
    pub(super) owner: Option<String>,
    pub(super) lease_seconds: Option<f64>,
    pub(super) depth: i64,
    pub(super) oldest_seconds: Option<f64>,
    pub(super) lanes: Vec<LaneStatus>,
    pub(super) paused: Value,
    pub(super) parked: i64,
    /// How long the oldest of them has waited for a person.
    pub(super) parked_seconds: Option<f64>,
    /// How many keys wait for one of them.
    pub(super) held_keys: i64,
    pub(super) due: i64,
}

#[derive(Debug, Serialize)]
pub(super) struct LaneStatus {
    pub(super) lane: &'static str,
    pub(super) detour: String,
    pub(super) last_seq: i64,
    pub(super) depth: i64,
    pub(super) oldest_seconds: Option<f64>,
}

impl Stream {
    /// The streams that the database knows, and whether this configuration names them.
    pub(super) fn all(context: &Context, streams: Vec<StreamOverview>) -> Vec<Self> {
        let streams = streams.into_iter();
        streams.map(|stream| Self::new(context, stream)).collect()
    }

    fn new(context: &Context, stream: StreamOverview) -> Self {
        let count = |state: &str| {
            let of_state = stream.parked.iter().filter(|parked| parked.state == state);
            of_state.map(|parked| parked.count).sum()
        };
        let (parked, due) = (count("parked"), count("due"));
        let waiting = stream.parked.iter().find(|parked| parked.state == "parked");
        let parked_seconds = waiting.map(|waiting| waiting.oldest_seconds);
        let held_keys = waiting.map_or(0, |waiting| waiting.held_keys);
        let ages = stream
            .cursors
            .iter()
            .filter_map(|cursor| cursor.oldest_seconds);
        Self {
            configured: context.config.stream(&stream.stream).is_some(),
            lease: match stream.lease_seconds {
                None => "free",
                Some(seconds) if seconds > 0.0 => "held",
                Some(_) => "expired",
            },
            lease_seconds: stream.lease_seconds,
            depth: stream
                .cursors
                .iter()
                .map(|cursor| cursor.depth)
                .max()
                .unwrap_or_default(),
            oldest_seconds: ages.reduce(f64::max),
            lanes: stream.cursors.iter().map(LaneStatus::from).collect(),
            paused: stream.paused,
            parked,
            parked_seconds,
            held_keys,
            due,
            stream: stream.stream,
            topics: stream.topics,
            unrouted: stream.unrouted,
            owner: stream.owner,
        }
    }

    /// How many messages of the log it has not passed at most: by lanes, as each has its own, of which a detour may lie behind the main cursor.
    pub(super) fn not_passed(&self) -> i64 {
        let mut lanes = BTreeMap::new();
        for cursor in &self.lanes {
            let furthest = lanes.entry(cursor.lane).or_insert(0);
            *furthest = cursor.depth.max(*furthest);
        }
        lanes.into_values().fold(0, i64::saturating_add)
    }

    /// What a person has to decide about, and the command to run next; none if nothing waits.
    pub(super) fn waiting_text(&self) -> Option<String> {
        let (name, oldest) = (&self.stream, self.parked_seconds.map(seconds)?);
        let messages = match self.parked {
            1 => "1 parked message waits".to_owned(),
            count => format!("{count} parked messages wait"),
        };
        let held = match self.held_keys {
            0 => String::new(),
            1 => "; later messages of 1 key are held behind it".to_owned(),
            count => format!("; later messages of {count} keys are held behind them"),
        };
        Some(format!(
            "{messages} for a person in the stream {name}, the oldest for {oldest}{held}\n  to do: onceward parked list --stream {name}\n"
        ))
    }

    /// Who holds the lease, for people.
    pub(super) fn lease_text(&self) -> String {
        let owner = self.owner.as_deref().unwrap_or("unknown");
        let configured = if self.configured {
            ""
        } else {
            ", not configured here"
        };
        match self.lease_seconds {
            None => format!("nobody{configured}"),
            Some(left) if left > 0.0 => format!("{owner}{configured}"),
            Some(left) => format!("nobody since {} (was {owner}){configured}", seconds(-left)),
        }
    }
}

impl From<&CursorOverview> for LaneStatus {
    fn from(cursor: &CursorOverview) -> Self {
        Self {
            lane: Lane::from_number(cursor.lane).map_or("unknown", Lane::name),
            detour: cursor.detour.clone(),
            last_seq: cursor.last_seq,
            depth: cursor.depth,
            oldest_seconds: cursor.oldest_seconds,
        }
    }
}
