//! Where a message stands in the window.

use onceward_core::Lane;

/// One of the cursors by which a stream reads: the main one of a lane, or a detour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Line {
    /// Detours come behind main lines.
    detour: u32,
    /// Its lane.
    pub(crate) lane: Lane,
}

impl Line {
    /// The main line of a lane.
    #[must_use]
    pub(crate) const fn main(lane: Lane) -> Self {
        Self { detour: 0, lane }
    }

    /// A detour's line; `number` is from 1 and given once.
    #[must_use]
    pub(crate) const fn detour(lane: Lane, number: u32) -> Self {
        Self {
            detour: number,
            lane,
        }
    }

    /// Whether it is the main line of its lane.
    #[must_use]
    pub(crate) const fn is_main(self) -> bool {
        self.detour == 0
    }
}

/// One message of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct EntryId {
    /// Where it was read.
    pub(crate) line: Line,
    pub(super) chunk: u64,
    pub(super) index: usize,
}
