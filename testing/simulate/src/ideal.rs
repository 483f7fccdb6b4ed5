//! A module that answers by the oracle's own rules: with it nothing may be found wrong, or the simulation itself is.

use crate::life::{Server, Signal};
use crate::oracle::{self, Proof};
use crate::restores::{Module, Offer, Refusal, Settings, Shelf, Storage};
use crate::startup::{Answer, Ask, Role};
use crate::timelines::parse_segment;

/// As the rules have it.
#[derive(Debug, Default)]
pub struct Ideal;

impl Module for Ideal {
    fn begin(&mut self, _: Settings) {}

    fn restore(&mut self, shelf: &Shelf, server: &mut Server, ask: &Ask) -> Answer {
        let is_standby = server.signal == Signal::Standby;
        if shelf.storage() != Storage::Sound {
            return match server.signal {
                Signal::None => Answer::Absent,
                _ => Answer::Unsure("the archive is away".to_owned()),
            };
        }
        if let Some(kept) = shelf.kept.get(&ask.name) {
            if !kept.is_sound {
                return Answer::Unsure("it is damaged".to_owned());
            }
            let line = ask.line.clone().unwrap_or_default();
            let beyond = parse_segment(&ask.name).is_some_and(|(timeline, number)| {
                oracle::is_beyond_fork(&kept.contents, &line, timeline, number)
            });
            return match beyond {
                true if is_standby => Answer::Absent,
                true => Answer::Unsure("it goes on behind the fork".to_owned()),
                false => match oracle::reason_for_doubt(shelf, server, ask) {
                    Proof::None => Answer::Restored(kept.contents.to_vec()),
                    Proof::Sure(why) | Proof::Maybe(why) if is_standby => {
                        drop(why);
                        Answer::Restored(kept.contents.to_vec())
                    }
                    Proof::Sure(why) | Proof::Maybe(why) => Answer::Unsure(why),
                },
            };
        }
        let may_end = ask.is_finishing && ask.role == Role::Segment;
        match oracle::absence(shelf, server, ask) {
            _ if may_end || (is_standby && ask.role == Role::Segment) => Answer::Absent,
            Proof::Sure(why) => Answer::Unsure(why),
            Proof::Maybe(_) | Proof::None => Answer::Absent,
        }
    }

    fn archive(
        &mut self,
        shelf: &Shelf,
        server: &mut Server,
        offer: &Offer,
    ) -> Result<(), Refusal> {
        let name = offer.name.as_str();
        if shelf.storage() != Storage::Sound {
            return Err(Refusal::away());
        }
        let contents = server
            .contents(name)
            .ok_or_else(|| Refusal::for_good("the file is gone"))?;
        match shelf.raw(name) {
            Some(bytes) if bytes == *contents => return Ok(()),
            Some(_) => {
                return Err(Refusal::for_good(format!(
                    "\"{name}\" is there with other bytes"
                )));
            }
            None => {}
        }
        if let Some(violation) = oracle::judge_archived(shelf, server, offer) {
            return Err(Refusal::for_good(violation.text));
        }
        if let Some((_, number)) = parse_segment(name) {
            match oracle::scan(&contents, number) {
                Some(scan) if scan.reaches_end => {}
                // A standby that archives everything offers what it has received of a timeline's last segment.
                _ => return Err(Refusal::for_good("WAL ends in it")),
            }
        }
        shelf.store.overwrite(name, &contents);
        Ok(())
    }

    fn clean_up(&mut self, shelf: &Shelf, server: &mut Server, keep: &str) {
        if server.signal != Signal::Recovery && shelf.storage() == Storage::Sound {
            remove_before(shelf, keep);
        }
    }
}

/// What `pg_archivecleanup` removes.
pub fn remove_before(shelf: &Shelf, keep: &str) {
    let Some((_, number)) = parse_segment(keep) else {
        return;
    };
    for key in shelf.keys("") {
        let name = key.strip_suffix(".partial").unwrap_or(&key);
        let is_before = parse_segment(name).is_some_and(|(_, own)| own < number);
        if is_before {
            drop(archive::Store::remove(&shelf.store, &key));
        }
    }
}
