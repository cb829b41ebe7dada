//! What is logged while a test runs.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use tracing::Level;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

/// Warnings and errors that are logged on the thread that made it, until it is dropped.
#[derive(Debug)]
pub struct Log {
    written: Written,
    _listening: DefaultGuard,
}

impl Log {
    /// Listens on this thread: tasks of a runtime with one thread are heard, those of others are not.
    #[must_use]
    pub fn of_this_thread() -> Self {
        let written = Written::default();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(Level::WARN)
            .with_writer(written.clone());
        Self {
            written,
            _listening: tracing::subscriber::set_default(subscriber.finish()),
        }
    }

    /// The lines so far that contain this.
    ///
    /// # Panics
    /// Something that is no text was logged.
    #[must_use]
    pub fn lines_with(&self, part: &str) -> Vec<String> {
        let written = self.written.0.lock().expect("no writer panics");
        let text = std::str::from_utf8(&written).expect("logs are text");
        let lines = text.lines().filter(|line| line.contains(part));
        lines.map(str::to_owned).collect()
    }
}

#[derive(Debug, Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .expect("no writer panics")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Written {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
