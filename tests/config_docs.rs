//! The manual and the example know every key that the parser knows, and no other.

use dunlin::config::schema::{SECTIONS, Section};
use dunlin::config::{Config, diff};
use std::fs;
use std::path::Path;

fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap()
}

/// The part of the manual under the heading of a section.
fn chapter<'m>(manual: &'m str, section: &Section) -> &'m str {
    let heading = [format!("## [{}]\n", section.name), format!("## [[{}]]\n", section.name)];
    let (_, rest) = heading
        .iter()
        .find_map(|heading| manual.split_once(heading.as_str()))
        .unwrap_or_else(|| panic!("the manual has no chapter on {}", section.name));
    rest.split("\n## ").next().unwrap_or(rest)
}

/// The first key of each row of a chapter's table.
fn rows(chapter: &str) -> Vec<&str> {
    let rows = chapter.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split('`').next()).collect()
}

#[test]
fn the_manual_lists_every_key_of_every_section_and_no_other() {
    let manual = document("configuration.md");
    for section in SECTIONS.iter().filter(|section| !section.name.is_empty()) {
        let (mut listed, mut known) = (rows(chapter(&manual, section)), section.keys.to_vec());
        listed.sort_unstable();
        known.sort_unstable();
        assert_eq!(listed, known, "[{}]", section.name);
    }
}

#[test]
fn the_example_parses_and_has_every_key() {
    let example = document("example.toml");
    let config = Config::parse(&example, "example.toml").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.services.len(), 2);
    for section in SECTIONS {
        for key in section.keys {
            let used = example.lines().any(|line| {
                let line = line.trim_start_matches(['[', '#', ' ']);
                line.starts_with(&format!("{key} = "))
                    || line.starts_with(&format!("{key}]"))
                    || line.contains(&format!(".{key}]"))
            });
            assert!(used, "{key} of [{}] is not in the example", section.name);
        }
    }
}

/// What the example calls a default is one: without these lines it means the same.
#[test]
fn the_defaults_in_the_example_are_the_parsers() {
    let example = document("example.toml");
    let is_default = |line: &str| {
        line.split_once("# default")
            .is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with(';'))
    };
    let without: String =
        example.lines().filter(|line| !is_default(line)).flat_map(|line| [line, "\n"]).collect();
    assert!(without.len() < example.len());
    let parse = |text: &str| Config::parse(text, "example.toml").unwrap_or_else(|e| panic!("{e}"));
    let changes = diff(&parse(&example), &parse(&without));
    assert!(changes.is_empty(), "{changes}");
}
