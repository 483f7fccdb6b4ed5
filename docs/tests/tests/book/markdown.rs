//! Reads the book: chapters with their includes in place, and the code blocks in them.
//!
//! Guarantees that whatever it does not understand is an error: a fence that is not closed or is indented, a
//! directive that is no include, a word behind a fence that nobody checks.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// Path of the repository's root.
pub(crate) fn repository() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root.pop();
    root
}

/// The folder of the chapters.
pub(crate) fn source() -> PathBuf {
    repository().join("docs/src")
}

/// A chapter: one page of the book.
pub(crate) struct Chapter {
    /// Its path in the folder of the chapters.
    pub(crate) path: String,
    /// Its lines, includes in place, each with the number of the line it comes from.
    pub(crate) lines: Vec<(usize, String)>,
    /// The files it includes.
    pub(crate) includes: Vec<PathBuf>,
    /// Its code blocks, in order.
    pub(crate) blocks: Vec<Block>,
}

/// One code block.
#[derive(Debug)]
pub(crate) struct Block {
    /// `chapter:line`.
    pub(crate) place: String,
    /// Decides how the block is checked.
    pub(crate) kind: Kind,
    /// What stands between the fences.
    pub(crate) text: String,
}

/// What a block is; see `main.rs` for what that means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Rust,
    C,
    Sql,
    Ini,
    Console { wait: bool },
    File(String),
    Append(String),
    Excerpt(String),
    Text,
}

impl Kind {
    /// Reads the words behind a fence.
    pub(crate) fn parse(info: &str) -> Result<Kind> {
        let (language, attribute) = info.split_once(',').unwrap_or((info, ""));
        let (key, value) = attribute.split_once('=').unwrap_or((attribute, ""));
        let value = value.to_owned();
        Ok(match (language, key) {
            ("rust", "") => Kind::Rust,
            ("c", "") => Kind::C,
            ("sql", "") => Kind::Sql,
            ("ini", "") => Kind::Ini,
            ("console", "") => Kind::Console { wait: false },
            ("console", "wait") => Kind::Console { wait: true },
            ("rust" | "c" | "toml", "file") if !value.is_empty() => Kind::File(value),
            ("rust" | "c" | "yaml", "from") if !value.is_empty() => Kind::Excerpt(value),
            ("ini", "append") if !value.is_empty() => Kind::Append(value),
            ("text", "") => Kind::Text,
            _ => bail!("nobody checks a block of {info:?}"),
        })
    }

    /// Whether it is a step of the chapter's session.
    pub(crate) fn is_step(&self) -> bool {
        matches!(self, Kind::Console { .. } | Kind::File(_) | Kind::Append(_))
    }
}

/// Every chapter that the summary names.
pub(crate) fn chapters() -> Result<Vec<Chapter>> {
    let summary = fs::read_to_string(source().join("SUMMARY.md"))?;
    let paths: Vec<&str> = summary
        .lines()
        .filter_map(|line| line.split_once("](")?.1.split_once(')'))
        .map(|(path, _)| path)
        .collect();
    ensure!(paths.len() > 5, "only {} chapters found", paths.len());
    paths
        .into_iter()
        .map(|path| Chapter::read(&source(), path))
        .collect()
}

impl Chapter {
    /// Reads a chapter and what it includes.
    pub(crate) fn read(folder: &Path, path: &str) -> Result<Chapter> {
        let text = fs::read_to_string(folder.join(path))
            .with_context(|| format!("could not read chapter \"{path}\""))?;
        let base = folder.join(path);
        Chapter::of(path, &text, base.parent().context("no folder")?)
    }

    fn of(path: &str, text: &str, folder: &Path) -> Result<Chapter> {
        let (mut lines, mut includes) = (Vec::new(), Vec::new());
        for (number, line) in text.lines().enumerate() {
            let number = number + 1;
            let Some(directive) = line.strip_prefix("{{#") else {
                ensure!(
                    !line.contains("{{#"),
                    "{path}:{number}: a directive in a line"
                );
                lines.push((number, line.to_owned()));
                continue;
            };
            let file = directive
                .strip_prefix("include ")
                .and_then(|rest| rest.strip_suffix("}}"))
                .with_context(|| format!("{path}:{number}: no include of a whole file"))?;
            let file = folder.join(file);
            let included = fs::read_to_string(&file).with_context(|| {
                format!("{path}:{number}: could not include \"{}\"", file.display())
            })?;
            lines.extend(included.lines().map(|line| (number, line.to_owned())));
            includes.push(file);
        }
        let blocks = blocks(path, &lines)?;
        Ok(Chapter {
            path: path.to_owned(),
            lines,
            includes,
            blocks,
        })
    }

    /// The same chapter without what it includes.
    pub(crate) fn own_lines(&self) -> Result<Chapter> {
        let text = fs::read_to_string(source().join(&self.path))?;
        let own = text.lines().filter(|line| !line.starts_with("{{#include "));
        let own = own.collect::<Vec<_>>().join("\n");
        Chapter::of(&self.path, &own, &source())
    }

    /// Its lines outside of code blocks.
    pub(crate) fn prose(&self) -> Vec<(usize, &str)> {
        let mut fenced = false;
        let mut prose = Vec::new();
        for (number, line) in &self.lines {
            if line.starts_with("```") {
                fenced = !fenced;
            } else if !fenced {
                prose.push((*number, line.as_str()));
            }
        }
        prose
    }
}

fn blocks(path: &str, lines: &[(usize, String)]) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in lines {
        let place = format!("{path}:{number}");
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, Some(info)) => {
                let kind = Kind::parse(info).with_context(|| place.clone())?;
                let text = String::new();
                open = Some(Block { place, kind, text });
            }
            (Some(_), Some(info)) => bail!("{place}: a fence with {info:?} inside a block"),
            (None, None) => {
                let start = line.trim_start();
                ensure!(
                    !start.starts_with("```") && !start.starts_with("~~~"),
                    "{place}: a fence that is indented or of another kind"
                );
            }
        }
    }
    match open {
        Some(block) => bail!("{}: a block without an end", block.place),
        None => Ok(blocks),
    }
}

#[test]
fn a_block_that_nobody_would_check_is_an_error() {
    for info in [
        "",
        "rust,ignore",
        "sh",
        "console,skip",
        "toml",
        "c,file=",
        "json",
        "Rust",
    ] {
        let text = format!("# A\n\n```{info}\nx\n```\n");
        assert!(
            Chapter::of("a.md", &text, Path::new(".")).is_err(),
            "{info}"
        );
    }
    for text in [
        "```text\nx\n",
        "  ```text\nx\n  ```\n",
        "~~~\nx\n~~~\n",
        "```text\n```rust\n```\n",
    ] {
        assert!(Chapter::of("a.md", text, Path::new(".")).is_err(), "{text}");
    }
}

#[test]
fn a_block_is_found_with_its_line_and_its_included_text() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("x.rs"), "fn x() {}\n")?;
    let text = "# A\n\n```rust\n{{#include x.rs}}\n```\n\n```text\nb\n```\n";
    let chapter = Chapter::of("a.md", text, folder.path())?;
    assert_eq!(chapter.blocks[0].place, "a.md:3");
    assert_eq!(chapter.blocks[0].text, "fn x() {}\n");
    assert_eq!(chapter.blocks[1].kind, Kind::Text);
    assert_eq!(chapter.prose(), [(1, "# A"), (2, ""), (6, "")]);
    for wrong in [
        "{{#include y.rs}}",
        "{{#include x.rs:1:2}}",
        "{{#title x}}",
        "a {{#include x.rs}}",
    ] {
        assert!(
            Chapter::of("a.md", wrong, folder.path()).is_err(),
            "{wrong}"
        );
    }
    Ok(())
}
