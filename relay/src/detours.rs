//! The detours of a stream: which row is whose, when one is opened, and when one has come to where its parent stands.
//! Pure: no clock, no I/O.

use std::collections::{BTreeMap, HashSet};

use onceward::{Detour, NewDetour};
use onceward_core::{Key, Lane, Topic};

use crate::window::Line;

/// The most detours of a stream. Beyond that what would need one holds its stream.
pub(crate) const MOST: usize = 64;

/// The detours that are open, and the keys that are held.
#[derive(Debug, Default)]
pub(crate) struct Detours {
    open: BTreeMap<(Lane, Detour), Line>,
    given: u32,
    /// The keys of which a message is set aside and undecided; none until they are known: then every held key waits.
    waiting: Option<HashSet<(Topic, Key)>>,
}

impl Detours {
    /// Takes note of one that is open now.
    pub(crate) fn open(&mut self, lane: Lane, detour: Detour) -> Line {
        self.given += 1;
        let line = Line::detour(lane, self.given);
        self.open.insert((lane, detour), line);
        line
    }

    /// It is closed.
    pub(crate) fn close(&mut self, line: Line) {
        self.open.retain(|_, known| *known != line);
    }

    /// What a line reads; none for a main line.
    #[must_use]
    pub(crate) fn of(&self, line: Line) -> Option<&Detour> {
        let mut open = self.open.iter();
        open.find_map(|((_, detour), known)| (*known == line).then_some(detour))
    }

    /// The lines of the detours, with what they read.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (Line, &Detour)> {
        self.open.iter().map(|((_, detour), line)| (*line, detour))
    }

    /// Whether there is none.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// How many more may be opened.
    #[must_use]
    pub(crate) fn room(&self) -> usize {
        MOST.saturating_sub(self.open.len())
    }

    /// The keys that have a detour.
    #[must_use]
    pub(crate) fn keys(&self) -> Vec<(Topic, Key)> {
        let open = self.open.keys();
        let keys = open.filter_map(|(_, detour)| Some((detour.topic.clone(), detour.key.clone()?)));
        keys.collect()
    }

    /// The line by which a message is published: that of its key if that is held, else that of its topic if that has a
    /// detour, else the main line.
    #[must_use]
    pub(crate) fn owner(&self, lane: Lane, topic: &Topic, key: Option<&Key>) -> Line {
        if self.open.is_empty() {
            return Line::main(lane);
        }
        let find = |key: Option<Key>| {
            let topic = topic.clone();
            self.open.get(&(lane, Detour { topic, key }))
        };
        let held = key.and_then(|key| find(Some(key.clone())));
        held.or_else(|| find(None))
            .copied()
            .unwrap_or(Line::main(lane))
    }

    /// The line that reads for a detour once it is closed: that of the whole topic for a key, if there is one, else the main line.
    #[must_use]
    pub(crate) fn parent(&self, line: Line) -> Line {
        let of_topic = self.of(line).filter(|detour| detour.key.is_some());
        let found = of_topic.and_then(|detour| {
            let topic = detour.topic.clone();
            self.open.get(&(line.lane, Detour { topic, key: None }))
        });
        found.copied().unwrap_or(Line::main(line.lane))
    }

    /// The detour to open when a message is set aside and its key is to be held; none if it is held already. It begins where
    /// the detour of its topic stands, if there is one: what lies between that and the main cursor is not published yet.
    #[must_use]
    pub(crate) fn hold(&self, lane: Lane, topic: &Topic, key: &Key) -> Option<NewDetour> {
        let of_topic = Detour {
            topic: topic.clone(),
            key: None,
        };
        let detour = Detour {
            key: Some(key.clone()),
            ..of_topic.clone()
        };
        let place = (lane, detour);
        if self.open.contains_key(&place) {
            return None;
        }
        let (lane, detour) = place;
        let of_topic = (lane, of_topic);
        let parent = self.open.contains_key(&of_topic).then_some(of_topic.1);
        Some(NewDetour {
            lane,
            detour,
            parent,
        })
    }

    /// The detours to open for topics that wait in main lines, as many as may be.
    #[must_use]
    pub(crate) fn around<'a>(
        &self,
        waiting: impl Iterator<Item = (Lane, &'a Topic)>,
    ) -> Vec<NewDetour> {
        let mut new: Vec<NewDetour> = Vec::new();
        for (lane, topic) in waiting {
            let detour = Detour {
                topic: topic.clone(),
                key: None,
            };
            let wanted = NewDetour {
                lane,
                detour,
                parent: None,
            };
            let open = self.open.contains_key(&(lane, wanted.detour.clone()));
            if !open && new.len() < self.room() && !new.contains(&wanted) {
                new.push(wanted);
            }
        }
        new
    }

    /// Takes note of the keys of which a message is set aside and undecided.
    pub(crate) fn set_waiting(&mut self, keys: impl IntoIterator<Item = (Topic, Key)>) {
        self.waiting = Some(keys.into_iter().collect());
    }

    /// A message of the key was set aside just now.
    pub(crate) fn add_waiting(&mut self, topic: &Topic, key: &Key) {
        if let Some(waiting) = &mut self.waiting {
            waiting.insert((topic.clone(), key.clone()));
        }
    }

    /// Whether a line publishes nothing now: it is that of a key, and a message of the key is undecided.
    #[must_use]
    pub(crate) fn is_held(&self, line: Line) -> bool {
        let of_key = self.of(line).and_then(|detour| {
            let key = detour.key.as_ref()?;
            Some((detour.topic.clone(), key.clone()))
        });
        of_key.is_some_and(|key| {
            let waiting = self.waiting.as_ref();
            waiting.is_none_or(|waiting| waiting.contains(&key))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: Lane = Lane::Standard;

    fn topic(name: &str) -> Topic {
        Topic::try_from(name).unwrap()
    }

    fn key(name: &str) -> Key {
        Key::try_from(name).unwrap()
    }

    fn whole(name: &str) -> Detour {
        Detour {
            topic: topic(name),
            key: None,
        }
    }

    fn held(name: &str, of: &str) -> Detour {
        Detour {
            topic: topic(name),
            key: Some(key(of)),
        }
    }

    #[test]
    fn a_row_has_one_owner_the_most_particular() {
        let mut detours = Detours::default();
        let of_topic = detours.open(LANE, whole("orders"));
        let of_key = detours.open(LANE, held("orders", "k"));

        let owner = |lane, name, of: Option<&str>| {
            let of = of.map(key);
            detours.owner(lane, &topic(name), of.as_ref())
        };

        assert_eq!(owner(LANE, "orders", Some("k")), of_key);
        assert_eq!(owner(LANE, "orders", Some("other")), of_topic);
        assert_eq!(owner(LANE, "orders", None), of_topic);
        assert_eq!(owner(LANE, "payments", Some("k")), Line::main(LANE));
        assert_eq!(
            owner(Lane::Bulk, "orders", Some("k")),
            Line::main(Lane::Bulk)
        );
    }

    #[test]
    fn a_held_key_returns_to_its_topics_detour_or_to_the_main_line() {
        let mut detours = Detours::default();
        let of_key = detours.open(LANE, held("orders", "k"));
        assert_eq!(detours.parent(of_key), Line::main(LANE));

        let of_topic = detours.open(LANE, whole("orders"));
        assert_eq!(detours.parent(of_key), of_topic);
        assert_eq!(detours.parent(of_topic), Line::main(LANE));

        detours.close(of_topic);
        assert_eq!(detours.parent(of_key), Line::main(LANE));
    }

    #[test]
    fn a_hold_begins_where_its_topic_stands_and_only_once() {
        let mut detours = Detours::default();
        let hold = |detours: &Detours| detours.hold(LANE, &topic("orders"), &key("k"));
        assert_eq!(hold(&detours).unwrap().parent, None);

        detours.open(LANE, whole("orders"));
        let new = hold(&detours).unwrap();
        assert_eq!(new.parent, Some(whole("orders")));

        detours.open(LANE, new.detour);
        assert_eq!(hold(&detours), None);
    }

    #[test]
    fn a_held_key_waits_until_it_is_known_that_nothing_of_it_is_undecided() {
        let mut detours = Detours::default();
        let of_topic = detours.open(LANE, whole("orders"));
        let of_key = detours.open(LANE, held("orders", "k"));
        assert!(detours.is_held(of_key) && !detours.is_held(of_topic));

        detours.set_waiting([(topic("orders"), key("other"))]);
        assert!(!detours.is_held(of_key));

        detours.add_waiting(&topic("orders"), &key("k"));
        assert!(detours.is_held(of_key));
    }

    #[test]
    fn no_more_detours_are_opened_than_may_be() {
        let mut detours = Detours::default();
        let names: Vec<Topic> = (0..MOST + 5).map(|n| topic(&format!("t{n}"))).collect();
        detours.open(LANE, whole("orders"));

        let new = detours.around(names.iter().map(|name| (LANE, name)));

        assert_eq!(new.len(), MOST - 1);
        let twice = [&names[0], &names[0]].map(|name| (LANE, name));
        assert_eq!(detours.around(twice.into_iter()).len(), 1);
    }
}
