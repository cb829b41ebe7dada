//! Merges the file and the environment into one tree of values that nobody has judged yet.

use std::collections::HashMap;
use std::path::Path;

use ::config::{Environment, File, FileFormat, Value, ValueKind};

use super::problem::ConfigError;

/// Where a value of the environment says it came from.
const ENVIRONMENT: &str = "the environment";

/// The variable that is used when no other names the database.
const DATABASE_URL: &str = "DATABASE_URL";

/// The environment, as far as it concerns us.
pub(super) type Variables = HashMap<String, String>;

/// The process's own environment. What is not valid Unicode is left out unless it is meant for us.
pub(super) fn process_environment() -> Result<Variables, ConfigError> {
    let ours = |name: &str| name == DATABASE_URL || name.starts_with("ONCEWARD__");
    let mut variables = Variables::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| ours(name)) else {
            continue;
        };
        let Ok(value) = value.into_string() else {
            return Err(ConfigError::one(ENVIRONMENT, name, "is not valid UTF-8"));
        };
        variables.insert(name.to_owned(), value);
    }
    Ok(variables)
}

/// Reads the file, if there is one, and puts the variables above it.
pub(super) fn merge(
    file: Option<&str>,
    origin: &str,
    variables: Variables,
) -> Result<Value, ConfigError> {
    let fallback = variables.get(DATABASE_URL).cloned();
    let environment = Environment::with_prefix("ONCEWARD")
        .separator("__")
        .source(Some(variables));
    let mut builder = ::config::Config::builder();
    if let Some(text) = file {
        builder = builder.add_source(File::from_str(text, FileFormat::Toml));
    }
    let merged = builder
        .add_source(environment)
        .build()
        .map_err(|error| ConfigError::one(origin, "", syntax(&error)))?;
    let mut root = merged.cache;
    if let Some(url) = fallback {
        fall_back(&mut root, url);
    }
    Ok(root)
}

/// A general variable never wins over a setting made for us: a shell often has one for another database.
fn fall_back(root: &mut Value, url: String) {
    let ValueKind::Table(table) = &mut root.kind else {
        return;
    };
    let empty = || Value::from(HashMap::<String, Value>::new());
    let database = table.entry("database".to_owned()).or_insert_with(empty);
    if let ValueKind::Table(database) = &mut database.kind
        && !database.contains_key("url_file")
    {
        database
            .entry("url".to_owned())
            .or_insert_with(|| url.into());
    }
}

/// Reads the file's text; none if it was not asked for by name and does not exist.
pub(super) fn read(path: &Path, required: bool) -> Result<Option<String>, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => Ok(None),
        Err(error) => {
            let origin = path.display().to_string();
            let what = format!("it cannot be read: {error}");
            Err(ConfigError {
                unreadable: true,
                ..ConfigError::one(&origin, "", what)
            })
        }
    }
}

/// Whether a value came from the environment.
pub(super) fn from_environment(value: &Value) -> bool {
    value.origin() == Some(ENVIRONMENT)
}

/// What is wrong with the text, without the lines of it that the parser quotes: they may hold a password.
fn syntax(error: &::config::ConfigError) -> String {
    let text = error.to_string();
    let kept: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.contains('|'))
        .collect();
    kept.join(": ")
}
