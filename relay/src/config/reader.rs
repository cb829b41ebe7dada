//! Reads one section of the tree: each setting by name and type, and every problem is noted rather than the first.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use ::config::{Value, ValueKind};
use secrecy::SecretString;

use super::problem::{Problem, nearest};
use super::value::{
    as_text, as_texts, join, kind, list, preview, read_secret, scalar, shorten, split, table,
    variable, within,
};
use super::{raw, units};

/// A section that is being read. [`Reader::finish`] notes what nobody asked for.
#[derive(Debug)]
pub(super) struct Reader<'p> {
    path: String,
    table: BTreeMap<String, Value>,
    known: Vec<&'static str>,
    problems: &'p mut Vec<Problem>,
}

impl<'p> Reader<'p> {
    /// A section out of a value, which may also be a JSON object in one variable.
    pub(super) fn new(path: &str, value: Option<Value>, problems: &'p mut Vec<Problem>) -> Self {
        let mut reader = Self {
            path: path.to_owned(),
            table: BTreeMap::new(),
            known: Vec::new(),
            problems,
        };
        if let Some(value) = value {
            match table(value) {
                Ok(table) => reader.table = table,
                Err(kind) => {
                    let what = format!("must be a section with settings of its own, not {kind}");
                    reader.note(path.to_owned(), None, what);
                }
            }
        }
        reader
    }

    /// Takes a section out of this one. Read it to its end before going on here.
    pub(super) fn section(&mut self, name: &'static str) -> Reader<'_> {
        let value = self.take(name);
        Reader::new(&self.path_of(name), value, self.problems)
    }

    /// Takes a section out of this one, if it is there.
    pub(super) fn optional_section(&mut self, name: &'static str) -> Option<Reader<'_>> {
        let value = self.take(name)?;
        Some(Reader::new(&self.path_of(name), Some(value), self.problems))
    }

    /// Takes everything that is left: a section whose names the user chooses.
    pub(super) fn entries(&mut self) -> BTreeMap<String, Value> {
        std::mem::take(&mut self.table)
    }

    /// A section that the user has named.
    pub(super) fn entry(&mut self, name: &str, value: Value) -> Reader<'_> {
        Reader::new(&self.path_of(name), Some(value), self.problems)
    }

    /// Notes a problem with a setting, without its value.
    pub(super) fn refuse(&mut self, name: &str, what: impl Into<String>) {
        let path = if name.is_empty() {
            self.path.clone()
        } else {
            self.path_of(name)
        };
        self.note(path, None, what.into());
    }

    /// Notes a problem with an entry of a table whose names the user chooses, without its value.
    pub(super) fn refuse_entry(&mut self, table: &str, name: &str, what: impl Into<String>) {
        let path = join(&self.path_of(table), name);
        self.note(path, None, what.into());
    }

    /// Notes a problem with a setting whose value is no secret.
    pub(super) fn refuse_value(&mut self, name: &str, value: &str, what: impl Into<String>) {
        let path = self.path_of(name);
        self.note(path, Some(shorten(&format!("{value:?}"))), what.into());
    }

    /// Notes every setting that was not asked for.
    pub(super) fn finish(mut self) {
        let unknown: Vec<String> = self.table.keys().cloned().collect();
        for name in unknown {
            let what = match nearest(&name, &self.known) {
                Some(near) => format!("is unknown; did you mean {near}?"),
                None => format!("is unknown; known here are {}", list(&self.known)),
            };
            self.refuse(&name, what);
        }
    }

    /// Whether the setting is there, without taking it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// A text that is no secret.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        let value = self.take(name)?;
        if let ValueKind::String(text) = value.kind {
            return Some(text);
        }
        let what = format!("must be a text, not {}", kind(&value.kind));
        self.note(self.path_of(name), preview(&value.kind), what);
        None
    }

    /// A text that is read by `T`; the default if it is missing or wrong.
    pub(super) fn parsed<T, E: Display>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(name)?;
        match read(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse_value(name, &text, error.to_string());
                None
            }
        }
    }

    /// One of some words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        self.parsed(name, |text| {
            let found = choices.iter().find(|(word, _)| *word == text);
            found
                .map(|(_, value)| *value)
                .ok_or_else(|| format!("must be one of {}", list(&words)))
        })
    }

    /// A duration within bounds.
    pub(super) fn duration(
        &mut self,
        name: &'static str,
        default: Duration,
        allowed: RangeInclusive<Duration>,
    ) -> Duration {
        let shown = (
            units::show_duration(*allowed.start()),
            units::show_duration(*allowed.end()),
        );
        self.parsed(name, |text| {
            let value = units::duration(text)?;
            within(value, &allowed, &shown)
        })
        .unwrap_or(default)
    }

    /// A size in bytes within bounds.
    pub(super) fn size(
        &mut self,
        name: &'static str,
        default: usize,
        allowed: RangeInclusive<u64>,
    ) -> usize {
        let shown = (
            units::show_size(*allowed.start()),
            units::show_size(*allowed.end()),
        );
        self.parsed(name, |text| {
            let value = within(units::size(text)?, &allowed, &shown)?;
            usize::try_from(value).map_err(|_| "is too large for this machine".to_owned())
        })
        .unwrap_or(default)
    }

    /// A whole number within bounds; out of the environment it comes as a text.
    pub(super) fn count(
        &mut self,
        name: &'static str,
        default: usize,
        allowed: RangeInclusive<usize>,
    ) -> usize {
        let Some(value) = self.take(name) else {
            return default;
        };
        let number = if let ValueKind::I64(number) = value.kind {
            usize::try_from(number).ok()
        } else {
            variable(&value).and_then(|text| text.trim().parse().ok())
        };
        match number.filter(|number| allowed.contains(number)) {
            Some(number) => number,
            None => {
                let (least, most) = (allowed.start(), allowed.end());
                let what = format!("must be a whole number from {least} to {most}");
                self.note(self.path_of(name), preview(&value.kind), what);
                default
            }
        }
    }

    /// A list of texts; out of the environment also one text with commas, or a JSON array.
    pub(super) fn texts(&mut self, name: &'static str) -> Option<Vec<String>> {
        let value = self.take(name)?;
        let found = match variable(&value) {
            Some(text) => Some(split(text)),
            None => as_texts(value),
        };
        if found.is_none() {
            self.refuse(name, "must be a list of texts, as in [\"a\", \"b\"]");
        }
        found
    }

    /// A list of texts, or one text with commas. Not shown: an address may hold a password.
    pub(super) fn one_or_many(&mut self, name: &'static str) -> Vec<String> {
        let Some(value) = self.take(name) else {
            return Vec::new();
        };
        let found = if let ValueKind::String(text) = &value.kind {
            Some(split(text))
        } else {
            as_texts(value)
        };
        if found.is_none() {
            self.refuse(name, "must be a text, or a list of texts");
        }
        let mut found = found.unwrap_or_default();
        found.retain(|item| !item.is_empty());
        found
    }

    /// Yes or no; out of the environment it comes as a text.
    pub(super) fn flag(&mut self, name: &'static str) -> Option<bool> {
        let value = self.take(name)?;
        let flag = if let ValueKind::Boolean(flag) = value.kind {
            Some(flag)
        } else {
            variable(&value).and_then(|text| text.trim().parse().ok())
        };
        if flag.is_none() {
            self.note(
                self.path_of(name),
                preview(&value.kind),
                "must be true or false".to_owned(),
            );
        }
        flag
    }

    /// A table from names that the user chooses to texts; numbers and booleans are taken as their texts.
    pub(super) fn map(&mut self, name: &'static str) -> BTreeMap<String, String> {
        let Some(value) = self.take(name) else {
            return BTreeMap::new();
        };
        let Ok(entries) = table(value) else {
            self.refuse(name, "must be a table, as in { \"name\" = \"value\" }");
            return BTreeMap::new();
        };
        let mut texts = BTreeMap::new();
        for (key, value) in entries {
            match scalar(value) {
                Some(text) => drop(texts.insert(key, text)),
                None => self.refuse_entry(name, &key, "must be a text"),
            }
        }
        texts
    }

    /// A secret: the setting itself, or the content of the file that `<name>_file` names.
    pub(super) fn secret(
        &mut self,
        name: &'static str,
        file_name: &'static str,
    ) -> Option<SecretString> {
        let (plain, file) = (self.take(name), self.take(file_name));
        // What comes from the environment wins over the file, whichever of the two forms each uses.
        let (plain, file) = match (plain, file) {
            (Some(plain), Some(file)) => {
                match (raw::from_environment(&plain), raw::from_environment(&file)) {
                    (true, false) => (Some(plain), None),
                    (false, true) => (None, Some(file)),
                    (true, true) | (false, false) => {
                        self.refuse(
                            name,
                            format!("is set together with {file_name}; set one of them"),
                        );
                        return None;
                    }
                }
            }
            one => one,
        };
        if let Some(value) = plain {
            let secret = as_text(value);
            if secret.is_none() {
                self.refuse(name, "must be a text");
            }
            return secret.map(SecretString::from);
        }
        let Some(path) = as_text(file?) else {
            self.refuse(file_name, "must be a text: the path of a file");
            return None;
        };
        let read = read_secret(&path);
        read.map_err(|what| self.refuse(file_name, what)).ok()
    }

    /// The content of a file that holds a secret, for an entry of a table.
    pub(super) fn secret_entry(
        &mut self,
        table: &str,
        name: &str,
        path: &str,
    ) -> Option<SecretString> {
        let read = read_secret(path);
        read.map_err(|what| self.refuse_entry(table, name, what))
            .ok()
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.table.remove(name)
    }

    fn path_of(&self, name: &str) -> String {
        join(&self.path, name)
    }

    fn note(&mut self, path: String, value: Option<String>, what: String) {
        self.problems.push(Problem { path, value, what });
    }
}
