//! What the README shows is what the examples do: its Rust stands in them word for word, its configuration is read by the relay.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read its files fails"
)]

use std::path::{Path, PathBuf};

use onceward_relay::Config;
use onceward_testkit::Scratch;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap()
}

/// The blocks of the README in that language.
fn snippets(language: &str) -> Vec<String> {
    let readme = read("README.md");
    let fence = format!("```{language}\n");
    let blocks = readme.split(&fence).skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap().to_owned())
        .collect()
}

/// Lines without indentation; `None` where something is left out.
fn lines(code: &str) -> Vec<Option<&str>> {
    let lines = code.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| (line != "// …").then_some(line)).collect()
}

/// Whether each run of lines between gaps stands in the source, in this order.
fn stands_in(snippet: &str, source: &str) -> bool {
    let source: Vec<&str> = lines(source).into_iter().flatten().collect();
    let snippet = lines(snippet);
    let mut from = 0;
    snippet.split(Option::is_none).all(|run| {
        let run: Vec<&str> = run.iter().copied().flatten().collect();
        let found = source[from..]
            .windows(run.len().max(1))
            .position(|window| window == run);
        from += found.map_or(0, |at| at + run.len());
        found.is_some()
    })
}

#[test]
fn the_rust_of_the_readme_stands_in_the_examples() {
    let sources = [
        "examples/order-service/src/main.rs",
        "examples/billing/src/main.rs",
    ]
    .map(read);
    let snippets = snippets("rust");

    assert_eq!(snippets.len(), 2);
    for snippet in snippets {
        let found = sources.iter().any(|source| stands_in(&snippet, source));
        assert!(found, "no example says this any more:\n{snippet}");
    }
}

#[test]
fn the_configuration_of_the_readme_is_read_by_the_relay() {
    let scratch = Scratch::new("readme");
    let snippets = snippets("toml");

    assert_eq!(snippets.len(), 1);
    for snippet in snippets {
        let file = scratch.path().join("onceward.toml");
        std::fs::write(&file, snippet).unwrap();
        let config = Config::load(Some(&file)).unwrap();
        assert_eq!(config.streams.len(), 1);
    }
}

#[test]
fn a_snippet_with_one_changed_line_is_found_out() {
    let source = "fn a() {\n    one();\n    two();\n    three();\n}";

    assert!(stands_in("one();\n// …\nthree();", source));
    assert!(!stands_in("one();\nthree();", source));
    assert!(!stands_in("three();\n// …\none();", source));
}
