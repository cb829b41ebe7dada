//! How the members of a consumer hear of each other: a beat about each second, outside JetStream. Tells the tasks of the
//! partitions what falls to this member.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt as _;
use onceward_core::SubscribeError;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use super::durable::no_answer;
use super::spread::{Members, Share};
use crate::connection::{Happening, Happenings};

/// How often a member is heard.
const BEAT: Duration = Duration::from_millis(800);
/// A member that comes is answered at once, but not more often than this.
const PAUSE: Duration = Duration::from_millis(100);
/// How long handing a beat to the connection may take.
const GRACE: Duration = Duration::from_secs(1);

/// What a member says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Beat {
    /// Its id, drawn when it joined.
    member: String,
    /// Over how many partitions it spreads. Members that spread over another number share nothing with it.
    partitions: usize,
    /// When its first durable was made. Those of another durable with the same name, beyond a leaf node, share nothing with it.
    made: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    leaving: bool,
}

impl Beat {
    /// Whether it is of a member of this durable.
    fn is_of(&self, made: &str) -> bool {
        self.made == made
    }
}

/// Tells the presence to say goodbye and end, and is told when it has.
pub(crate) type Goodbye = oneshot::Sender<oneshot::Sender<()>>;

pub(crate) struct Presence {
    client: Client,
    subject: String,
    beats: Subscriber,
    happenings: Happenings,
    me: String,
    partitions: usize,
    made: Arc<str>,
    members: Members,
    share: watch::Sender<Share>,
    goodbye: oneshot::Receiver<oneshot::Sender<()>>,
    /// Whether the connection is up.
    up: bool,
    /// The server does not let us be heard on this connection.
    mute: bool,
    warned_of_rights: bool,
    warned_of_numbers: bool,
    next_beat: Instant,
    last_beat: Option<Instant>,
}

impl Presence {
    /// Begins to listen. `share` is told what falls to this member, at first nothing.
    pub(crate) async fn begin(
        client: &Client,
        happenings: Happenings,
        subject: String,
        (partitions, made): (usize, Arc<str>),
        share: watch::Sender<Share>,
    ) -> Result<(Self, Goodbye), SubscribeError> {
        let beats = client.subscribe(subject.clone()).await;
        let beats = beats.map_err(no_answer)?;
        let me = id(client);
        let (tell, goodbye) = oneshot::channel();
        let now = Instant::now();
        let presence = Self {
            client: client.clone(),
            subject,
            beats,
            happenings,
            members: Members::new(me.clone(), now),
            me,
            partitions,
            made,
            share,
            goodbye,
            up: true,
            mute: false,
            warned_of_rights: false,
            warned_of_numbers: false,
            next_beat: now,
            last_beat: None,
        };
        Ok((presence, tell))
    }

    /// Runs until it is told to say goodbye, or its member is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            let now = Instant::now();
            let look = self.members.next_look().filter(|_| self.up);
            tokio::select! {
                biased;
                told = &mut self.goodbye => {
                    // Dropped is like a crash: no goodbye.
                    if let Ok(done) = told {
                        if !self.mute {
                            self.say_goodbye().await;
                        }
                        done.send(()).ok();
                    }
                    return;
                }
                happening = self.happenings.recv() => match happening {
                    Some(happening) => self.on_happening(happening),
                    None => return,
                },
                Some(message) = self.beats.next() => self.on_beat(&message),
                () = tokio::time::sleep_until(self.next_beat.into()), if self.up && !self.mute => {
                    self.say(false).await;
                }
                () = tokio::time::sleep_until(look.unwrap_or(now).into()), if look.is_some() => {}
            }
            self.share_out();
        }
    }

    fn share_out(&mut self) {
        // Who hears nobody because of an outage keeps what it has.
        if !self.up {
            return;
        }
        let share = self.members.share(Instant::now());
        let moved = self.share.send_if_modified(|old| {
            let moved = *old != share;
            *old = share;
            moved
        });
        if moved {
            let (members, partitions) = (share.members(), self.partitions);
            tracing::info!(subject = %self.subject, members, partitions, "partitions are shared out anew");
        }
    }

    fn on_beat(&mut self, message: &Message) {
        let now = Instant::now();
        let Ok(beat) = serde_json::from_slice::<Beat>(&message.payload) else {
            return;
        };
        if !beat.is_of(&self.made) {
            return;
        }
        if beat.partitions != self.partitions {
            if !std::mem::replace(&mut self.warned_of_numbers, true) {
                tracing::warn!(subject = %self.subject, ours = self.partitions, theirs = beat.partitions, "members of one consumer are spread over different numbers of partitions; give all of them the same");
            }
        } else if beat.leaving {
            self.members.left(&beat.member);
        } else if self.members.heard(&beat.member, now) {
            // So that it knows us before it takes anything.
            let soon = self.last_beat.map_or(now, |last| last + PAUSE);
            self.next_beat = self.next_beat.min(soon.max(now));
        }
    }

    fn on_happening(&mut self, happening: Happening) {
        let now = Instant::now();
        match happening {
            Happening::Up => {
                self.up = true;
                self.mute = false;
                self.next_beat = now;
                self.members.was_deaf(now);
            }
            Happening::Down => self.up = false,
            Happening::Told(told) if told.contains(&self.subject) => {
                // It would tell so again at each beat.
                self.mute = self.mute || told.to_ascii_lowercase().contains("publish");
                if !std::mem::replace(&mut self.warned_of_rights, true) {
                    tracing::warn!(told, subject = %self.subject, "members of this consumer do not hear each other; work is not spread evenly; let them publish and subscribe on this subject");
                }
            }
            Happening::Told(told) => tracing::warn!(told, "NATS tells of trouble"),
        }
    }

    async fn say_goodbye(&mut self) {
        self.say(true).await;
        // Nothing may come behind it that would carry it along.
        tokio::time::timeout(GRACE, self.client.flush()).await.ok();
    }

    /// Says that we are here, or that we leave. Best effort.
    async fn say(&mut self, leaving: bool) {
        let now = Instant::now();
        self.last_beat = Some(now);
        self.next_beat = now + BEAT;
        let beat = Beat {
            member: self.me.clone(),
            partitions: self.partitions,
            made: self.made.to_string(),
            leaving,
        };
        let Ok(payload) = serde_json::to_vec(&beat) else {
            return;
        };
        let sent = self.client.publish(self.subject.clone(), payload.into());
        // While the connection is down, acks may fill the way to it.
        if let Err(error) = tokio::time::timeout(GRACE, sent).await {
            tracing::debug!(%error, "the other members were not told");
        }
    }
}

/// The subject on which the members of a consumer hear each other.
pub(crate) fn subject(stream: &str, durable: &str) -> String {
    format!("_ONCEWARD.members.{stream}.{durable}")
}

/// An id that no other member has.
fn id(client: &Client) -> String {
    let inbox = client.new_inbox();
    let id = inbox.rsplit('.').next();
    id.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_says_who_is_there_and_over_how_many_partitions_it_spreads() {
        let mut beat = Beat {
            member: "m1".to_owned(),
            partitions: 8,
            made: "then".to_owned(),
            leaving: false,
        };
        let here = serde_json::to_string(&beat).unwrap();
        beat.leaving = true;
        let leaving = serde_json::to_string(&beat).unwrap();

        assert_eq!(here, r#"{"member":"m1","partitions":8,"made":"then"}"#);
        assert_eq!(
            leaving,
            r#"{"member":"m1","partitions":8,"made":"then","leaving":true}"#
        );
        let read: Beat = serde_json::from_str(&here).unwrap();
        assert!(!read.leaving);
        assert!(read.is_of("then") && !read.is_of("later"));
    }
}
