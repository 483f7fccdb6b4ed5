//! One page of a listing, read with distrust: what is not plainly a page of a listing is none.
//!
//! Guarantees: a page is complete for what it was asked, as far as a store can say so: its root element is the right one and
//! is closed, it says whether more follows and where, and holds no fewer keys than it says. Anything else (an error, a page
//! of some proxy, half an answer) is an error, and never a listing with nothing in it. Names that no archive uses, however
//! they are made, are counted and left out. What is kept of a page is bounded, whatever stands in it.
//!
//! Leaves to `answers.rs` how much is read at all, and to `store.rs` how many pages.

use std::borrow::Cow;
use std::time::SystemTime;

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, Event};

use crate::base::printable::printable;

/// The longest text of an element that is kept, in bytes: names have at most 1024, a token has a few hundred.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// The longest name of an object that is kept, in bytes: what all services allow.
const NAME_BYTES_MAX: usize = 1024;

/// The most objects of one page that are kept; services give 1000, or 5000.
const OBJECTS_MAX: usize = 10_000;

/// How deep elements may nest; listings need six levels.
const DEPTH_MAX: usize = 16;

/// How a page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// S3, its second version, which Google's store speaks too.
    S3,
    Azure,
}

/// One page of a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) objects: Vec<Listed>,
    /// Where the next page begins; `None` if this is the last.
    pub(super) next: Option<String>,
    /// What all names begin with, as the store has understood the question; `None` if it does not say.
    pub(super) prefix: Option<String>,
    /// How many objects were left out, because of names that no archive uses.
    pub(super) odd: u64,
}

/// One object on a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// Full name of the object, prefix included.
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) modified: SystemTime,
}

impl Dialect {
    fn root(self) -> &'static str {
        match self {
            Dialect::S3 => "/ListBucketResult",
            Dialect::Azure => "/EnumerationResults",
        }
    }

    /// A page with nothing in it, for the client library, which has its own ideas of what a listing is.
    pub(super) fn nothing(self) -> &'static str {
        match self {
            Dialect::S3 => "<ListBucketResult></ListBucketResult>",
            Dialect::Azure => "<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>",
        }
    }

    /// What an element is, by its path from the root.
    fn meaning(self, path: &str) -> Element {
        let Some(inner) = path.strip_prefix(self.root()) else {
            return Element::Other;
        };
        match (self, inner) {
            (Dialect::S3, "/IsTruncated") => Element::IsTruncated,
            (_, "/Prefix") => Element::Prefix,
            (Dialect::S3, "/NextContinuationToken") => Element::Next,
            (Dialect::S3, "/KeyCount") => Element::KeyCount,
            (Dialect::S3, "/CommonPrefixes") => Element::Folder,
            (Dialect::S3, "/Contents") => Element::Object,
            (Dialect::S3, "/Contents/Key") => Element::Name,
            (Dialect::S3, "/Contents/Size") => Element::Bytes,
            (Dialect::S3, "/Contents/LastModified") => Element::Modified,
            (Dialect::Azure, "/Blobs") => Element::Objects,
            (Dialect::Azure, "/NextMarker") => Element::Next,
            (Dialect::Azure, "/Blobs/BlobPrefix") => Element::Folder,
            (Dialect::Azure, "/Blobs/Blob") => Element::Object,
            (Dialect::Azure, "/Blobs/Blob/Name") => Element::Name,
            (Dialect::Azure, "/Blobs/Blob/Properties/Content-Length") => Element::Bytes,
            (Dialect::Azure, "/Blobs/Blob/Properties/Last-Modified") => Element::Modified,
            _ => Element::Other,
        }
    }
}

/// What matters of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    IsTruncated,
    Next,
    Prefix,
    KeyCount,
    /// What is behind a delimiter.
    Folder,
    Objects,
    Object,
    Name,
    Bytes,
    Modified,
    Other,
}

/// What a page says of itself and of the object that is being read.
#[derive(Default)]
struct Said {
    page: Page,
    has_objects: bool,
    is_truncated: Option<bool>,
    next: Option<String>,
    key_count: Option<u64>,
    /// Objects and folders.
    counted: u64,
    name: Option<String>,
    bytes: Option<u64>,
    modified: Option<SystemTime>,
}

/// The text of the element that is being read.
#[derive(Default)]
struct Text {
    text: String,
    /// There was more, or something that is no text.
    is_odd: bool,
}

impl Text {
    fn push(&mut self, more: &str) {
        if self.text.len() + more.len() > TEXT_BYTES_MAX {
            self.is_odd = true;
        } else {
            self.text.push_str(more);
        }
    }

    fn push_bytes(&mut self, more: &[u8]) {
        match std::str::from_utf8(more) {
            Ok(more) => self.push(more),
            Err(_) => self.is_odd = true,
        }
    }

    fn push_reference(&mut self, reference: &BytesRef<'_>) {
        let name = std::str::from_utf8(reference).unwrap_or_default();
        match (
            reference.resolve_char_ref(),
            resolve_predefined_entity(name),
        ) {
            (Ok(Some(character)), _) => self.push(character.encode_utf8(&mut [0; 4])),
            (_, Some(text)) => self.push(text),
            _ => self.is_odd = true,
        }
    }

    fn take(&mut self) -> Text {
        std::mem::take(self)
    }

    /// The text, unless it is odd.
    fn plain(self) -> Option<String> {
        (!self.is_odd).then_some(self.text)
    }
}

/// Reads a page. Says why it is none, if it is none.
pub(super) fn parse(dialect: Dialect, body: &[u8]) -> Result<Page, String> {
    let mut reader = Reader::from_reader(body);
    let (mut path, mut depth, mut is_over) = (String::new(), 0, false);
    let (mut said, mut text) = (Said::default(), Text::default());
    loop {
        let event = reader.read_event();
        let event =
            event.map_err(|error| format!("it is not XML: {}", printable(&error.to_string())))?;
        match event {
            Event::Start(start) => {
                depth += 1;
                if is_over || depth > DEPTH_MAX {
                    return Err("it does not have the form of a listing".to_owned());
                }
                path.push('/');
                path.push_str(&name_of(start.local_name().as_ref()));
                if depth == 1 && path != dialect.root() {
                    return Err(not_a_listing(&path));
                }
                said.begins(dialect.meaning(&path));
                text = Text::default();
            }
            Event::Empty(empty) => {
                let path = format!("{path}/{}", name_of(empty.local_name().as_ref()));
                if is_over || depth == 0 {
                    return Err(not_a_listing(&path));
                }
                let element = dialect.meaning(&path);
                said.begins(element);
                said.ends(element, Text::default())?;
            }
            Event::End(_) => {
                said.ends(dialect.meaning(&path), text.take())?;
                path.truncate(path.rfind('/').unwrap_or(0));
                depth = depth.saturating_sub(1);
                is_over = depth == 0;
            }
            Event::Text(more) => text.push_bytes(&more),
            Event::CData(more) => text.push_bytes(&more),
            Event::GeneralRef(reference) => text.push_reference(&reference),
            Event::Eof if is_over => return said.page(dialect),
            Event::Eof => return Err("it breaks off".to_owned()),
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) | Event::DocType(_) => {}
        }
    }
}

fn name_of(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn not_a_listing(path: &str) -> String {
    let root = path.trim_start_matches('/');
    format!("it is a \"{}\" and not a listing", printable(root))
}

impl Said {
    fn begins(&mut self, element: Element) {
        match element {
            Element::Object => {
                (self.name, self.bytes, self.modified) = (None, None, None);
                self.counted += 1;
            }
            Element::Folder => self.counted += 1,
            Element::Objects => self.has_objects = true,
            _ => {}
        }
    }

    fn ends(&mut self, element: Element, text: Text) -> Result<(), String> {
        match element {
            Element::IsTruncated => {
                self.is_truncated = match text.text.trim() {
                    "true" => Some(true),
                    "false" => Some(false),
                    _ => return Err("it does not say whether more follows".to_owned()),
                };
            }
            Element::Next => {
                let token = text.plain().ok_or("the token of the next page is odd")?;
                self.next = Some(token);
            }
            Element::KeyCount => {
                let count = text.text.trim().parse();
                self.key_count = Some(count.map_err(|_| "its count of keys is not a number")?);
            }
            Element::Prefix => self.page.prefix = text.plain(),
            Element::Name => self.name = text.plain(),
            Element::Bytes => self.bytes = text.text.trim().parse().ok(),
            Element::Modified => self.modified = time(text.text.trim()),
            Element::Object => self.object()?,
            Element::Folder | Element::Objects | Element::Other => {}
        }
        Ok(())
    }

    fn object(&mut self) -> Result<(), String> {
        let name = self.name.take();
        let Some(name) = name.filter(|name| is_usual(name)) else {
            self.page.odd += 1;
            return Ok(());
        };
        if self.page.objects.len() >= OBJECTS_MAX {
            return Err(format!("it holds more than {OBJECTS_MAX} objects"));
        }
        let bytes = self.bytes.ok_or("an object is without a size")?;
        let modified = self.modified.ok_or("an object is without a time")?;
        self.page.objects.push(Listed {
            name,
            bytes,
            modified,
        });
        Ok(())
    }

    /// The page, if what it says of itself agrees.
    fn page(mut self, dialect: Dialect) -> Result<Page, String> {
        let next = self.next.take();
        let token = next.clone().filter(|token| !token.is_empty());
        match dialect {
            Dialect::S3 => match (self.is_truncated, &token) {
                (None, _) => return Err("it does not say whether more follows".to_owned()),
                (Some(true), None) => {
                    return Err("it says that more follows, and not where".to_owned());
                }
                (Some(false), Some(_)) => {
                    return Err("it says that nothing follows, and where".to_owned());
                }
                (Some(true), Some(_)) | (Some(false), None) => {}
            },
            Dialect::Azure if !self.has_objects || next.is_none() => {
                return Err("it does not say whether more follows".to_owned());
            }
            Dialect::Azure => {}
        }
        if let Some(count) = self.key_count.filter(|count| *count > self.counted) {
            let found = self.counted;
            return Err(format!(
                "it says that it holds {count} keys, and holds {found}"
            ));
        }
        self.page.next = token;
        Ok(self.page)
    }
}

/// Whether an archive, or a prefix of one, may be called so.
fn is_usual(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.=".contains(c);
    let is_part = |part: &str| !["", ".", ".."].contains(&part) && part.chars().all(allowed);
    name.len() <= NAME_BYTES_MAX && name.split('/').all(is_part)
}

/// A time as S3 writes it, or Azure.
fn time(text: &str) -> Option<SystemTime> {
    if let Some(utc) = text.strip_suffix("+00:00") {
        return time(&format!("{utc}Z"));
    }
    humantime::parse_rfc3339(text)
        .ok()
        .or_else(|| http_date(text))
}

/// `Sun, 29 Nov 2026 20:00:00 GMT`
fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let mut words = text.split_ascii_whitespace().skip(1);
    let (day, month, year) = (words.next()?, words.next()?, words.next()?);
    let (clock, zone) = (words.next()?, words.next()?);
    let month = MONTHS.iter().position(|it| *it == month)? + 1;
    let is_utc = ["GMT", "UTC"].contains(&zone) && words.next().is_none();
    let text = format!("{year}-{month:02}-{day:0>2}T{clock}Z");
    is_utc
        .then(|| humantime::parse_rfc3339(&text).ok())
        .flatten()
}

#[cfg(test)]
mod tests;
