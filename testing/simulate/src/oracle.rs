//! What may be said of a file, computed from what the servers wrote and what lies in the archive.
//!
//! Guarantees its own reading of the rules: nothing here calls what decides in the product. Where a rule leaves room, the
//! oracle takes [`Proof::Maybe`], and nobody is wrong. Left to `world`: what became of a whole recovery. The file and one
//! function of it are long because the rules stand together.

use fixtures::pen::{OVERWRITES, Written};

use crate::life::{Server, Signal};
use crate::reader::{Ask as PageAsk, Pages, Reader, Record, Seen, Trouble};
use crate::restores::{Offer, Shelf};
use crate::startup::{Ask, Goal, Halt, Role};
use crate::timelines::{
    Entry, begins_in, left, parse, parse_history_name, parse_segment, segment_name,
};
use crate::tree::Tree;
use crate::{PAGE, SEGMENT, SYSTEM, lsn, segment_of};

/// Whether a file that is not stored must have been there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    Sure(String),
    Maybe(String),
    None,
}

/// A wrong answer.
#[derive(Clone, Debug)]
pub struct Violation {
    pub rule: &'static str,
    pub text: String,
}

/// The first 24 characters of a key, if they name a segment, and what follows them.
fn segment_key(key: &str) -> Option<(u32, u64, &str)> {
    let (name, rest) = key.split_at_checked(24)?;
    let (timeline, number) = parse_segment(name)?;
    let is_backup = rest.len() >= 16
        && rest.as_bytes().first() == Some(&b'.')
        && rest[9..].starts_with(".backup");
    (!is_backup && (rest.is_empty() || rest.starts_with('.'))).then_some((timeline, number, rest))
}

/// Every history that can be read, stored or in `pg_wal`.
fn histories(shelf: &Shelf, server: &Server) -> Vec<(u32, Vec<Entry>)> {
    let stored = shelf.kept.iter().filter(|(_, kept)| kept.is_sound);
    let stored = stored.map(|(key, kept)| (key.as_str(), kept.contents.as_slice()));
    let own = server.files.names().filter_map(|name| {
        let contents = server.files.get(name)?;
        Some((name.as_str(), contents.as_slice()))
    });
    let all = stored.chain(own).filter_map(|(name, contents)| {
        let timeline = parse_history_name(name)?;
        Some((timeline, parse(timeline, contents).ok()?))
    });
    all.collect()
}

/// Whether there is evidence that a file that was called absent was there.
#[must_use]
pub fn absence(shelf: &Shelf, server: &Server, ask: &Ask) -> Proof {
    match (parse_segment(&ask.name), parse_history_name(&ask.name)) {
        (Some((timeline, number)), _) => segment(shelf, server, ask, timeline, number),
        (_, Some(timeline)) => history(shelf, server, ask, timeline),
        _ => Proof::None,
    }
}

fn segment(shelf: &Shelf, server: &Server, ask: &Ask, timeline: u32, number: u64) -> Proof {
    let next = (number + 1) * SEGMENT;
    let lower = &ask.name;
    let other_form = shelf.kept.keys().find(|key| {
        segment_key(key).is_some_and(|(t, n, rest)| {
            (t, n) == (timeline, number) && !rest.is_empty() && !rest.starts_with(".partial")
        })
    });
    let beyond = is_left_before(ask, timeline, next);
    let lines = histories(shelf, server);
    // Its own history tells where it begins; else any that names it.
    let own_history = lines.iter().find(|(own, _)| *own == timeline);
    let naming = lines.iter().find(|(_, line)| {
        line.iter()
            .any(|entry| entry.timeline == timeline && entry.begin != 0)
    });
    let begins = match own_history.or(naming) {
        _ if timeline == 1 => Some(0),
        Some((_, line)) => begins_in(line, timeline),
        None => None,
    };
    let stored = |n: u64| {
        shelf
            .kept
            .keys()
            .filter_map(move |key| segment_key(key).filter(|(t, m, _)| *t == timeline && *m > n))
    };
    let later = stored(number)
        .next()
        .map(|(t, n, rest)| format!("{}{rest}", segment_name(t, n)));
    let descendant = lines
        .iter()
        .find(|(_, line)| left(line, timeline).is_some_and(|at| at >= next));
    let has_begun = match begins {
        Some(begins) => number >= begins,
        None => shelf
            .kept
            .keys()
            .any(|key| segment_key(key).is_some_and(|(t, n, _)| t == timeline && n < number)),
    };
    let own = match server.files.get(lower) {
        Some(contents) => own_copy(contents, timeline, number, &lines),
        None => Own::Nothing,
    };
    // Two servers chose the same timeline: where it begins is anybody's guess.
    let lives = lines.iter().filter(|(own, _)| *own == timeline);
    let mut begun: Vec<_> = lives.map(|(_, line)| begins_in(line, timeline)).collect();
    begun.dedup();
    if begun.len() > 1 && !beyond {
        return Proof::Maybe(format!("there are two timelines {timeline}"));
    }
    let why = match (other_form, later, descendant) {
        (Some(key), _, _) => format!("\"{key}\" is stored"),
        (None, Some(key), _) if !beyond => format!("\"{key}\" is stored behind it"),
        (None, None, Some((own, _))) if !beyond => {
            format!("timeline {own} left timeline {timeline} behind it")
        }
        _ => return Proof::None,
    };
    let by_form = other_form.is_some();
    if !by_form && !has_begun {
        return match begins {
            Some(_) => Proof::None,
            None => Proof::Maybe(why),
        };
    }
    let has_later = stored(number).next().is_some();
    match own {
        Own::Whole => Proof::None,
        Own::Begun if !has_later && !by_form => Proof::Maybe(why),
        Own::Begun if by_form => Proof::Maybe(why),
        _ => Proof::Sure(why),
    }
}

/// Whether a timeline of this line begins elsewhere by its own history, stored or in `pg_wal`: two servers chose it. Which of
/// the two is asked for does not show, and the wrong history may be taken for the line's (section 8 of the judgement: clones
/// that cannot be told apart).
#[must_use]
pub fn has_twins(shelf: &Shelf, server: &Server, line: &[Entry]) -> bool {
    let begins = |entry: &Entry| (entry.begin != 0).then_some(entry.begin);
    histories(shelf, server).iter().any(|(own, known)| {
        let ours = line.iter().find(|entry| entry.timeline == *own);
        let pair = ours.and_then(begins).zip(known.first().and_then(begins));
        pair.is_some_and(|(ours, theirs)| ours != theirs)
    })
}

fn is_left_before(ask: &Ask, timeline: u32, next: u64) -> bool {
    let line = ask.line.as_ref();
    line.is_some_and(|line| left(line, timeline).is_some_and(|at| at < next))
}

/// Whether the server has this file itself, whole: whatever becomes of the archive, it goes on with it.
#[must_use]
pub fn has_own(shelf: &Shelf, server: &Server, name: &str) -> bool {
    let Some(contents) = server.files.get(name) else {
        return false;
    };
    match parse_segment(name) {
        Some((timeline, number)) => {
            own_copy(contents, timeline, number, &histories(shelf, server)) == Own::Whole
        }
        None => true,
    }
}

/// What a server has of a segment itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Nothing,
    Begun,
    Whole,
}

fn own_copy(contents: &[u8], timeline: u32, number: u64, lines: &[(u32, Vec<Entry>)]) -> Own {
    let Some(scan) = scan(contents, number) else {
        return Own::Nothing;
    };
    let on_line = scan.timeline == timeline
        || lines.iter().any(|(own, line)| {
            *own == timeline
                && line
                    .first()
                    .is_some_and(|entry| segment_of(entry.begin) == number)
                && line.iter().any(|entry| entry.timeline == scan.timeline)
        });
    match (on_line, scan.reaches_end) {
        (false, _) => Own::Nothing,
        (true, true) => Own::Whole,
        (true, false) => Own::Begun,
    }
}

fn history(shelf: &Shelf, server: &Server, ask: &Ask, timeline: u32) -> Proof {
    let control = server.control;
    let is_only_copied = timeline <= control.timeline.max(control.min_timeline)
        || matches!(ask.goal, Goal::Number(number) if timeline < number)
        || server.signal == Signal::None;
    if is_only_copied || server.files.has(&ask.name) {
        return Proof::None;
    }
    let dotted = format!("{}.", ask.name);
    if let Some(key) = shelf.kept.keys().find(|key| key.starts_with(&dotted)) {
        return Proof::Sure(format!("\"{key}\" is stored"));
    }
    let of = |wanted: fn(u32, u32) -> bool| {
        shelf
            .kept
            .keys()
            .find(move |key| segment_key(key).is_some_and(|(t, _, _)| wanted(t, timeline)))
    };
    if let (Some(own), Some(_)) = (of(|t, own| t == own), of(|t, own| t < own)) {
        return Proof::Sure(format!("\"{own}\" is stored"));
    }
    for (key, kept) in &shelf.kept {
        let Some(other) = parse_history_name(key.get(..16).unwrap_or_default()) else {
            continue;
        };
        if other > timeline && ask.goal == Goal::Latest {
            return Proof::Sure(format!("\"{key}\" is stored"));
        }
        let names = |line: Vec<Entry>| line.iter().any(|entry| entry.timeline == timeline);
        if other != timeline && kept.is_sound && parse(other, &kept.contents).is_ok_and(names) {
            return Proof::Sure(format!("\"{key}\" names it"));
        }
    }
    Proof::None
}

/// What a segment's bytes hold.
#[derive(Clone, Debug)]
pub struct Scan {
    /// The first page's.
    pub timeline: u32,
    /// Where complete records begin that end in it.
    pub begins: Vec<u64>,
    /// The first of them.
    pub first: Option<Written>,
    /// Records go on to its end.
    pub reaches_end: bool,
    /// Where the last record begins, complete or not.
    pub last: Option<u64>,
    /// Where the last complete record ends.
    pub end: u64,
}

/// One or two segments as a reader's pages.
struct Few<'a>(Vec<(u64, &'a [u8])>);

impl Pages for Few<'_> {
    fn page(&mut self, ask: PageAsk, _: &mut Seen) -> Result<Option<(Vec<u8>, u64)>, Halt> {
        let number = segment_of(ask.page);
        let file = self
            .0
            .iter()
            .find(|(own, _)| *own == number)
            .map(|(_, bytes)| bytes);
        let offset = (ask.page % SEGMENT) as usize;
        let page = file.and_then(|bytes| bytes.get(offset..offset + PAGE as usize));
        Ok(page.map(|page| (page.to_vec(), PAGE)))
    }
}

/// Reads a segment; `None` if it does not begin as this segment of this system.
#[must_use]
pub fn scan(contents: &[u8], number: u64) -> Option<Scan> {
    let word = |at: usize| {
        Some(u64::from_ne_bytes(
            contents.get(at..at + 8)?.try_into().ok()?,
        ))
    };
    if contents.len() as u64 != SEGMENT || word(8)? != number * SEGMENT || word(24)? != SYSTEM {
        return None;
    }
    let half = |at: usize| {
        Some(u32::from_ne_bytes(
            contents.get(at..at + 4)?.try_into().ok()?,
        ))
    };
    if half(0)? & 0xFFFF != 0xD110 {
        return None;
    }
    let timeline = half(4)?;
    // Where the first record begins: behind the rest of the one before.
    let mut rest = u64::from(half(16)?);
    let mut page = 0;
    let mut scan = Scan {
        timeline,
        begins: Vec::new(),
        first: None,
        reaches_end: false,
        last: None,
        end: number * SEGMENT,
    };
    let start = loop {
        let header = if page == 0 { 40 } else { 24 };
        let room = PAGE - header;
        if rest <= room {
            break number * SEGMENT + page + header + rest.next_multiple_of(8);
        }
        rest -= room;
        page += PAGE;
        if page >= SEGMENT {
            scan.reaches_end = true;
            return Some(scan);
        }
        let address = word(usize::try_from(page).ok()? + 8)?;
        if address != number * SEGMENT + page {
            return Some(scan);
        }
        // The record was given up here, and another begins.
        if (half(usize::try_from(page).ok()?)? >> 16) as u16 & OVERWRITES != 0 {
            break number * SEGMENT + page + 24;
        }
    };
    let end = (number + 1) * SEGMENT;
    let mut reader = Reader::default();
    reader.begin(start);
    let mut pages = Few(vec![(number, contents)]);
    let mut at = start;
    while at < end {
        match reader.next(&mut pages) {
            Ok(Record { written, .. }) => {
                scan.begins.push(written.lsn);
                scan.first.get_or_insert(written);
                scan.last = Some(written.lsn);
                at = written.end;
            }
            Err(Trouble::None(_)) => {
                if let Some((begin, missing)) = reader.aborted
                    && missing >= end
                {
                    scan.last = Some(begin);
                    at = end;
                }
                break;
            }
            Err(Trouble::Halt(_)) => break,
        }
    }
    scan.reaches_end = at >= end;
    scan.end = at;
    Some(scan)
}

/// Whether WAL goes on from one segment to the next, as far as their bytes tell.
#[must_use]
pub fn goes_on(before: &[u8], next: &[u8], number: u64) -> bool {
    // From a whole record on, if there is one: a record that was given up names the one before it.
    let last = |scan: Scan| scan.begins.last().copied().or(scan.last);
    let Some(last) = scan(before, number - 1).and_then(last) else {
        return true;
    };
    let mut reader = Reader::default();
    reader.begin(last);
    let mut pages = Few(vec![(number - 1, before), (number, next)]);
    loop {
        match reader.next(&mut pages) {
            Ok(record) if record.written.end > number * SEGMENT => return true,
            Ok(_) => {}
            Err(_) => {
                return reader
                    .aborted
                    .is_some_and(|(_, page)| page >= (number + 1) * SEGMENT);
            }
        }
    }
}

/// Whether records from where the line leaves this timeline on are in it.
#[must_use]
pub fn is_beyond_fork(contents: &[u8], line: &[Entry], timeline: u32, number: u64) -> bool {
    let Some(fork) = left(line, timeline) else {
        return false;
    };
    scan(contents, number).is_some_and(|scan| scan.begins.iter().any(|begin| *begin >= fork))
}

/// Why "could not tell" is right for a file that is stored, or is not.
#[must_use]
pub fn reason_for_doubt(shelf: &Shelf, server: &Server, ask: &Ask) -> Proof {
    let Some(kept) = shelf.kept.get(&ask.name) else {
        if shelf.kept.is_empty() {
            return Proof::Sure("the archive is empty".to_owned());
        }
        return absence(shelf, server, ask);
    };
    if !kept.is_sound {
        return Proof::Sure(format!("\"{}\" is damaged", ask.name));
    }
    let Some((timeline, number)) = parse_segment(&ask.name) else {
        // A history that begins its timeline behind segments of it.
        let own = parse_history_name(&ask.name);
        let line = own
            .and_then(|own| parse(own, &kept.contents).ok())
            .unwrap_or_default();
        let begins = line.first().map(|entry| segment_of(entry.begin));
        let before = shelf.kept.keys().find(|key| {
            segment_key(key)
                .is_some_and(|(t, n, _)| Some(t) == own && begins.is_some_and(|begins| n < begins))
        });
        return match before {
            None => Proof::None,
            Some(key) => Proof::Maybe(format!("\"{key}\" lies before it")),
        };
    };
    let line = ask.line.clone().unwrap_or_default();
    if is_beyond_fork(&kept.contents, &line, timeline, number) {
        return Proof::Sure(format!("\"{}\" goes on behind the fork", ask.name));
    }
    match scan(&kept.contents, number) {
        None => return Proof::Sure(format!("\"{}\" is no such segment", ask.name)),
        Some(scan) if !scan.reaches_end => {
            return Proof::Maybe(format!("WAL ends in \"{}\"", ask.name));
        }
        Some(_) => {}
    }
    for entry in line.iter().filter(|entry| entry.timeline <= timeline) {
        let name = segment_name(entry.timeline, number.saturating_sub(1));
        for before in [
            shelf.kept.get(&name).map(|kept| &kept.contents),
            server.files.get(&name),
        ] {
            if let Some(before) = before
                && !goes_on(before, &kept.contents, number)
            {
                return Proof::Maybe(format!("it does not go on behind \"{name}\""));
            }
        }
    }
    Proof::None
}

/// Whether an answer was right, as far as one answer tells.
#[must_use]
pub fn judge_absent(shelf: &Shelf, server: &Server, ask: &Ask) -> Option<Violation> {
    if let Some(kept) = shelf.readable(&ask.name) {
        let beyond = parse_segment(&ask.name).is_some_and(|(timeline, number)| {
            let line = ask.line.clone().unwrap_or_default();
            is_beyond_fork(&kept.contents, &line, timeline, number)
        });
        if beyond && server.signal == Signal::Standby {
            return None;
        }
        // It does not fit what the server has: where that goes on by itself, nothing is lost. Once the signal files are gone it
        // only copies histories, and must not be held up (sections 3 and 4 of the judgement).
        let is_doubtful = reason_for_doubt(shelf, server, ask) != Proof::None;
        let is_copy = server.signal == Signal::None && ask.role != Role::Segment;
        let goes_on =
            server.signal == Signal::Standby || is_copy || has_own(shelf, server, &ask.name);
        // What was replayed last is read once more, from the server's own copy (section 4).
        let is_last = ask.is_finishing && ask.role == Role::Segment;
        if is_doubtful && goes_on && (!beyond || is_last) {
            return None;
        }
        return Some(Violation {
            rule: "absent, though it is stored",
            text: format!("\"{}\" was called absent and can be read", ask.name),
        });
    }
    let may_end = ask.is_finishing && ask.role == Role::Segment;
    let waits = server.signal == Signal::Standby && ask.role == Role::Segment;
    if may_end || waits || ask.is_promoted {
        return None;
    }
    match absence(shelf, server, ask) {
        Proof::Sure(why) => Some(Violation {
            rule: "absent, though there is evidence",
            text: format!("\"{}\" was called absent, and {why}", ask.name),
        }),
        Proof::Maybe(_) | Proof::None => None,
    }
}

/// Whether a file may be archived where it was.
#[must_use]
pub fn judge_archived(shelf: &Shelf, server: &Server, offer: &Offer) -> Option<Violation> {
    let Offer { name, before } = offer;
    let wrong = |text: String| {
        Some(Violation {
            rule: "archived behind another server's",
            text,
        })
    };
    let (_, number) = parse_segment(name)?;
    let contents = server.files.get(name)?;
    let before = before.as_ref()?;
    let stored = shelf.readable(before)?;
    scan(&stored.contents, number - 1)?;
    let own = server.files.get(before);
    let is_own = own.is_some_and(|own| scan(own, number - 1).is_some_and(|scan| scan.reaches_end));
    if let (Some(own), true) = (own, is_own)
        && **own != *stored.contents
    {
        return wrong(format!(
            "\"{name}\" was archived, and pg_wal has another \"{before}\" than the archive"
        ));
    }
    if !goes_on(&stored.contents, contents, number) {
        return wrong(format!(
            "\"{name}\" was archived, and does not go on where the stored \"{before}\" ends ({})",
            lsn(number * SEGMENT)
        ));
    }
    None
}

/// The key under which an acknowledged file is stored with all its records, though its bytes are not stored under its name: WAL
/// ends in it, and behind the end everybody has other bytes. Records behind the place where the server left the timeline need not
/// be there.
#[must_use]
pub fn stored_by_records(shelf: &Shelf, server: &Server, name: &str) -> Option<String> {
    let contents = server.files.get(name)?;
    let bare = name.strip_suffix(".partial").unwrap_or(name);
    let (timeline, number) = parse_segment(bare)?;
    let own = scan(contents, number)?;
    if bare == name && own.reaches_end {
        return None;
    }
    let keys = [name.to_owned(), format!("{bare}.partial")];
    keys.into_iter().find(|key| {
        let Some(stored) = shelf.raw(key) else {
            return false;
        };
        let end = scan(&stored, number).map_or(0, |stored| stored.end);
        let shared = end.min(own.end).saturating_sub(number * SEGMENT) as usize;
        let same = stored.get(..shared) == contents.get(..shared);
        same && (end >= own.end || has_left(server, timeline, number))
    })
}

/// Whether a server has WAL of a later timeline that left this one before the end of this segment.
#[must_use]
pub fn has_left(server: &Server, timeline: u32, number: u64) -> bool {
    let segments = server.files.names().filter_map(|name| {
        let (of, at) = parse_segment(name)?;
        (of > timeline && scan(server.files.get(name)?, at).is_some()).then_some(of)
    });
    segments.into_iter().any(|later| {
        let history = server.files.get(&crate::timelines::history_name(later));
        let line = history.and_then(|contents| parse(later, contents).ok());
        let left = line.and_then(|line| left(&line, timeline));
        left.is_some_and(|at| at < (number + 1) * SEGMENT)
    })
}

/// Whether WAL ends in a segment that is called complete.
#[must_use]
pub fn ends_inside(name: &str, contents: &[u8]) -> bool {
    let number = parse_segment(name).map(|(_, number)| number);
    let scanned = number.and_then(|number| scan(contents, number));
    scanned.is_some_and(|scanned| !scanned.reaches_end)
}

/// The segment before this one, by who wrote the record before its first one: the same timeline, or where that begins in it, the
/// one that was left (section 5 of the judgement). Histories do not tell: the one in `pg_wal` may be another server's, which
/// chose the same timeline and began it elsewhere.
#[must_use]
pub fn predecessor(tree: &Tree, server: &Server, name: &str) -> Option<String> {
    let (_, number) = parse_segment(name)?;
    let first = scan(server.files.get(name)?, number)?.first?;
    let before = tree.node(tree.find(first)?).parent?;
    Some(segment_name(
        tree.node(before).timeline,
        number.checked_sub(1)?,
    ))
}
