//! What the tree's values are, and how they are shown. Pure, apart from reading a secret's file.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::path::Path;

use ::config::{Value, ValueKind};
use secrecy::SecretString;

use super::raw;

/// The longest part of a value that is shown.
const SHOWN: usize = 60;

/// The content of a file that holds a secret, without the newline at its end.
pub(super) fn read_secret(path: &str) -> Result<SecretString, String> {
    let content = std::fs::read_to_string(Path::new(path))
        .map_err(|error| format!("the file {path:?} cannot be read: {error}"))?;
    Ok(SecretString::from(content.trim_end_matches(['\r', '\n'])))
}

pub(super) fn within<T: PartialOrd>(
    value: T,
    allowed: &RangeInclusive<T>,
    shown: &(String, String),
) -> Result<T, String> {
    if allowed.contains(&value) {
        Ok(value)
    } else {
        Err(format!("must lie between {} and {}", shown.0, shown.1))
    }
}

/// The path of a setting; a name that TOML would quote is quoted.
pub(super) fn join(path: &str, name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let quoted = if name.is_empty() || !name.chars().all(plain) {
        format!("{name:?}")
    } else {
        name.to_owned()
    };
    if path.is_empty() {
        quoted
    } else {
        format!("{path}.{quoted}")
    }
}

/// The words as people list them.
pub(super) fn list(words: &[&str]) -> String {
    let mut words = words.to_vec();
    words.sort_unstable();
    words.join(", ")
}

pub(super) fn split(text: &str) -> Vec<String> {
    if let Ok(items) = serde_json::from_str::<Vec<String>>(text) {
        return items;
    }
    text.split(',').map(|item| item.trim().to_owned()).collect()
}

/// A table, or a variable that holds a JSON object; else what it is instead.
pub(super) fn table(value: Value) -> Result<BTreeMap<String, Value>, &'static str> {
    if let Some(text) = variable(&value) {
        let object: Result<BTreeMap<String, serde_json::Value>, _> = serde_json::from_str(text);
        let object = object.map_err(|_| "a text that is no JSON object")?;
        let entries = object.into_iter();
        return Ok(entries
            .map(|(name, value)| (name, of_json(value)))
            .collect());
    }
    if let ValueKind::Table(table) = value.kind {
        return Ok(table.into_iter().collect());
    }
    Err(kind(&value.kind))
}

/// The text of a value that came from the environment, where everything is a text.
pub(super) fn variable(value: &Value) -> Option<&str> {
    match &value.kind {
        ValueKind::String(text) if raw::from_environment(value) => Some(text),
        ValueKind::String(_)
        | ValueKind::Nil
        | ValueKind::Boolean(_)
        | ValueKind::I64(_)
        | ValueKind::I128(_)
        | ValueKind::U64(_)
        | ValueKind::U128(_)
        | ValueKind::Float(_)
        | ValueKind::Table(_)
        | ValueKind::Array(_) => None,
    }
}

/// A list that holds nothing but texts.
pub(super) fn as_texts(value: Value) -> Option<Vec<String>> {
    if let ValueKind::Array(items) = value.kind {
        items.into_iter().map(as_text).collect()
    } else {
        None
    }
}

fn of_json(value: serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::new(None, ValueKind::Nil),
        serde_json::Value::Bool(flag) => flag.into(),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(number) => number.into(),
            None => number.to_string().into(),
        },
        serde_json::Value::String(text) => text.into(),
        serde_json::Value::Array(items) => {
            items.into_iter().map(of_json).collect::<Vec<_>>().into()
        }
        serde_json::Value::Object(map) => map
            .into_iter()
            .map(|(name, value)| (name, of_json(value)))
            .collect::<HashMap<_, _>>()
            .into(),
    }
}

pub(super) fn as_text(value: Value) -> Option<String> {
    if let ValueKind::String(text) = value.kind {
        Some(text)
    } else {
        None
    }
}

pub(super) fn scalar(value: Value) -> Option<String> {
    match value.kind {
        ValueKind::String(text) => Some(text),
        ValueKind::Boolean(flag) => Some(flag.to_string()),
        ValueKind::I64(number) => Some(number.to_string()),
        ValueKind::I128(number) => Some(number.to_string()),
        ValueKind::U64(number) => Some(number.to_string()),
        ValueKind::U128(number) => Some(number.to_string()),
        ValueKind::Float(number) => Some(number.to_string()),
        ValueKind::Nil | ValueKind::Table(_) | ValueKind::Array(_) => None,
    }
}

pub(super) fn kind(value: &ValueKind) -> &'static str {
    match value {
        ValueKind::Nil => "nothing",
        ValueKind::Boolean(_) => "true or false",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => {
            "a number"
        }
        ValueKind::Float(_) => "a fraction",
        ValueKind::String(_) => "a text",
        ValueKind::Table(_) => "a section",
        ValueKind::Array(_) => "a list",
    }
}

pub(super) fn preview(value: &ValueKind) -> Option<String> {
    match value {
        ValueKind::String(text) => Some(shorten(&format!("{text:?}"))),
        ValueKind::Boolean(flag) => Some(flag.to_string()),
        ValueKind::I64(number) => Some(number.to_string()),
        ValueKind::Float(number) => Some(number.to_string()),
        ValueKind::Nil
        | ValueKind::I128(_)
        | ValueKind::U64(_)
        | ValueKind::U128(_)
        | ValueKind::Table(_)
        | ValueKind::Array(_) => None,
    }
}

pub(super) fn shorten(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        return text.to_owned();
    }
    let start: String = text.chars().take(SHOWN).collect();
    format!("{start}…")
}
