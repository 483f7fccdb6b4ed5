//! What holds the book together: the summary, links, anchors, headings.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::markdown::{Chapter, chapters, source};

/// Targets of the links in a line, code in backquotes left out.
fn links(line: &str) -> Vec<&str> {
    // Every second part of a line cut at backquotes is code; links of the book do not contain any.
    let plain = line.split('`').step_by(2);
    plain
        .flat_map(|text| text.split("](").skip(1))
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target)
        .collect()
}

/// The anchor of a heading, as mdBook makes it: letters, digits, `-` and `_`, in lower case, blanks as `-`.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter_map(|letter| match letter {
        letter if letter.is_alphanumeric() || letter == '_' || letter == '-' => {
            Some(letter.to_ascii_lowercase())
        }
        letter if letter.is_whitespace() => Some('-'),
        _ => None,
    });
    kept.collect()
}

fn anchors(chapter: &Chapter) -> Vec<String> {
    chapter
        .prose()
        .into_iter()
        .filter(|(_, line)| line.starts_with('#'))
        .map(|(_, line)| anchor(line.trim_start_matches('#').trim()))
        .collect()
}

/// The path from the folder of the chapters that a link in a chapter leads to.
fn resolved(chapter: &str, target: &str) -> String {
    let folder = Path::new(chapter).parent().unwrap_or(Path::new(""));
    let mut path = PathBuf::new();
    for part in folder.join(target).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            part => path.push(part),
        }
    }
    path.display().to_string()
}

/// What is wrong with the links of a book.
fn broken_links(chapters: &[Chapter]) -> Vec<String> {
    let known: BTreeMap<&str, Vec<String>> = chapters
        .iter()
        .map(|chapter| (chapter.path.as_str(), anchors(chapter)))
        .collect();
    let mut broken = Vec::new();
    for chapter in chapters {
        for (number, line) in chapter.prose() {
            for target in links(line) {
                if target.starts_with("https://") {
                    continue;
                }
                let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
                let path = match file {
                    "" => chapter.path.clone(),
                    file => resolved(&chapter.path, file),
                };
                let there = known.get(path.as_str()).is_some_and(|anchors| {
                    anchor.is_empty() || anchors.iter().any(|known| known == anchor)
                });
                if !there {
                    broken.push(format!("{}:{number}: {target}", chapter.path));
                }
            }
        }
    }
    broken
}

fn markdown_files(folder: &Path, found: &mut BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            markdown_files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.insert(path.canonicalize()?);
        }
    }
    Ok(())
}

#[test]
fn every_page_is_in_the_summary_or_part_of_one_that_is() -> Result<()> {
    let mut files = BTreeSet::new();
    markdown_files(&source(), &mut files)?;
    files.remove(&source().join("SUMMARY.md").canonicalize()?);
    for chapter in chapters()? {
        let path = source().join(&chapter.path).canonicalize()?;
        ensure!(
            files.remove(&path),
            "\"{}\" is in the summary twice",
            chapter.path
        );
        for include in &chapter.includes {
            files.remove(&include.canonicalize()?);
        }
    }
    assert!(files.is_empty(), "in no summary: {files:?}");
    Ok(())
}

#[test]
fn links_and_anchors_lead_somewhere() -> Result<()> {
    let broken = broken_links(&chapters()?);
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    Ok(())
}

#[test]
fn every_chapter_has_one_title_and_anchors_that_differ() -> Result<()> {
    for chapter in chapters()? {
        let prose = chapter.prose();
        let titles = prose.iter().filter(|(_, line)| line.starts_with("# "));
        assert_eq!(titles.count(), 1, "{}", chapter.path);
        let (_, first) = prose.first().context("an empty chapter")?;
        assert!(
            first.starts_with("# "),
            "{} begins with {first:?}",
            chapter.path
        );
        // What is included is generated, and may repeat itself; mdBook numbers such anchors.
        let own = chapter.own_lines()?;
        let mut seen = BTreeSet::new();
        for anchor in anchors(&own) {
            assert!(
                seen.insert(anchor.clone()),
                "{}: #{anchor} twice",
                chapter.path
            );
        }
    }
    Ok(())
}

#[test]
fn the_configuration_names_the_folder_of_the_chapters() -> Result<()> {
    let text = fs::read_to_string(source().with_file_name("book.toml"))?;
    assert!(text.contains("src = \"src\""), "{text}");
    Ok(())
}

#[test]
fn a_link_that_leads_nowhere_is_noticed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::create_dir(folder.path().join("sub"))?;
    fs::write(
        folder.path().join("a.md"),
        "# One\n[x](sub/b.md#two-words) `[no](x.md)` [y](#one)\n",
    )?;
    fs::write(
        folder.path().join("sub/b.md"),
        "# B\n## `two` words!\n[x](../a.md#gone) [y](c.md)\n```text\n[no](x.md)\n```\n[z](b.md)\n",
    )?;
    let chapters = ["a.md", "sub/b.md"].map(|path| Chapter::read(folder.path(), path));
    let [one, two] = chapters;
    assert_eq!(
        broken_links(&[one?, two?]),
        ["sub/b.md:3: ../a.md#gone", "sub/b.md:3: c.md"]
    );
    Ok(())
}
