//! The module on the kit's front page is the one that is built and run on real servers.

/// The first code block of a crate's front page, without the lines that a reader does not see.
fn first_block(source: &str) -> String {
    let mut lines = source.lines().map(|line| {
        line.strip_prefix("//! ")
            .or_else(|| line.strip_prefix("//!"))
            .unwrap_or("```")
    });
    lines.find(|line| line.starts_with("```"));
    let block = lines.take_while(|line| *line != "```");
    let seen = block.filter(|line| !line.starts_with("# "));
    seen.flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn the_front_page_shows_the_very_text_of_the_thirty_line_module() {
    let page = first_block(include_str!("../src/lib.rs"));
    let example = include_str!("../../../examples/thirty_lines/src/lib.rs");
    assert!(page == example, "the two differ; the page has:\n{page}");
}
