//! The README and the book: what they show is what happens.

use std::fs;
use std::path::{Path, PathBuf};

/// A fenced block of a page.
pub(crate) struct Block {
    /// Page and line, for messages.
    pub(crate) place: String,
    /// What is written after the fence: `yaml`, `sh`, …
    pub(crate) language: String,
    pub(crate) text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md and every page of the book.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

fn name(page: &Path) -> String {
    page.strip_prefix(root()).unwrap().display().to_string()
}

/// The fenced blocks of every page.
pub(crate) fn blocks() -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let mut open = false;
        for (number, line) in text.lines().enumerate() {
            match line.strip_prefix("```") {
                Some(language) if !open => {
                    let place = format!("{}:{}", name(&page), number + 1);
                    blocks.push(Block { place, language: language.to_owned(), text: String::new() });
                }
                Some(_) => {}
                None if open => {
                    let block = blocks.last_mut().unwrap();
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                None => {}
            }
            open ^= line.starts_with("```");
        }
        assert!(!open, "{}: a block is not closed", name(&page));
    }
    blocks
}
