//! The run itself: load, kills, drain, stop, ledger.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::Failure;
use crate::board::Board;
use crate::books::{Books, Progress};
use crate::crew::Role;
use crate::load::{self, Answers};
use crate::outcome::{Course, Outcome};
use crate::plot::{Plot, Step};
use crate::screen::Screen;
use crate::settings::Settings;
use crate::stage::Stage;

const LOOK_EVERY: Duration = Duration::from_millis(500);
const DRAIN_TAKES_AT_MOST: Duration = Duration::from_secs(60);
/// How long everything must have arrived before the books are closed: time for a second invoice to show.
const QUIET: Duration = Duration::from_secs(2);

/// A run.
#[derive(Debug)]
pub(crate) struct Show<'a> {
    stage: Stage,
    books: Books,
    board: Board,
    screen: &'a mut Screen,
    begin: Instant,
    /// Those who may take over, and since when somebody should.
    takeovers: Vec<(Vec<String>, Duration)>,
    /// What was to be done to the processes, and could not be.
    left_out: Vec<&'static str>,
}

/// Runs the demo from the first server to the verdict.
pub(crate) async fn run(settings: &Settings, screen: &mut Screen) -> Result<Outcome, Failure> {
    let logs = settings.dir.join("logs");
    std::fs::create_dir_all(&logs)?;
    let mut stage = Stage::set(settings, |what| screen.say(&format!("  {what}"))).await?;
    let ready = stage.wait_until_ready().await;
    if ready.is_err() {
        stage.write_logs(&logs);
    }
    ready?;
    let title = format!(
        "Onceward demo on {}: {} orders a second for {} s",
        settings.broker, settings.rate, settings.seconds
    );
    screen.say("");
    let mut show = Show {
        books: stage.books(),
        stage,
        board: Board::new(title, settings.load()),
        screen,
        begin: Instant::now(),
        takeovers: Vec::new(),
        left_out: Vec::new(),
    };
    let outcome = show.play(settings).await;
    show.stage.write_logs(&logs);
    outcome
}

impl Show<'_> {
    async fn play(&mut self, settings: &Settings) -> Result<Outcome, Failure> {
        let answers = Arc::new(Answers::default());
        let stop = CancellationToken::new();
        let mut customers = JoinSet::new();
        customers.spawn(load::run(
            self.stage.service,
            settings.rate,
            Arc::clone(&answers),
            stop.clone(),
        ));
        self.under_load(settings).await?;
        stop.cancel();
        customers.join_all().await;

        let drained = self.drain().await?;
        self.board.phase = "stopping";
        self.screen.show(&self.board);
        let ended_badly = self.stage.stop().await;

        let progress = self.books.progress().await?;
        let facts = self.books.facts().await?;
        Ok(Outcome::new(
            &facts,
            Course {
                dead_letters: progress.dead,
                duplicates_absorbed: self.stage.duplicates(),
                requests_failed: answers.failed.load(Ordering::Relaxed),
                drained,
                ended_badly,
                left_out: std::mem::take(&mut self.left_out),
            },
        ))
    }

    /// Customers order; processes are killed and come back.
    async fn under_load(&mut self, settings: &Settings) -> Result<(), Failure> {
        self.board.phase = "customers order";
        let mut plot = Plot::over(settings.load());
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.begin.elapsed() < settings.load() {
            ticks.tick().await;
            self.look().await?;
            while let Some(step) = plot.due(self.board.elapsed) {
                self.perform(step);
            }
            self.screen.show(&self.board);
        }
        while let Some(step) = plot.due(settings.load()) {
            self.perform(step);
        }
        Ok(())
    }

    fn perform(&mut self, step: Step) {
        let Some(done) = self.stage.perform(step) else {
            self.board.happened(step.left_out());
            self.left_out.push(step.left_out());
            return;
        };
        self.board.happened(&done.text);
        if !done.heirs.is_empty() {
            self.takeovers.push((done.heirs, self.board.elapsed));
        }
    }

    /// Waits until all that was committed has arrived, and stays so for a moment. False: it took too long.
    async fn drain(&mut self) -> Result<bool, Failure> {
        self.board.phase = "waiting for the rest";
        let begin = Instant::now();
        let mut quiet_since = None;
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while begin.elapsed() < DRAIN_TAKES_AT_MOST {
            ticks.tick().await;
            self.look().await?;
            self.screen.show(&self.board);
            if !is_complete(self.board.progress) {
                quiet_since = None;
            } else if quiet_since.get_or_insert_with(Instant::now).elapsed() >= QUIET {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn look(&mut self) -> Result<(), Failure> {
        self.stage.look().await?;
        let progress = self.books.progress().await?;
        self.board.take(self.begin.elapsed(), progress);
        self.board.duplicates = self.stage.duplicates();
        self.board.members = self.stage.roles();
        let publisher = self.stage.publisher();
        self.board.wait(
            publisher.map(|relay| relay.name.as_str()),
            publisher.and_then(|relay| relay.waits.as_deref()),
        );
        self.tell_takeovers();
        Ok(())
    }

    fn tell_takeovers(&mut self) {
        let board = &mut self.board;
        self.takeovers.retain(|(heirs, since)| {
            let is_heir = |name: &String| heirs.contains(name);
            let heir = board
                .members
                .iter()
                .find(|(name, role)| is_heir(name) && *role == Role::Works);
            let Some((name, _)) = heir else {
                return true;
            };
            let took = board.elapsed.saturating_sub(*since).as_secs_f64();
            let text = format!("{name} has taken over, within {took:.1} s");
            board.happened(&text);
            false
        });
    }
}

fn is_complete(progress: Progress) -> bool {
    let Progress {
        committed,
        published,
        handled,
        dead,
    } = progress;
    published >= committed && handled + dead >= committed
}
