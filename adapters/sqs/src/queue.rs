//! The names of queues: what SQS takes as one, and what to do about a topic that is none. Pure.

use std::fmt;

/// Longest name of a queue, `.fifo` included.
pub const MAX_QUEUE_NAME: usize = 80;

const FIFO: &str = ".fifo";

/// The name of a queue, or its URL: 1 to 80 of `A-Z a-z 0-9 - _`, of which `.fifo` at the end makes it a FIFO queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueName {
    name: String,
    url: Option<String>,
}

/// Why a text names no queue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is no name of an SQS queue: {problem}; allowed are 1 to {MAX_QUEUE_NAME} of A-Z a-z 0-9 - _ with .fifo at the end for a FIFO queue, or the queue's URL; \
     give the topic its queue by `route`, or by `routes`"
)]
pub struct InvalidQueue {
    /// The text as given.
    pub name: String,
    /// What is wrong with it.
    pub problem: String,
}

impl QueueName {
    /// Reads a name or a URL.
    ///
    /// # Errors
    /// [`InvalidQueue`], with what to change.
    pub fn parse(text: &str) -> Result<Self, InvalidQueue> {
        let is_url = text.starts_with("https://") || text.starts_with("http://");
        let name = match text.rsplit_once('/') {
            Some((_, name)) if is_url => name,
            _ => text,
        };
        let bare = name.strip_suffix(FIFO).unwrap_or(name);
        let problem = if bare.is_empty() {
            Some("it is empty".to_owned())
        } else if name.len() > MAX_QUEUE_NAME {
            Some(format!("it has {} characters", name.len()))
        } else {
            let illegal = bare.chars().find(|c| !is_legal(*c));
            illegal.map(|character| format!("it holds {character:?}"))
        };
        match problem {
            Some(problem) => Err(InvalidQueue {
                name: text.to_owned(),
                problem,
            }),
            None => Ok(Self {
                name: name.to_owned(),
                url: is_url.then(|| text.to_owned()),
            }),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The URL, if it was given.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// Whether the queue keeps order.
    #[must_use]
    pub fn is_fifo(&self) -> bool {
        self.name.ends_with(FIFO)
    }
}

fn is_legal(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_')
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_urls_name_a_queue_and_its_kind() {
        for (text, name, fifo) in [
            ("orders", "orders", false),
            ("Orders_v1-x.fifo", "Orders_v1-x.fifo", true),
            (
                "https://sqs.eu-west-1.amazonaws.com/123456789012/orders.fifo",
                "orders.fifo",
                true,
            ),
            ("http://127.0.0.1:9324/000000000000/orders", "orders", false),
        ] {
            let queue = QueueName::parse(text).unwrap();

            assert_eq!((queue.as_str(), queue.is_fifo()), (name, fifo), "{text}");
            assert_eq!(queue.url().is_some(), text.contains('/'), "{text}");
        }
    }

    #[test]
    fn a_topic_with_dots_is_refused_with_what_to_do_about_it() {
        let error = QueueName::parse("orders.created").unwrap_err().to_string();

        assert!(
            error.contains("orders.created") && error.contains("'.'"),
            "{error}"
        );
        assert!(
            error.contains("`route`") && error.contains("`routes`"),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "q".repeat(81);
        let just_too_long = format!("{}.fifo", "q".repeat(76));
        for text in [
            "",
            ".fifo",
            "a b",
            "a/b",
            "ä",
            &long,
            &just_too_long,
            "https://host/",
        ] {
            assert!(QueueName::parse(text).is_err(), "{text:?}");
        }
        assert!(QueueName::parse(&format!("{}.fifo", "q".repeat(75))).is_ok());
    }
}
