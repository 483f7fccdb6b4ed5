//! The window: which segments are fetched ahead, are under way, or are next in turn.
//!
//! Guarantees: a segment is in it once; segments are fetched in the order in which recovery will ask for them; what
//! is dropped while it is under way is cancelled, and its late result has no place to go. No threads, no I/O.
//! Left to others: which segments these are, fetching them, and how many at once.

use std::collections::VecDeque;

use wal::SegmentName;

use crate::cancel::Cancel;

/// Names one fetch, so that a late result is not taken for that of a later one.
pub(super) type FetchId = u64;

/// The window. `T` is a fetched segment.
#[derive(Debug)]
pub(super) struct Window<T> {
    slots: VecDeque<Slot<T>>,
    /// The segment that recovery is waiting for, when it asked before the fetch had ended.
    awaited: Option<Slot<T>>,
    fetches: FetchId,
    /// Fetched segments that have not been asked for.
    unused: u64,
}

#[derive(Debug)]
struct Slot<T> {
    name: SegmentName,
    stage: Stage<T>,
}

#[derive(Debug)]
enum Stage<T> {
    InTurn,
    UnderWay(FetchId, Cancel),
    Ready(T),
}

/// What the window has of a segment that is asked for. Either way the segment leaves the window.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken<T> {
    Ready(T),
    UnderWay(FetchId),
    NotThere,
}

/// What became of a segment that recovery waits for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Awaited<T> {
    Ready(T),
    UnderWay,
    /// The fetch has failed, or has not found it. Nothing follows from that: it has to be asked for anew.
    Lost,
}

/// Result of a fetch.
#[derive(Debug)]
pub(super) enum Ended<T> {
    Fetched(T),
    NotFound,
    Failed,
}

impl<T> Default for Window<T> {
    fn default() -> Window<T> {
        Window {
            slots: VecDeque::new(),
            awaited: None,
            fetches: 0,
            unused: 0,
        }
    }
}

impl<T> Slot<T> {
    fn id(&self) -> Option<FetchId> {
        match &self.stage {
            Stage::UnderWay(id, _) => Some(*id),
            _ => None,
        }
    }

    /// Drops it; true if it had been fetched for nothing.
    fn discard(self) -> bool {
        match self.stage {
            Stage::InTurn => false,
            Stage::UnderWay(_, cancel) => {
                cancel.cancel();
                false
            }
            Stage::Ready(_) => true,
        }
    }
}

impl<T> Window<T> {
    /// Recovery asks for this segment.
    pub(super) fn take(&mut self, name: SegmentName) -> Taken<T> {
        self.give_up();
        let found = self.slots.iter().position(|slot| slot.name == name);
        let Some(slot) = found.and_then(|at| self.slots.remove(at)) else {
            return Taken::NotThere;
        };
        match slot.stage {
            Stage::Ready(fetched) => Taken::Ready(fetched),
            // Asked for now, so it is no longer its turn only.
            Stage::InTurn => Taken::NotThere,
            Stage::UnderWay(id, _) => {
                self.awaited = Some(slot);
                Taken::UnderWay(id)
            }
        }
    }

    /// How the fetch stands that [`Window::take`] said was under way.
    pub(super) fn awaited(&mut self, id: FetchId) -> Awaited<T> {
        match self.awaited.take() {
            Some(slot) if slot.id() == Some(id) => {
                self.awaited = Some(slot);
                Awaited::UnderWay
            }
            Some(Slot {
                stage: Stage::Ready(fetched),
                ..
            }) => Awaited::Ready(fetched),
            _ => Awaited::Lost,
        }
    }

    /// What is under way and not waited for stands still, or goes on again.
    pub(super) fn hold_others(&self, held: bool) {
        for slot in &self.slots {
            if let Stage::UnderWay(_, cancel) = &slot.stage {
                cancel.hold(held);
            }
        }
    }

    /// Notes that no request waits any more.
    pub(super) fn give_up(&mut self) {
        if let Some(slot) = self.awaited.take() {
            self.unused += u64::from(slot.discard());
        }
    }

    /// Recovery has come to this place: nothing before it will be asked for.
    pub(super) fn drop_behind(&mut self, reached: SegmentName) {
        self.retain(|name| name.position() >= reached.position());
    }

    /// From now on the first `depth` of these, in this order. What has been begun of the others stays too, for its
    /// turn will come; whatever else there is goes.
    pub(super) fn slide_to(&mut self, line: &[SegmentName], depth: usize) {
        self.retain(|name| line.contains(&name));
        let mut kept = std::mem::take(&mut self.slots);
        for (number, name) in line.iter().enumerate() {
            let found = kept.iter().position(|slot| slot.name == *name);
            let slot = found.and_then(|at| kept.remove(at));
            let begun = slot.filter(|slot| !matches!(slot.stage, Stage::InTurn));
            let in_turn = || Slot {
                name: *name,
                stage: Stage::InTurn,
            };
            self.slots
                .extend(begun.or_else(|| (number < depth).then(in_turn)));
        }
    }

    /// Drops all segments of the window.
    pub(super) fn clear(&mut self) {
        self.give_up();
        self.retain(|_| false);
    }

    /// The next segment to fetch, which is under way from now on.
    pub(super) fn begin(&mut self) -> Option<(FetchId, SegmentName, Cancel)> {
        let slot = self
            .slots
            .iter_mut()
            .find(|slot| matches!(slot.stage, Stage::InTurn))?;
        self.fetches += 1;
        let cancel = Cancel::new();
        slot.stage = Stage::UnderWay(self.fetches, cancel.clone());
        Some((self.fetches, slot.name, cancel))
    }

    /// A fetch has ended. True if recovery waits for it.
    pub(super) fn end(&mut self, id: FetchId, ended: Ended<T>) -> bool {
        if let Some(slot) = self.awaited.as_mut().filter(|slot| slot.id() == Some(id)) {
            match ended {
                Ended::Fetched(fetched) => slot.stage = Stage::Ready(fetched),
                Ended::NotFound | Ended::Failed => self.awaited = None,
            }
            return true;
        }
        let Some(at) = self.slots.iter().position(|slot| slot.id() == Some(id)) else {
            // Not wanted any more.
            self.unused += u64::from(matches!(ended, Ended::Fetched(_)));
            return false;
        };
        match ended {
            Ended::Fetched(fetched) => {
                if let Some(slot) = self.slots.get_mut(at) {
                    slot.stage = Stage::Ready(fetched);
                }
            }
            Ended::Failed => drop(self.slots.remove(at)),
            // Probably the end of what is archived: what is not under way yet is not begun.
            Ended::NotFound => {
                self.slots.remove(at);
                let mut number = 0;
                self.slots.retain(|slot| {
                    number += 1;
                    number <= at || !matches!(slot.stage, Stage::InTurn)
                });
            }
        }
        false
    }

    /// True if there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.awaited.is_none()
    }

    /// True if recovery waits for a segment of it.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited.is_some()
    }

    /// How many segments lie fetched.
    pub(super) fn ready(&self) -> usize {
        let ready = |slot: &&Slot<T>| matches!(slot.stage, Stage::Ready(_));
        self.slots.iter().filter(ready).count()
    }

    /// How many segments are next in turn.
    pub(super) fn in_turn(&self) -> usize {
        let in_turn = |slot: &&Slot<T>| matches!(slot.stage, Stage::InTurn);
        self.slots.iter().filter(in_turn).count()
    }

    /// How many fetched segments were dropped because they were not asked for.
    pub(super) fn unused(&self) -> u64 {
        self.unused
    }

    fn retain(&mut self, keep: impl Fn(SegmentName) -> bool) {
        for slot in std::mem::take(&mut self.slots) {
            if keep(slot.name) {
                self.slots.push_back(slot);
            } else {
                self.unused += u64::from(slot.discard());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u32) -> SegmentName {
        format!("0000000100000000{number:08X}").parse().unwrap()
    }

    fn names(numbers: impl IntoIterator<Item = u32>) -> Vec<SegmentName> {
        numbers.into_iter().map(name).collect()
    }

    /// A window over these segments, of which the first `begun` are under way.
    fn window(numbers: impl IntoIterator<Item = u32>, begun: usize) -> Window<u32> {
        let mut window = Window::default();
        window.slide_to(&names(numbers), usize::MAX);
        for _ in 0..begun {
            window.begin().unwrap();
        }
        window
    }

    #[test]
    fn segments_are_begun_in_the_order_they_will_be_asked_for_and_once() {
        let mut window = window(2..=4, 0);
        let begun: Vec<_> = std::iter::from_fn(|| window.begin())
            .map(|(_, name, _)| name)
            .collect();
        assert_eq!(begun, names(2..=4));
        window.slide_to(&names(3..=6), 4);
        assert_eq!(window.begin().map(|(_, name, _)| name), Some(name(5)));
    }

    #[test]
    fn what_is_ready_is_given_once_and_what_is_under_way_is_waited_for() {
        let mut window = window(2..=4, 2);
        assert!(!window.end(1, Ended::Fetched(2)));
        assert_eq!(window.take(name(2)), Taken::Ready(2));
        assert_eq!(window.take(name(2)), Taken::NotThere);
        assert_eq!(window.take(name(3)), Taken::UnderWay(2));
        assert_eq!(window.awaited(2), Awaited::UnderWay);
        assert!(window.end(2, Ended::Fetched(3)));
        assert_eq!(window.awaited(2), Awaited::Ready(3));
        // It was not begun: a request for it does not wait for its turn.
        assert_eq!(window.take(name(4)), Taken::NotThere);
        assert!(window.is_empty());
        assert_eq!(window.unused(), 0);
    }

    #[test]
    fn a_fetch_that_ended_without_the_file_answers_nobody() {
        for ended in [Ended::NotFound, Ended::Failed] {
            let mut window = window(2..=4, 2);
            assert_eq!(window.take(name(2)), Taken::UnderWay(1));
            assert!(window.end(1, ended));
            assert_eq!(window.awaited(1), Awaited::Lost);
            assert!(!window.end(2, Ended::Failed));
            assert_eq!(window.take(name(3)), Taken::NotThere);
        }
    }

    #[test]
    fn behind_a_segment_that_was_not_found_nothing_more_is_begun() {
        let mut window = window(2..=6, 3);
        assert!(!window.end(2, Ended::NotFound));
        assert!(window.begin().is_none());
        // Those that were begun may still be of use.
        window.end(1, Ended::Fetched(2));
        window.end(3, Ended::Fetched(4));
        assert_eq!(window.ready(), 2);
    }

    #[test]
    fn what_is_dropped_is_cancelled_and_its_late_result_goes_nowhere() {
        let mut window = window([], 0);
        window.slide_to(&names(2..=3), 2);
        let (second, _, cancel) = window.begin().unwrap();
        let (third, _, other) = window.begin().unwrap();
        window.drop_behind(name(3));
        assert!(cancel.is_cancelled() && !other.is_cancelled());
        assert!(!window.end(second, Ended::Fetched(2)));
        assert_eq!(window.take(name(2)), Taken::NotThere);
        assert_eq!(window.take(name(3)), Taken::UnderWay(third));
        window.give_up();
        assert!(other.is_cancelled());
        assert!(!window.end(third, Ended::Fetched(3)));
        assert!(window.is_empty());
        assert_eq!(window.unused(), 2);
    }

    #[test]
    fn a_window_that_becomes_shorter_keeps_what_was_begun() {
        let mut window = window(2..=7, 4);
        window.end(4, Ended::Fetched(5));
        window.slide_to(&names(3..=30), 1);
        assert_eq!(window.in_turn(), 0, "neither 6 nor 7 has been begun");
        assert_eq!(window.take(name(3)), Taken::UnderWay(2));
        assert_eq!(window.take(name(5)), Taken::Ready(5));
        assert_eq!(window.unused(), 0);
    }

    #[test]
    fn another_line_takes_the_place_of_the_old_one() {
        let mut window = window(2..=3, 1);
        window.end(1, Ended::Fetched(2));
        let there: SegmentName = "000000020000000000000003".parse().unwrap();
        window.slide_to(&[name(2), there], 2);
        assert_eq!(window.begin().map(|(_, name, _)| name), Some(there));
        assert_eq!(window.take(name(2)), Taken::Ready(2));
    }
}
