//! What the demo shows while it runs. Pure: it makes text of numbers.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use crate::books::Progress;
use crate::crew::Role;

/// Samples that are kept to tell the lag in seconds.
const SAMPLES: usize = 600;
const BAR: usize = 40;

/// How long nothing may reach the broker before that is told. A relay itself gives an answer more time.
const STILL: Duration = Duration::from_secs(3);

/// Whether the broker is waited for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Wait {
    #[default]
    No,
    /// Nothing reaches it, and the relay has not given up on an answer.
    Still,
    /// The relay says why.
    Paused,
}

/// Everything on the screen.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// First line.
    pub(crate) title: String,
    /// What goes on now.
    pub(crate) phase: &'static str,
    /// Since customers began to order.
    pub(crate) elapsed: Duration,
    /// How long customers order.
    pub(crate) load: Duration,
    pub(crate) progress: Progress,
    /// Duplicate deliveries that the consumers dropped.
    pub(crate) duplicates: u64,
    /// Name and role of each process, relays first.
    pub(crate) members: Vec<(String, Role)>,
    /// What happened, with its time.
    pub(crate) events: Vec<String>,
    /// What was told last of waiting for the broker.
    wait: Wait,
    /// What was at the broker when that last changed, or when nothing waited.
    published: u64,
    /// When that was.
    moved_at: Duration,
    /// Committed over time.
    history: VecDeque<(Duration, u64)>,
}

impl Board {
    pub(crate) fn new(title: String, load: Duration) -> Self {
        Self {
            title,
            load,
            ..Self::default()
        }
    }

    pub(crate) fn take(&mut self, elapsed: Duration, progress: Progress) {
        self.elapsed = elapsed;
        self.progress = progress;
        self.history.push_back((elapsed, progress.committed));
        if self.history.len() > SAMPLES {
            self.history.pop_front();
        }
    }

    pub(crate) fn happened(&mut self, what: &str) {
        self.events
            .push(format!("{:5.1} s  {what}", self.elapsed.as_secs_f64()));
    }

    /// Takes who publishes, and why that one waits for the broker if it says so. A standstill is told, as is its end.
    pub(crate) fn wait(&mut self, publisher: Option<&str>, reason: Option<&str>) {
        let Progress {
            committed,
            published,
            ..
        } = self.progress;
        if publisher.is_none() || published >= committed || published != self.published {
            self.published = published;
            self.moved_at = self.elapsed;
        }
        let still = self.elapsed.saturating_sub(self.moved_at) >= STILL;
        let (wait, told) = match (publisher, reason) {
            (Some(name), Some(why)) => {
                (Wait::Paused, format!("{name} waits for the broker: {why}"))
            }
            (Some(name), None) if still => (
                Wait::Still,
                format!("{name} is at work, but for {STILL:?} the broker has confirmed nothing"),
            ),
            (Some(_), None) => (Wait::No, "the broker answers again".to_owned()),
            // Who waited is gone, and nobody knows yet what his successor finds.
            (None, _) => {
                self.wait = Wait::No;
                return;
            }
        };
        if wait != std::mem::replace(&mut self.wait, wait) {
            self.happened(&told);
        }
    }

    /// Orders that are committed and have no invoice yet.
    fn lag(&self) -> u64 {
        let Progress {
            committed, handled, ..
        } = self.progress;
        committed.saturating_sub(handled)
    }

    /// About how long ago as many orders were committed as are handled now.
    fn lag_seconds(&self) -> f64 {
        let behind = self
            .history
            .iter()
            .find(|(_, committed)| *committed > self.progress.handled);
        behind.map_or(0.0, |(at, _)| {
            (self.elapsed.saturating_sub(*at)).as_secs_f64()
        })
    }

    /// For a terminal.
    pub(crate) fn screen(&self) -> String {
        let mut text = String::new();
        let Progress {
            committed,
            published,
            handled,
            dead,
        } = self.progress;
        let lag = format!("{:.1} s", self.lag_seconds());
        let rows = [
            ("committed", committed, "orders in the service's database"),
            ("published", published, "messages at the broker, by a tap"),
            ("handled", handled, "invoices in the billing database"),
            (
                "duplicates",
                self.duplicates,
                "deliveries dropped by the consumers",
            ),
            ("dead letters", dead, "deliveries given up on"),
            ("lag", self.lag(), lag.as_str()),
        ];
        // Writing to a String cannot fail.
        writeln!(text, "{}\n", self.title).ok();
        writeln!(text, "  {}\n", self.bar()).ok();
        for (name, number, what) in rows {
            writeln!(text, "  {name:<13}{number:>9}   {what}").ok();
        }
        text.push('\n');
        for pair in self.members.chunks(2) {
            for (name, role) in pair {
                write!(text, "  {name:<11}{:<14}", word(*role)).ok();
            }
            text.push('\n');
        }
        text.push('\n');
        for event in &self.events {
            writeln!(text, "  {event}").ok();
        }
        text
    }

    /// For everything else: one line.
    pub(crate) fn line(&self) -> String {
        let Progress {
            committed,
            published,
            handled,
            dead,
        } = self.progress;
        let at_work: Vec<&str> = self
            .members
            .iter()
            .filter(|(_, role)| *role == Role::Works)
            .map(|(name, _)| name.as_str())
            .collect();
        format!(
            "{:5.1} s  committed {committed}  published {published}  handled {handled}  duplicates {}  dead letters {dead}  \
             lag {} ({:.1} s)  at work: {}",
            self.elapsed.as_secs_f64(),
            self.duplicates,
            self.lag(),
            self.lag_seconds(),
            if at_work.is_empty() {
                "nobody".to_owned()
            } else {
                at_work.join(" ")
            },
        )
    }

    fn bar(&self) -> String {
        let part = self.elapsed.as_secs_f64() / self.load.as_secs_f64().max(1.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a bar of forty characters"
        )]
        let full = ((part * BAR as f64) as usize).min(BAR);
        format!(
            "[{}{}] {:.0} of {} s  {}",
            "#".repeat(full),
            "-".repeat(BAR - full),
            self.elapsed.as_secs_f64().min(self.load.as_secs_f64()),
            self.load.as_secs(),
            self.phase
        )
    }
}

pub(crate) fn word(role: Role) -> &'static str {
    match role {
        Role::Works => "at work",
        Role::StandsBy => "stands by",
        Role::Killed => "killed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Board {
        let mut board = Board {
            load: Duration::from_secs(30),
            members: vec![
                ("relay-1".into(), Role::Works),
                ("relay-2".into(), Role::StandsBy),
            ],
            ..Board::default()
        };
        for (second, committed) in [(1, 100), (2, 200), (3, 300)] {
            let progress = Progress {
                committed,
                handled: 150,
                ..Progress::default()
            };
            board.take(Duration::from_secs(second), progress);
        }
        board
    }

    #[test]
    fn lag_is_how_long_ago_the_oldest_order_without_an_invoice_was_committed() {
        let mut board = board();

        assert_eq!((board.lag(), board.lag_seconds()), (150, 1.0));

        board.progress.handled = 300;
        assert_eq!((board.lag(), board.lag_seconds()), (0, 0.0));
    }

    #[test]
    fn a_wait_for_the_broker_is_told_when_it_begins_and_when_it_ends() {
        let mut board = board();
        let relay = Some("relay-1");

        board.wait(None, None);
        for second in [5, 6, 7] {
            board.elapsed = Duration::from_secs(second);
            board.wait(relay, None);
        }
        board.wait(relay, Some("SQS does not answer"));
        board.wait(relay, Some("SQS does not answer"));
        board.progress.published = 300;
        board.wait(relay, None);

        assert_eq!(
            board.events,
            [
                "  6.0 s  relay-1 is at work, but for 3s the broker has confirmed nothing",
                "  7.0 s  relay-1 waits for the broker: SQS does not answer",
                "  7.0 s  the broker answers again",
            ]
        );
    }

    #[test]
    fn the_time_in_which_nobody_publishes_is_no_wait_for_the_broker() {
        let mut board = board();

        board.elapsed = Duration::from_secs(60);
        board.wait(None, None);
        board.elapsed = Duration::from_secs(61);
        board.wait(Some("relay-2"), None);

        assert!(board.events.is_empty(), "{:?}", board.events);
    }

    #[test]
    fn the_line_tells_who_works() {
        assert!(board().line().ends_with("at work: relay-1"));
    }

    #[test]
    fn the_bar_never_outgrows_its_room() {
        let mut board = board();
        board.elapsed = Duration::from_secs(99);

        assert!(
            board
                .bar()
                .contains(&format!("[{}] 30 of 30 s", "#".repeat(BAR)))
        );
    }
}
