//! Links between the pages of the documentation lead somewhere.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read its files fails"
)]

use std::path::{Path, PathBuf};

fn pages() -> Vec<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = vec![
        repository.join("README.md"),
        repository.join("CONTRIBUTING.md"),
    ];
    let mut folders = vec![repository.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages
}

/// What stands in `](…)`, without addresses of other sites: a file, or nothing for the page itself, and a heading of it if one is named.
fn targets(text: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let links = text.split("](").skip(1);
    links
        .filter_map(|rest| rest.split(')').next())
        .filter(|target| !target.contains("://"))
        .map(|target| match target.split_once('#') {
            Some((file, heading)) => (file, Some(heading)),
            None => (target, None),
        })
}

/// What a heading is called in a link: its letters and digits in lower case, with hyphens for spaces.
fn name_of(heading: &str) -> String {
    let letters = heading.trim().chars().filter_map(|letter| match letter {
        ' ' => Some('-'),
        letter if letter.is_alphanumeric() || "-_".contains(letter) => Some(letter),
        _ => None,
    });
    letters.flat_map(char::to_lowercase).collect()
}

fn has_heading(page: &Path, name: &str) -> bool {
    let text = std::fs::read_to_string(page).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| name_of(line.trim_start_matches('#')))
        .any(|heading| heading == name)
}

/// Whether a file, or a page and its heading, is there.
fn leads_somewhere(file: &Path, heading: Option<&str>) -> bool {
    file.exists() && heading.is_none_or(|heading| has_heading(file, heading))
}

#[test]
fn every_link_between_pages_leads_to_a_file_and_its_heading() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        let folder = page.parent().unwrap();
        for (file, heading) in targets(&text) {
            let to = match file {
                "" => page.clone(),
                file => folder.join(file),
            };
            if !leads_somewhere(&to, heading) {
                broken.push(format!("{}: {file} {heading:?}", page.display()));
            }
        }
    }

    assert!(broken.is_empty(), "{broken:#?}");
}

/// The source files of the crates.
fn sources() -> Vec<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let crates = [
        "core",
        "outbox",
        "relay",
        "consumer",
        "migrations",
        "adapters",
    ];
    let mut folders: Vec<PathBuf> = crates.map(|name| repository.join(name)).into();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(path);
            }
        }
    }
    sources
}

#[test]
fn pages_and_headings_that_messages_name_are_there() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (mut named, mut broken) = (0, Vec::new());
    for source in sources() {
        let text = std::fs::read_to_string(&source).unwrap();
        for rest in text.split("docs/").skip(1) {
            let end = rest
                .find(|letter: char| !letter.is_ascii_alphanumeric() && !"-_.#/".contains(letter));
            let target = rest[..end.unwrap_or(rest.len())].trim_end_matches('.');
            let (file, heading) = match target.split_once('#') {
                // One that is put in when it is said.
                Some((file, "")) => (file, None),
                Some((file, heading)) => (file, Some(heading)),
                None => (target, None),
            };
            if !file.ends_with(".md") {
                continue;
            }
            named += 1;
            if !leads_somewhere(&repository.join("docs").join(file), heading) {
                broken.push(format!("{}: docs/{target}", source.display()));
            }
        }
    }

    assert!(named > 0 && broken.is_empty(), "{named} named: {broken:#?}");
}
