//! What is known of a file, in few bytes: all of a million segments is in memory at once.
//!
//! Guarantees that what is taken out is what was put in. What nearly all segments have in common takes no room: what can be told
//! from the name, the listing, or what was written before. What few segments have is a JSON document. Where the bytes are is left
//! to `entries`.

use serde::{Deserialize, Serialize};
use wal::{Lsn, SegmentName, SegmentSize, SystemIdentifier, TimelineId, Timestamp, WalFileName};

use crate::facts::{
    BackupEnd, Beginning, End, Ends, Follower, Noted, Over, RestorePoint, SegmentFacts,
    TransactionEnd,
};
use crate::index::What;
use crate::inventory::{Listing, Stamp};
use crate::text;

/// Among what facts are read and written.
pub(crate) struct Around<'a> {
    /// All files.
    pub(crate) listing: &'a Listing,
    /// Whose most segments are.
    pub(crate) system: SystemIdentifier,
    /// The file.
    pub(crate) file: WalFileName,
    /// How it is stored.
    pub(crate) stamp: Stamp,
}

/// What the first number says.
const TEXT: u64 = 0;
const UNREADABLE: u64 = 1;
const UNFIT: u64 = 2;
const SEGMENT: u64 = 3;

/// What the second one says of a segment.
const HAS_FINDINGS: u64 = 1;
const GOES_THROUGH: u64 = 2;
/// It is followed by the next one, as the listing has it.
const IS_FOLLOWED: u64 = 4;
const HAS_REST: u64 = 8;

/// What few segments have.
#[derive(Default, PartialEq, Serialize, Deserialize)]
struct Rest {
    following: Vec<Follower>,
    #[serde(with = "text::maybe_lsn")]
    switchpoint: Option<Lsn>,
    trail: Option<u64>,
    restore_points: Vec<RestorePoint>,
    beginnings: Vec<Beginning>,
    backup_ends: Vec<BackupEnd>,
    left_out: u64,
}

/// What numbers are told from: the last of their kind.
struct Last {
    lsn: Lsn,
    at: Timestamp,
    xid: u32,
}

impl Around<'_> {
    /// Writes what is known; false if it cannot be of this file.
    pub(crate) fn pack(&self, what: &What, to: &mut Vec<u8>) -> bool {
        let mut numbers = Writer(to);
        let (tag, text) = match what {
            What::Segment(facts) => return self.pack_facts(facts, &mut numbers),
            What::Text(text) => (TEXT, text),
            What::Unreadable(why) => (UNREADABLE, why),
            What::Unfit(why) => (UNFIT, why),
        };
        numbers.number(tag);
        numbers.bytes(text.as_bytes());
        true
    }

    /// Reads what was written.
    pub(crate) fn unpack(&self, from: &[u8]) -> Option<What> {
        let mut numbers = Reader(from);
        let kind = match numbers.number()? {
            SEGMENT => return Some(What::Segment(Box::new(self.unpack_facts(&mut numbers)?))),
            TEXT => What::Text,
            UNREADABLE => What::Unreadable,
            _ => What::Unfit,
        };
        let text = numbers.bytes()?;
        Some(kind(String::from_utf8_lossy(text).into_owned()))
    }

    fn start(&self) -> Last {
        Last {
            lsn: Lsn(0),
            at: self.stamp.timestamp(),
            xid: 0,
        }
    }

    /// The segment that follows on the timeline, as it is listed.
    fn next(&self, name: &SegmentName, size: SegmentSize) -> Option<(WalFileName, Option<Stamp>)> {
        let next = WalFileName::Segment(name.next(size)?);
        Some((next, self.listing.get(&next).copied()))
    }

    fn pack_facts(&self, facts: &SegmentFacts, to: &mut Writer<'_>) -> bool {
        let Some(size) = facts.size() else {
            return false;
        };
        let is_of_file = self.file.segment() == Some(&facts.name);
        if !is_of_file || facts.name.start(size) != Some(facts.start) {
            return false;
        }
        let next = self.next(&facts.name, size);
        let is_next = |it: &&Follower| {
            let is_simple = it.over.as_ref().is_none_or(Over::is_simple);
            is_simple && it.problem.is_none() && next == Some((it.file, it.stamp))
        };
        let follower = match facts.following.as_slice() {
            [one] => Some(one).filter(is_next),
            _ => None,
        };
        let others = follower.is_none().then(|| facts.following.clone());
        let rest = Rest {
            following: others.unwrap_or_default(),
            switchpoint: facts.switchpoint,
            trail: facts.trail,
            restore_points: facts.restore_points.clone(),
            beginnings: facts.beginnings.clone(),
            backup_ends: facts.backup_ends.clone(),
            left_out: facts.left_out,
        };
        let document = if rest == Rest::default() {
            None
        } else {
            serde_json::to_vec(&rest).ok()
        };
        let flags = [
            (facts.has_findings, HAS_FINDINGS),
            (facts.goes_through, GOES_THROUGH),
            (follower.is_some(), IS_FOLLOWED),
            (document.is_some(), HAS_REST),
        ];
        let flags = flags.iter().filter(|(is_set, _)| *is_set);
        to.number(SEGMENT);
        to.number(flags.fold(0, |all, (_, flag)| all | flag));
        to.number(u64::from(size.bytes().trailing_zeros()));
        to.from(facts.system.0, self.system.0);
        to.from(
            facts.first_timeline.get().into(),
            facts.name.timeline().get().into(),
        );
        let mut last = self.start();
        last.lsn = facts.start;
        to.maybe(facts.last.map(|lsn| (lsn.0, last.lsn.0)));
        let (tag, lsn) = match facts.end {
            End::Full => (0, facts.start),
            End::Switched(lsn) => (1, lsn),
            End::Ended(lsn) => (2, lsn),
        };
        to.number(tag);
        to.from(lsn.0, facts.start.0);
        if let Some(follower) = follower {
            to.over(follower.over.as_ref(), facts.behind(), &mut last);
            last.lsn = facts.start;
        }
        to.ends(&facts.ends, &mut last);
        for at in [facts.first_checkpoint, facts.last_checkpoint] {
            to.time(at, &mut last);
        }
        if let Some(document) = document {
            to.bytes(&document);
        }
        true
    }

    fn unpack_facts(&self, from: &mut Reader<'_>) -> Option<SegmentFacts> {
        let flags = from.number()?;
        let has = |flag: u64| flags & flag != 0;
        let size =
            SegmentSize::new(1_u64.checked_shl(u32::try_from(from.number()?).ok()?)?).ok()?;
        let name = *self.file.segment()?;
        let start = name.start(size)?;
        let system = SystemIdentifier(from.from(self.system.0)?);
        let first_timeline = from.from(name.timeline().get().into())?;
        let mut facts = SegmentFacts {
            stamp: self.stamp,
            has_findings: has(HAS_FINDINGS),
            goes_through: has(GOES_THROUGH),
            first_timeline: TimelineId::new(u32::try_from(first_timeline).ok()?)?,
            ..SegmentFacts::of(name, system, start, size)
        };
        let mut last = self.start();
        last.lsn = start;
        facts.last = from.maybe(start.0)?.map(Lsn);
        let tag = from.number()?;
        let lsn = Lsn(from.from(start.0)?);
        facts.end = match tag {
            0 => End::Full,
            1 => End::Switched(lsn),
            _ => End::Ended(lsn),
        };
        if has(IS_FOLLOWED) {
            let (file, stamp) = self.next(&name, size)?;
            let over = from.over(facts.behind(), &mut last)?;
            last.lsn = start;
            facts.following = vec![Follower {
                file,
                stamp,
                problem: None,
                over,
            }];
        }
        facts.ends = from.ends(&mut last)?;
        facts.first_checkpoint = from.time(&mut last)?;
        facts.last_checkpoint = from.time(&mut last)?;
        if has(HAS_REST) {
            let rest: Rest = serde_json::from_slice(from.bytes()?).ok()?;
            if !has(IS_FOLLOWED) {
                facts.following = rest.following;
            }
            facts.switchpoint = rest.switchpoint;
            facts.trail = rest.trail;
            facts.restore_points = rest.restore_points;
            facts.beginnings = rest.beginnings;
            facts.backup_ends = rest.backup_ends;
            facts.left_out = rest.left_out;
        }
        Some(facts)
    }
}

impl Over {
    /// Whether it is written without a document.
    fn is_simple(&self) -> bool {
        matches!(self.noted.as_deref(), None | Some(Noted::Transaction(_)))
    }
}

/// Writes numbers, small ones in few bytes.
struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    fn number(&mut self, number: u64) {
        let mut left = number;
        while left >= 0x80 {
            self.0.push(left.to_le_bytes()[0] | 0x80);
            left >>= 7;
        }
        self.0.push(left.to_le_bytes()[0]);
    }

    /// A number near another one.
    fn from(&mut self, number: u64, near: u64) {
        let difference = number.wrapping_sub(near).cast_signed();
        self.number(((difference << 1) ^ (difference >> 63)).cast_unsigned());
    }

    /// A number and one that it is near to, if there is one.
    fn maybe(&mut self, number: Option<(u64, u64)>) {
        self.number(number.is_some().into());
        if let Some((number, near)) = number {
            self.from(number, near);
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn time(&mut self, at: Option<Timestamp>, last: &mut Last) {
        self.maybe(at.map(|at| (at.0.cast_unsigned(), last.at.0.cast_unsigned())));
        last.at = at.unwrap_or(last.at);
    }

    fn transaction(&mut self, end: Option<&TransactionEnd>, last: &mut Last) {
        self.number(end.map_or(0, |end| 1 + u64::from(end.is_commit)));
        let Some(end) = end else {
            return;
        };
        self.from(end.lsn.0, last.lsn.0);
        self.from(end.end.0, end.lsn.0);
        self.from(end.at.0.cast_unsigned(), last.at.0.cast_unsigned());
        self.maybe(end.xid.map(|xid| (xid.into(), last.xid.into())));
        last.note(end);
    }

    fn over(&mut self, over: Option<&Over>, behind: Lsn, last: &mut Last) {
        self.number(over.is_some().into());
        let Some(over) = over else {
            return;
        };
        self.from(over.lsn.0, behind.0);
        self.from(over.end.0, behind.0);
        let end = match over.noted.as_deref() {
            Some(Noted::Transaction(end)) => Some(end),
            _ => None,
        };
        self.transaction(end, last);
    }

    fn ends(&mut self, ends: &Ends, last: &mut Last) {
        self.number(ends.commits);
        self.number(ends.aborts);
        for end in [&ends.first, &ends.last, &ends.last_commit] {
            self.transaction(end.as_ref(), last);
        }
        self.time(ends.earliest, last);
        self.time(ends.latest, last);
        let xid = u64::from(last.xid);
        self.maybe(ends.xids.map(|(low, _)| (low.into(), xid)));
        self.maybe(ends.xids.map(|(_, high)| (high.into(), xid)));
    }
}

/// Reads what a [`Writer`] has written.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u64> {
        let (mut number, mut shift) = (0, 0);
        loop {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7F).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
            shift += 7;
        }
    }

    fn from(&mut self, near: u64) -> Option<u64> {
        let number = self.number()?;
        let difference = (number >> 1).cast_signed() ^ -(number & 1).cast_signed();
        Some(near.wrapping_add(difference.cast_unsigned()))
    }

    fn maybe(&mut self, near: u64) -> Option<Option<u64>> {
        match self.number()? {
            0 => Some(None),
            _ => Some(Some(self.from(near)?)),
        }
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn time(&mut self, last: &mut Last) -> Option<Option<Timestamp>> {
        let at = self.maybe(last.at.0.cast_unsigned())?;
        let at = at.map(|at| Timestamp(at.cast_signed()));
        last.at = at.unwrap_or(last.at);
        Some(at)
    }

    fn transaction(&mut self, last: &mut Last) -> Option<Option<TransactionEnd>> {
        let tag = self.number()?;
        if tag == 0 {
            return Some(None);
        }
        let lsn = Lsn(self.from(last.lsn.0)?);
        let end = TransactionEnd {
            lsn,
            end: Lsn(self.from(lsn.0)?),
            at: Timestamp(self.from(last.at.0.cast_unsigned())?.cast_signed()),
            xid: self.xid(last)?,
            is_commit: tag == 2,
        };
        last.note(&end);
        Some(Some(end))
    }

    fn xid(&mut self, last: &Last) -> Option<Option<u32>> {
        match self.maybe(last.xid.into())? {
            Some(xid) => Some(Some(u32::try_from(xid).ok()?)),
            None => Some(None),
        }
    }

    fn over(&mut self, behind: Lsn, last: &mut Last) -> Option<Option<Over>> {
        if self.number()? == 0 {
            return Some(None);
        }
        let lsn = Lsn(self.from(behind.0)?);
        let end = Lsn(self.from(behind.0)?);
        let noted = self.transaction(last)?.map(Noted::Transaction);
        let noted = noted.map(Box::new);
        Some(Some(Over { lsn, end, noted }))
    }

    fn ends(&mut self, last: &mut Last) -> Option<Ends> {
        let (commits, aborts) = (self.number()?, self.number()?);
        let first = self.transaction(last)?;
        let last_end = self.transaction(last)?;
        let last_commit = self.transaction(last)?;
        let (earliest, latest) = (self.time(last)?, self.time(last)?);
        let (low, high) = (self.xid(last)?, self.xid(last)?);
        Some(Ends {
            commits,
            aborts,
            first,
            last: last_end,
            last_commit,
            earliest,
            latest,
            xids: low.zip(high),
        })
    }
}

impl Last {
    fn note(&mut self, end: &TransactionEnd) {
        (self.lsn, self.at) = (end.lsn, end.at);
        self.xid = end.xid.unwrap_or(self.xid);
    }
}
