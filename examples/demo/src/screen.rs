//! Puts the board before the user: redrawn in place on a terminal, a line per second elsewhere.

use std::io::{IsTerminal as _, Write as _, stderr, stdout};
use std::time::{Duration, Instant};

use crate::board::Board;

const LINE_EVERY: Duration = Duration::from_millis(950);

/// Where text goes.
#[derive(Debug)]
pub(crate) struct Screen {
    /// Standard output is kept for the verdict.
    on_stderr: bool,
    redraws: bool,
    drawn_lines: usize,
    line_at: Option<Instant>,
    events_told: usize,
}

impl Screen {
    pub(crate) fn new(on_stderr: bool) -> Self {
        let redraws = if on_stderr {
            stderr().is_terminal()
        } else {
            stdout().is_terminal()
        };
        Self {
            on_stderr,
            redraws,
            drawn_lines: 0,
            line_at: None,
            events_told: 0,
        }
    }

    /// A line that stays.
    pub(crate) fn say(&self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    pub(crate) fn show(&mut self, board: &Board) {
        if self.redraws {
            let text = board.screen();
            // Up to where the last drawing began, and clear to the end of the screen.
            let back = match self.drawn_lines {
                0 => String::new(),
                lines => format!("\x1b[{lines}A\x1b[J"),
            };
            self.drawn_lines = text.lines().count();
            self.write(&format!("{back}{text}"));
            return;
        }
        for event in board.events.iter().skip(self.events_told) {
            self.say(event);
        }
        self.events_told = board.events.len();
        if self.line_at.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
            self.line_at = Some(Instant::now());
            self.say(&board.line());
        }
    }

    fn write(&self, text: &str) {
        // Nobody is left to tell when the reader of our output has gone.
        if self.on_stderr {
            stderr().write_all(text.as_bytes()).ok();
        } else {
            let mut out = stdout();
            out.write_all(text.as_bytes())
                .and_then(|()| out.flush())
                .ok();
        }
    }
}
