//! One topic: what it stores, and what it refuses. Pure.

use std::collections::VecDeque;
use std::time::SystemTime;

use bytes::Bytes;
use onceward_core::{ErrorKind, PublishError};

/// A message as the broker stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryRecord {
    /// Its place in the topic, counted from 0.
    pub position: u64,
    /// When it came.
    pub at: SystemTime,
    /// Names and values as on the wire.
    pub headers: Vec<(String, Bytes)>,
    /// The payload.
    pub payload: Bytes,
}

impl MemoryRecord {
    fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(n, v)| n.len() + v.len()).sum();
        headers + self.payload.len()
    }
}

/// A log of messages, one partition.
#[derive(Debug, Default)]
pub(crate) struct Topic {
    records: VecDeque<MemoryRecord>,
    first: u64,
    pub(crate) limit: Option<u64>,
    pub(crate) full: bool,
}

impl Topic {
    /// Stores a message that came at `at`, or says why not.
    pub(crate) fn store(
        &mut self,
        headers: Vec<(String, Bytes)>,
        payload: Bytes,
        at: SystemTime,
    ) -> Result<(), PublishError> {
        let record = MemoryRecord {
            position: self.next(),
            at,
            headers,
            payload,
        };
        let size = record.size() as u64;
        match self.limit {
            Some(limit) if size > limit => Err(PublishError::new(
                ErrorKind::TooLarge,
                format!("the message has {size} bytes; the topic takes {limit}"),
            )),
            _ if self.full => Err(PublishError::new(ErrorKind::Throttled, "the topic is full")),
            _ => {
                self.records.push_back(record);
                Ok(())
            }
        }
    }

    /// The oldest position that is still there, or the next one if there is none.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The position of the next message.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    /// The message at a position.
    pub(crate) fn get(&self, position: u64) -> Option<&MemoryRecord> {
        let index = usize::try_from(position.checked_sub(self.first)?).ok()?;
        self.records.get(index)
    }

    /// All messages, oldest first.
    pub(crate) fn records(&self) -> impl Iterator<Item = &MemoryRecord> {
        self.records.iter()
    }

    /// Removes the oldest messages so that at most `keep` are left.
    pub(crate) fn forget(&mut self, keep: usize) {
        while self.records.len() > keep {
            self.records.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_stored_with_the_time_at_which_it_came() {
        let mut topic = Topic::default();

        topic
            .store(Vec::new(), Bytes::new(), SystemTime::UNIX_EPOCH)
            .unwrap();

        assert_eq!(topic.get(0).unwrap().at, SystemTime::UNIX_EPOCH);
    }
}
