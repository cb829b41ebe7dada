//! Finds what a page shows in the source that does it.

use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap()
}

/// The blocks of a page in that language.
pub(crate) fn snippets(page: &str, language: &str) -> Vec<String> {
    let page = read(page);
    let fence = format!("```{language}\n");
    let blocks = page.split(&fence).skip(1);
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
pub(crate) fn stands_in(snippet: &str, source: &str) -> bool {
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
