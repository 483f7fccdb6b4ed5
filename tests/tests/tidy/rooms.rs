//! Which file uses which: no circle of more than a few files in a crate of the product, and the arrows between the rooms of
//! `archive`.
//!
//! Guarantees what it says for paths that begin with `crate::`, `super::`, `self::` or the name of a submodule, in the code of
//! the product, unit tests left out. A name that a module only passes on (`pub use`) counts for the file that defines it, and
//! passing it on is no use. A method of a type that is called without its file being named is not seen.

use std::collections::{BTreeMap, BTreeSet};

use super::{code, is_product, product, sources};

/// How many files may use each other in a circle.
const CIRCLE_FILES_MAX: usize = 3;

/// Which rooms of `archive` each room may use. `error.rs` and `cancel.rs` count as `base`, and the crate's front page as none.
const ROOMS: [(&str, &[&str]); 11] = [
    ("base", &[]),
    ("store", &["base"]),
    ("options", &["base", "store"]),
    ("format", &["base", "options", "store"]),
    ("pg_wal", &["base", "format"]),
    ("archive", &["base", "format", "options", "pg_wal", "store"]),
    ("get", &["archive", "base", "format", "options", "store"]),
    ("admin", &["archive", "base", "get", "options", "store"]),
    (
        "put",
        &[
            "admin", "archive", "base", "format", "options", "pg_wal", "store",
        ],
    ),
    (
        "ahead",
        &[
            "archive", "base", "format", "get", "options", "pg_wal", "put", "store",
        ],
    ),
    (
        "suite",
        &[
            "admin", "archive", "base", "format", "get", "options", "put", "store",
        ],
    ),
];

/// A module's path in its crate, or that of an item.
type Path = Vec<String>;

/// The files of one crate, and what they pass on.
struct Crate {
    files: BTreeMap<Path, String>,
    /// What a module passes on, by its name there.
    passed_on: BTreeMap<Path, Path>,
}

/// A path as it stands in a file, and whether it is only passed on.
struct Use {
    path: Path,
    is_passed_on: bool,
}

impl Crate {
    /// Of the files below `folder`.
    fn read(sources: &BTreeMap<String, String>, folder: &str) -> Crate {
        let mut files = BTreeMap::new();
        for (path, text) in sources {
            let inside = path.strip_prefix(folder);
            if let Some(inside) = inside.and_then(|path| path.strip_prefix("/src/"))
                && is_product(path)
            {
                let lines = product(text).lines().map(code);
                files.insert(module_of(inside), lines.collect::<Vec<_>>().join("\n"));
            }
        }
        let mut read = Crate {
            files,
            passed_on: BTreeMap::new(),
        };
        for (module, text) in &read.files {
            for found in read.uses(module, text) {
                if found.is_passed_on
                    && let Some(name) = found.path.last()
                {
                    let mut there = module.clone();
                    there.push(name.clone());
                    read.passed_on.insert(there, found.path.clone());
                }
            }
        }
        read
    }

    /// The paths that a file names.
    fn uses(&self, module: &Path, text: &str) -> Vec<Use> {
        let mut found = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find("::") {
            let (front, behind) = (&rest[..at], &rest[at + 2..]);
            let begin = front.rfind(|c: char| !is_of_name(c)).map_or(0, |at| at + 1);
            let (before, first) = front.split_at(begin);
            let mut path = match first {
                "crate" => Vec::new(),
                "self" => module.clone(),
                "super" => parent(module),
                _ => {
                    let mut child = module.clone();
                    child.push(first.to_owned());
                    if !self.files.contains_key(&child) {
                        rest = behind;
                        continue;
                    }
                    child
                }
            };
            let statement = before.rsplit([';', '}', '{']).next().unwrap_or_default();
            let statement = statement.trim();
            let is_passed_on = statement.starts_with("pub") && statement.ends_with("use");
            let mut leaves = Vec::new();
            rest = tree(behind, &mut path, &mut leaves);
            found.extend(leaves.into_iter().map(|path| Use { path, is_passed_on }));
        }
        found
    }

    /// The file in which what a path names is.
    fn file_of(&self, path: &Path) -> Path {
        let mut path = path.clone();
        // As often as names are passed on at most.
        for _ in 0..8 {
            let known = (0..=path.len()).find_map(|len| self.passed_on.get(path.get(..len)?));
            match known {
                Some(target) => path.clone_from(target),
                None => break,
            }
        }
        while !self.files.contains_key(&path) && path.pop().is_some() {}
        path
    }

    /// Which files each file uses.
    fn edges(&self) -> BTreeMap<&Path, BTreeSet<Path>> {
        let mut edges = BTreeMap::new();
        for (module, text) in &self.files {
            let uses = self.uses(module, text);
            let uses = uses.iter().filter(|found| !found.is_passed_on);
            let mut files: BTreeSet<Path> = uses.map(|found| self.file_of(&found.path)).collect();
            files.remove(module);
            edges.insert(module, files);
        }
        edges
    }

    /// The files that use each other in circles, each circle with all that are on it.
    fn circles(&self) -> BTreeSet<Vec<Path>> {
        let edges = self.edges();
        let reached: BTreeMap<&Path, BTreeSet<&Path>> = edges
            .keys()
            .map(|module| {
                let mut seen = BTreeSet::new();
                let mut open = vec![*module];
                while let Some(next) = open.pop() {
                    let new = edges.get(next).into_iter().flatten();
                    open.extend(new.filter(|file| seen.insert(*file)));
                }
                (*module, seen)
            })
            .collect();
        let joined =
            |one: &Path, other: &Path| reached.get(one).is_some_and(|it| it.contains(other));
        let circle = |module: &Path| {
            let both = reached
                .keys()
                .filter(|other| joined(module, other) && joined(other, module));
            both.map(|other| (*other).clone()).collect::<Vec<_>>()
        };
        let circles = reached.keys().map(|module| circle(module));
        circles.filter(|circle| circle.len() > 1).collect()
    }
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// `get/mod.rs` and `get.rs` are `get`, and the crate's root has no name.
fn module_of(inside: &str) -> Path {
    let inside = inside.trim_end_matches(".rs");
    let inside = inside.strip_suffix("/mod").unwrap_or(inside);
    if ["lib", "main", "mod"].contains(&inside) {
        return Vec::new();
    }
    inside.split('/').map(str::to_owned).collect()
}

fn parent(module: &Path) -> Path {
    let mut parent = module.clone();
    parent.pop();
    parent
}

/// Reads what follows a `::`, a name or a tree of them in braces, and gives what is behind it.
fn tree<'a>(text: &'a str, path: &mut Path, leaves: &mut Vec<Path>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut inside) = text.strip_prefix('{') {
        loop {
            inside = inside.trim_start().trim_start_matches(',').trim_start();
            if inside.is_empty() {
                return inside;
            }
            if let Some(behind) = inside.strip_prefix('}') {
                return behind;
            }
            let before = inside.len();
            inside = tree(inside, &mut path.clone(), leaves);
            // Behind `as`, or something that is no tree of names at all.
            if inside.len() == before {
                inside = inside.get(1..).unwrap_or_default();
            }
        }
    }
    let end = text.find(|c: char| !is_of_name(c)).unwrap_or(text.len());
    let (name, behind) = text.split_at(end);
    match name {
        "super" => drop(path.pop()),
        "self" | "" => {}
        _ => path.push(name.to_owned()),
    }
    match behind.strip_prefix("::") {
        Some(behind) => tree(behind, path, leaves),
        None => {
            leaves.push(path.clone());
            behind
        }
    }
}

fn shown(module: &Path) -> String {
    if module.is_empty() {
        "the root".to_owned()
    } else {
        module.join("/")
    }
}

#[test]
fn no_more_than_a_few_files_use_each_other_in_a_circle() {
    let sources = sources();
    let (mut found, mut seen) = (Vec::new(), 0);
    for (folder, _) in super::EDGES {
        if !folder.starts_with("crates/") {
            continue;
        }
        for circle in Crate::read(&sources, folder).circles() {
            seen += 1;
            let files: Vec<_> = circle.iter().map(shown).collect();
            let line = format!("{folder}, {} files: {}", files.len(), files.join(", "));
            println!("{line}");
            if files.len() > CIRCLE_FILES_MAX {
                found.push(line);
            }
        }
    }
    assert!(seen > 2, "{seen} circles found: the search is blind");
    super::none("use each other in a circle", found);
}

#[test]
fn rooms_of_archive_use_each_other_only_along_the_arrows_of_the_design() {
    let archive = Crate::read(&sources(), "crates/archive");
    let room = |module: &Path| match module.first().map(String::as_str) {
        None | Some("lib") => None,
        Some("error" | "cancel") => Some("base".to_owned()),
        Some(room) => Some(room.to_owned()),
    };
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, files) in archive.edges() {
        if let Some(own) = room(module) {
            let others = used.entry(own.clone()).or_default();
            others.extend(files.iter().filter_map(room).filter(|other| *other != own));
        }
    }
    let design: BTreeMap<String, BTreeSet<String>> = ROOMS
        .iter()
        .map(|(room, may)| {
            (
                (*room).to_owned(),
                may.iter().map(|may| (*may).to_owned()).collect(),
            )
        })
        .collect();
    assert_eq!(used, design, "(left: used, right: design)");
}

#[test]
fn the_search_for_circles_sees_what_it_looks_for() {
    let texts = [
        (
            "lib",
            "mod a; mod b; pub use b::{c::Deep, B}; use crate::a::X;",
        ),
        (
            "a",
            "use crate::{\n    B,\n    b::c::{self, Deep as D},\n};",
        ),
        ("b/mod", "mod c; pub use c::Deep; fn x() { c::y() }"),
        ("b/c", "use super::super::a::{X, Y};\n// use crate::b::B;"),
        (
            "d",
            "use std::fmt;\n#[cfg(test)]\nmod tests {\n use crate::d::e; }",
        ),
    ];
    let texts = texts.map(|(file, text)| (format!("crates/x/src/{file}.rs"), text.to_owned()));
    let planted = Crate::read(&BTreeMap::from(texts), "crates/x");
    let edges: BTreeMap<String, Vec<String>> = planted
        .edges()
        .into_iter()
        .map(|(module, files)| (shown(module), files.iter().map(shown).collect()))
        .collect();
    let of = |module: &str| edges.get(module).expect(module).join(" ");
    assert_eq!(of("the root"), "a");
    assert_eq!(of("a"), "b b/c");
    assert_eq!(of("b"), "b/c");
    assert_eq!(of("b/c"), "a");
    assert_eq!(of("d"), "");
    let circles: Vec<_> = planted
        .circles()
        .into_iter()
        .map(|files| files.len())
        .collect();
    assert_eq!(circles, [3]);
}
