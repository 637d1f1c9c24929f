//! The book as a whole: its pages are listed, its links lead somewhere, and the reference leaves nothing out.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use flowrun::Flowrun;
use flowrun_engine::definition::keys::{self, Key};
use flowrun_engine::source::Source;
use serde_json::Value;

use super::docs::{self, root};

/// Text of a page outside of its fenced blocks.
fn prose(text: &str) -> String {
    text.split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
}

/// The anchors of a page, made of its headings as mdBook and code hosts make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text);
    let headings = headings
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')));
    let anchor = |heading: &str| -> String {
        let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || ['-', '_', ' '].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
    };
    headings.map(anchor).collect()
}

fn documents() -> Vec<(PathBuf, String)> {
    let mut pages: Vec<PathBuf> = docs::pages().into_iter().map(|(name, _)| root().join(name)).collect();
    pages.extend(["CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root().join(name)));
    pages.into_iter().map(|path| (path.clone(), fs::read_to_string(&path).unwrap())).collect()
}

#[test]
fn links_between_documents_resolve() {
    let mut problems = Vec::new();
    let mut followed = 0;
    for (page, text) in documents() {
        for link in prose(&text).split("](").skip(1) {
            let link = link.split([')', ' ']).next().unwrap();
            if link.is_empty() || link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            followed += 1;
            let found = fs::read_to_string(&target).or_else(|_| fs::read_dir(&target).map(|_| String::new()));
            let leads = found.is_ok_and(|text| anchor.is_empty() || anchors(&text).contains(anchor));
            // The book has its own pages and no others.
            let is_page = page.starts_with(root().join("docs"));
            let leaves = is_page && !target.canonicalize().is_ok_and(|target| target.starts_with(root().join("docs")));
            if !leads || leaves {
                problems.push(format!("{}: {link}", page.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(problems.is_empty(), "links that lead nowhere:\n  {}", problems.join("\n  "));
    assert!(followed > 40, "only {followed} links were found");
}

#[test]
fn the_summary_lists_every_page_once() {
    let summary = fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    let links = summary.split("](").skip(1).filter_map(|link| link.split(')').next());
    let mut listed: Vec<String> = links.filter(|link| !link.is_empty()).map(|link| format!("docs/{link}")).collect();
    let pages = docs::pages().into_iter().map(|(name, _)| name);
    let mut pages: Vec<String> =
        pages.filter(|name| !["README.md", "docs/SUMMARY.md"].contains(&name.as_str())).collect();
    listed.sort();
    pages.sort();
    assert_eq!(listed, pages);
    let book = fs::read_to_string(root().join("book.toml")).unwrap();
    assert!(book.contains("src = \"docs\""), "the book is made of docs/");
}

/// Keys of the mappings of a workflow, by the table that they stand in.
#[derive(Default)]
struct Used(BTreeSet<(&'static str, String)>);

impl Used {
    fn keys(&mut self, table: &'static str, map: &Value) {
        self.0.extend(map.as_object().into_iter().flatten().map(|(key, _)| (table, key.clone())));
    }

    fn nodes(&mut self, nodes: &Value) {
        for node in nodes.as_object().into_iter().flatten().map(|(_, node)| node) {
            self.keys("node", node);
            for part in ["retry", "allow", "limits"] {
                self.keys(part, &node[part]);
            }
            self.0.extend(node["kind"].as_str().map(|kind| ("kind", kind.to_owned())));
            self.nodes(&node["nodes"]);
        }
    }
}

#[test]
fn the_reference_shows_every_key_in_a_workflow_that_runs() {
    let page = fs::read_to_string(root().join("docs/reference.md")).unwrap();
    let mut used = Used::default();
    for block in
        docs::blocks().iter().filter(|block| block.page == "docs/reference.md" && block.text.contains("flowrun: 1\n"))
    {
        let (_, file) = Source::parse(&block.place, &block.text).unwrap();
        used.keys("top", &file);
        used.keys("budget", &file["budget"]);
        used.keys("limits", &file["limits"]);
        file["models"].as_object().into_iter().flatten().for_each(|(_, model)| used.keys("model", model));
        used.nodes(&file["nodes"]);
    }
    // What counts in the user's own configuration alone.
    let configurations =
        |block: &&docs::Block| block.page == "docs/reference.md" && block.text.starts_with("models:\n");
    for block in docs::blocks().iter().filter(configurations) {
        let (_, file) = Source::parse(&block.place, &block.text).unwrap();
        file["models"].as_object().into_iter().flatten().for_each(|(_, model)| used.keys("model", model));
    }
    let tables: [(&'static str, &'static [Key]); 7] = [
        ("top", keys::TOP),
        ("model", keys::MODEL),
        ("budget", keys::BUDGET),
        ("limits", keys::LIMITS),
        ("retry", keys::RETRY),
        ("allow", keys::ALLOW),
        ("node", keys::ATTRIBUTES),
    ];
    let mut wanted: Vec<(&str, String)> = Vec::new();
    for (table, keys) in tables {
        wanted.extend(keys::known(keys).map(|key| (table, key.name.to_owned())));
    }
    let flowrun = Flowrun::builder().build();
    for spec in flowrun.kinds().specs().values() {
        wanted.extend(spec.fields.iter().map(|field| ("node", field.name.clone())));
        assert!(page.contains(&format!("`{}`", spec.name)), "the kind `{}` is not in the reference", spec.name);
    }
    let missing: Vec<&(&str, String)> = wanted.iter().filter(|key| !used.0.contains(*key)).collect();
    assert!(missing.is_empty(), "no block of the reference uses {missing:?}");
    let unsaid: Vec<&str> = wanted
        .iter()
        .map(|(_, key)| key.as_str())
        .filter(|key| !page.split('`').skip(1).step_by(2).any(|code| mentions(code, key)))
        .collect();
    assert!(unsaid.is_empty(), "the reference does not say what these are: {unsaid:?}");
}

fn mentions(code: &str, key: &str) -> bool {
    code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == key)
}
