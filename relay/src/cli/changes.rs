//! What can be changed of a message that waits for a person.

use std::io::Read as _;
use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct Changes {
    /// What it is about
    #[arg(long)]
    pub(super) topic: Option<String>,
    /// Its key
    #[arg(long, conflicts_with = "no_key")]
    key: Option<String>,
    /// Take its key away: it then has no order
    #[arg(long)]
    no_key: bool,
    /// Its type
    #[arg(long = "type", value_name = "TYPE")]
    pub(super) kind: Option<String>,
    /// The media type of its payload
    #[arg(long)]
    pub(super) content_type: Option<String>,
    /// Set a header; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = header)]
    pub(super) set_header: Vec<(String, String)>,
    /// Remove a header; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(super) remove_header: Vec<String>,
    /// Its payload, out of a file; `-` reads standard input
    #[arg(long, value_name = "FILE", conflicts_with = "payload")]
    payload_file: Option<PathBuf>,
    /// Its payload, as it is
    #[arg(long, value_name = "TEXT")]
    payload: Option<String>,
}

impl Changes {
    /// Its key as it is to be; none if nothing is said about it.
    pub(super) fn key(&self) -> Option<Option<String>> {
        if self.no_key {
            Some(None)
        } else {
            self.key.clone().map(Some)
        }
    }

    /// Its payload as it is to be; none if nothing is said about it.
    pub(super) fn payload(&self) -> Result<Option<Vec<u8>>, Failure> {
        match (&self.payload_file, &self.payload) {
            (Some(path), _) => read(path).map(Some),
            (None, payload) => Ok(payload.clone().map(String::into_bytes)),
        }
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().read_to_end(&mut bytes).map(drop)
    } else {
        std::fs::read(path).map(|content| bytes = content)
    };
    read.map_err(|error| {
        Failure::usage(format!(
            "the payload cannot be read from {}",
            path.display()
        ))
        .because(error)
    })?;
    Ok(bytes)
}

fn header(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text
        .split_once('=')
        .ok_or("must be a name and a value, as in tenant=acme")?;
    Ok((name.to_owned(), value.to_owned()))
}
