//! One line of the window: chunks in the order they were read.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use onceward_core::{Batch, Outgoing, Route};

use super::{EntryId, Line, Offer};

#[derive(Debug)]
pub(super) struct LineWindow<C> {
    chunks: VecDeque<Chunk<C>>,
    /// The number of the first chunk.
    first: u64,
    /// No entry before this one waits: chunk number and index.
    next: (u64, usize),
    open: usize,
    /// Entries of all chunks, done or not.
    held: usize,
    suspects: usize,
    /// Of entries that are not done.
    bytes: usize,
}

#[derive(Debug)]
struct Chunk<C> {
    entries: Vec<Entry>,
    open: usize,
    after: C,
}

#[derive(Debug)]
struct Entry {
    state: State,
    suspect: bool,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "most entries wait or are done soon; boxing would cost an allocation each"
)]
enum State {
    Waiting(Outgoing),
    /// Taken into an offer that is being put together.
    Taken,
    Offered(Arc<Batch>, usize),
    Done,
}

impl Entry {
    fn waiting(&self) -> Option<&Outgoing> {
        match &self.state {
            State::Waiting(outgoing) => Some(outgoing),
            State::Taken | State::Offered(..) | State::Done => None,
        }
    }
}

/// What an entry was when it was done.
pub(super) struct Finished {
    pub(super) route: Route,
    pub(super) offered: bool,
    pub(super) suspect: bool,
}

/// An offer being put together.
pub(super) struct Taken {
    batch: Batch,
    entries: Vec<EntryId>,
    most: usize,
    bytes: usize,
}

impl Taken {
    pub(super) fn new(most: usize, bytes: usize) -> Self {
        Self {
            batch: Batch::default(),
            entries: Vec::new(),
            most,
            bytes,
        }
    }

    pub(super) fn messages(&self) -> &[Outgoing] {
        &self.batch.messages
    }

    pub(super) fn into_offer(self) -> Option<Offer> {
        if self.entries.is_empty() {
            return None;
        }
        Some(Offer {
            batch: Arc::new(self.batch),
            entries: self.entries,
        })
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= self.most || self.bytes == 0
    }

    fn add(&mut self, id: EntryId, outgoing: Outgoing) {
        self.bytes = self.bytes.saturating_sub(outgoing.message.weight());
        self.batch.messages.push(outgoing);
        self.entries.push(id);
    }
}

impl<C> LineWindow<C> {
    pub(super) fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            first: 0,
            next: (0, 0),
            open: 0,
            held: 0,
            suspects: 0,
            bytes: 0,
        }
    }

    pub(super) fn push(&mut self, messages: Vec<Outgoing>, after: C) {
        let open = messages.len();
        self.bytes += messages
            .iter()
            .map(|outgoing| outgoing.message.weight())
            .sum::<usize>();
        // Nothing of it is ours: it is passed with the chunk before it.
        if open == 0
            && let Some(last) = self.chunks.back_mut()
        {
            last.after = after;
            return;
        }
        let entries = messages
            .into_iter()
            .map(|outgoing| Entry {
                state: State::Waiting(outgoing),
                suspect: false,
            })
            .collect();
        self.open += open;
        self.held += open;
        self.chunks.push_back(Chunk {
            entries,
            open,
            after,
        });
    }

    /// Takes up to `quota` waiting entries, in order. Once one of a route is left, the rest of that route is left too.
    pub(super) fn take(
        &mut self,
        line: Line,
        quota: usize,
        taken: &mut Taken,
        may: &mut dyn FnMut(&Route) -> bool,
    ) {
        let mut left: HashSet<Route> = HashSet::new();
        let mut count = 0;
        let mut first_left = None;
        let (mut chunk, mut at) = self.next;
        while count < quota && !taken.is_full() {
            let Some(entry) = self.entry_at(&mut chunk, &mut at) else {
                break;
            };
            if let State::Waiting(outgoing) = &entry.state {
                let route = &outgoing.route;
                if !left.contains(route) && may(route) {
                    let state = std::mem::replace(&mut entry.state, State::Taken);
                    if let State::Waiting(outgoing) = state {
                        let id = EntryId {
                            line,
                            chunk,
                            index: at,
                        };
                        taken.add(id, outgoing);
                        count += 1;
                    }
                } else {
                    left.insert(route.clone());
                    first_left.get_or_insert((chunk, at));
                }
            }
            at += 1;
        }
        self.next = first_left.unwrap_or((chunk, at));
    }

    /// The entry at a place, or at the beginning of the next chunk that has one.
    fn entry_at(&mut self, chunk: &mut u64, at: &mut usize) -> Option<&mut Entry> {
        if *chunk < self.first {
            (*chunk, *at) = (self.first, 0);
        }
        loop {
            let offset = usize::try_from(*chunk - self.first).ok()?;
            if *at < self.chunks.get(offset)?.entries.len() {
                return self.chunks.get_mut(offset)?.entries.get_mut(*at);
            }
            if offset + 1 >= self.chunks.len() {
                return None;
            }
            (*chunk, *at) = (*chunk + 1, 0);
        }
    }

    pub(super) fn offered(&mut self, chunk: u64, index: usize, batch: &Arc<Batch>, at: usize) {
        if let Some(entry) = self.entry(chunk, index) {
            entry.state = State::Offered(Arc::clone(batch), at);
        }
    }

    pub(super) fn done(&mut self, chunk: u64, index: usize) -> Option<Finished> {
        let entry = self.entry(chunk, index)?;
        let state = std::mem::replace(&mut entry.state, State::Done);
        let suspect = std::mem::replace(&mut entry.suspect, false);
        let (outgoing, offered) = match &state {
            State::Waiting(outgoing) => (outgoing, false),
            State::Offered(batch, at) => (batch.messages.get(*at)?, true),
            State::Taken | State::Done => return None,
        };
        let weight = outgoing.message.weight();
        let finished = Finished {
            route: outgoing.route.clone(),
            offered,
            suspect,
        };
        self.open -= 1;
        self.bytes -= weight;
        self.suspects -= usize::from(suspect);
        if let Some(chunk) = self.chunk(chunk) {
            chunk.open -= 1;
        }
        Some(finished)
    }

    /// Puts an offered entry back at its place; gives its route, or none if it was not on offer.
    pub(super) fn again(&mut self, chunk: u64, index: usize) -> Option<Route> {
        let entry = self.entry(chunk, index)?;
        let State::Offered(batch, at) = &entry.state else {
            return None;
        };
        let outgoing = batch.messages.get(*at)?.clone();
        let route = outgoing.route.clone();
        entry.state = State::Waiting(outgoing);
        self.next = self.next.min((chunk, index));
        Some(route)
    }

    /// Marks a waiting entry as suspect; gives its route if it was none before.
    pub(super) fn suspect(&mut self, chunk: u64, index: usize) -> Option<Route> {
        let entry = self.entry(chunk, index)?;
        let State::Waiting(outgoing) = &entry.state else {
            return None;
        };
        if std::mem::replace(&mut entry.suspect, true) {
            return None;
        }
        let route = outgoing.route.clone();
        self.suspects += 1;
        Some(route)
    }

    /// Nothing waiting is suspect any more; gives the routes of what was.
    pub(super) fn acquit(&mut self) -> Vec<Route> {
        let mut routes = Vec::new();
        for entry in self.chunks.iter_mut().flat_map(|chunk| &mut chunk.entries) {
            if let State::Waiting(outgoing) = &entry.state
                && std::mem::replace(&mut entry.suspect, false)
            {
                routes.push(outgoing.route.clone());
            }
        }
        self.suspects -= routes.len();
        routes
    }

    pub(super) fn get(&self, chunk: u64, index: usize) -> Option<&Outgoing> {
        let offset = usize::try_from(chunk.checked_sub(self.first)?).ok()?;
        match &self.chunks.get(offset)?.entries.get(index)?.state {
            State::Waiting(outgoing) => Some(outgoing),
            State::Offered(batch, at) => batch.messages.get(*at),
            State::Taken | State::Done => None,
        }
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = &Outgoing> {
        let entries = self.chunks.iter().flat_map(|chunk| &chunk.entries);
        entries.filter_map(Entry::waiting)
    }

    /// Whether an entry before this one is not done, and is so.
    pub(super) fn any_before(
        &self,
        chunk: u64,
        index: usize,
        so: impl Fn(&Outgoing) -> bool,
    ) -> bool {
        let chunks = (self.first..=chunk).zip(&self.chunks);
        let mut entries = chunks.flat_map(|(number, found)| {
            let until = if number == chunk {
                index
            } else {
                found.entries.len()
            };
            found.entries.iter().take(until)
        });
        entries.any(|entry| match &entry.state {
            State::Waiting(outgoing) => so(outgoing),
            State::Offered(batch, at) => batch.messages.get(*at).is_some_and(&so),
            State::Taken | State::Done => false,
        })
    }

    /// The waiting entries that are so.
    pub(super) fn waiting_ids(&self, line: Line, so: impl Fn(&Outgoing) -> bool) -> Vec<EntryId> {
        let chunks = (self.first..).zip(&self.chunks);
        let entries = chunks.flat_map(|(chunk, found)| {
            let entries = found.entries.iter().enumerate();
            entries.map(move |(index, entry)| (EntryId { line, chunk, index }, entry))
        });
        let found = entries.filter(|(_, entry)| entry.waiting().is_some_and(&so));
        found.map(|(id, _)| id).collect()
    }

    pub(super) fn advance(&mut self) -> Option<C> {
        let mut last = None;
        while self.chunks.front().is_some_and(|chunk| chunk.open == 0) {
            if let Some(chunk) = self.chunks.pop_front() {
                self.held -= chunk.entries.len();
                last = Some(chunk.after);
            }
            self.first += 1;
        }
        last
    }

    pub(super) fn open(&self) -> usize {
        self.open
    }

    pub(super) fn held(&self) -> usize {
        self.held
    }

    pub(super) fn suspects(&self) -> usize {
        self.suspects
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    fn entry(&mut self, chunk: u64, index: usize) -> Option<&mut Entry> {
        self.chunk(chunk)?.entries.get_mut(index)
    }

    pub(super) fn cursors_mut(&mut self) -> impl Iterator<Item = &mut C> {
        self.chunks.iter_mut().map(|chunk| &mut chunk.after)
    }

    fn chunk(&mut self, chunk: u64) -> Option<&mut Chunk<C>> {
        let offset = usize::try_from(chunk.checked_sub(self.first)?).ok()?;
        self.chunks.get_mut(offset)
    }
}
