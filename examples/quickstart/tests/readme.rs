//! What the README shows is what the examples do: its Rust stands in them word for word, its configuration is read by the relay.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read its files fails"
)]

mod snippets;

use onceward_relay::Config;
use onceward_testkit::Scratch;
use snippets::{read, snippets, stands_in};

#[test]
fn the_rust_of_the_readme_stands_in_the_examples() {
    let sources = [
        "examples/order-service/src/main.rs",
        "examples/billing/src/main.rs",
    ]
    .map(read);
    let snippets = snippets("README.md", "rust");

    assert_eq!(snippets.len(), 2);
    for snippet in snippets {
        let found = sources.iter().any(|source| stands_in(&snippet, source));
        assert!(found, "no example says this any more:\n{snippet}");
    }
}

#[test]
fn the_configuration_of_the_readme_is_read_by_the_relay() {
    let scratch = Scratch::new("readme");
    let snippets = snippets("README.md", "toml");

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
