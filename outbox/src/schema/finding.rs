//! What is wrong or worth knowing, in words for the person who can do something about it.

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// It will become a problem, or makes one worse.
    Warning,
    /// The promise does not hold, or nothing works.
    Problem,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A stable name for scripts, such as `row_security`.
    pub code: &'static str,
    /// What is so, in one sentence.
    pub text: String,
    /// What to do, in one sentence.
    pub remedy: String,
}

impl Finding {
    pub(super) fn problem(code: &'static str, text: String, remedy: impl Into<String>) -> Self {
        Self::new(Severity::Problem, code, text, remedy.into())
    }

    pub(super) fn warning(code: &'static str, text: String, remedy: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, text, remedy.into())
    }

    pub(super) fn note(code: &'static str, text: String, remedy: impl Into<String>) -> Self {
        Self::new(Severity::Note, code, text, remedy.into())
    }

    fn new(severity: Severity, code: &'static str, text: String, remedy: String) -> Self {
        Self {
            severity,
            code,
            text,
            remedy,
        }
    }
}
