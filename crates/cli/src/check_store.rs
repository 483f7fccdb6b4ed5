//! What `walden check` finds out about an object store, by trying.
//!
//! Guarantees: what is tried is removed again, and nothing that an archive holds is touched. Left to others: the trying
//! itself (`archive`), and what is the same for a directory (`check.rs`).

use std::time::Duration;

use archive::{Address, CloudStore, Error, Probed};

use crate::check_line::Line;
use crate::progress::Progress;

/// Stores refuse requests whose time is a quarter of an hour off; a tenth of that is worth a look.
const SKEW_MAX: Duration = Duration::from_secs(90);

/// A segment costs at least one round trip; beyond this, files are archived one after the other too slowly.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(250);

/// Tries the store at this address.
pub(crate) fn check(address: &Address, lines: &mut Vec<Line>, progress: &Progress) {
    let mut told = |what| progress.doing(format!("trying the store: {what}"));
    let probed = match CloudStore::probe(address, archive::spawn_plainly, &mut told) {
        Ok(probed) => probed,
        Err(error) => {
            lines.push(Line::error(
                &error,
                "Correct the location or the credentials.",
            ));
            return;
        }
    };
    lines.push(creation(address, &probed));
    let all_ok = |what: &str, outcome: &Result<(), Error>, cure: &str| match outcome {
        Ok(()) => Line::passed(what),
        Err(error) => Line::error(error, cure),
    };
    lines.push(all_ok(
        "stored objects are listed at once, page after page",
        &probed.listing,
        "Let the credentials list the bucket; if they may, use a store whose listings can be relied on.",
    ));
    lines.push(all_ok(
        "large files are stored in parts, and only if they are absent",
        &probed.parts,
        "Let the credentials upload in parts, copy and remove objects.",
    ));
    lines.push(match &probed.round_trip {
        Ok(took) if *took <= ROUND_TRIP_MAX => {
            Line::passed(format!("a small request takes {} ms", took.as_millis()))
        }
        Ok(took) => Line::warning(
            format!("a small request takes {} ms", took.as_millis()),
            "Use a store that is nearer, or raise walden.archive_jobs and walden.restore_prefetch.",
        ),
        Err(error) => Line::error(error, "Correct the network."),
    });
    lines.push(match &probed.skew {
        Ok((skew, _)) if *skew <= SKEW_MAX => {
            Line::passed("the clocks of the store and of this machine agree")
        }
        Ok((skew, is_ahead)) => {
            let direction = if *is_ahead { "ahead of" } else { "behind" };
            Line::warning(
                format!("the store's clock is {} s {direction} this machine's", skew.as_secs()),
                "Correct the clock of this machine: stores refuse requests that are 15 minutes off.",
            )
        }
        Err(error) => Line::error(error, "Let the credentials read objects."),
    });
}

fn creation(address: &Address, probed: &Probed) -> Line {
    let chosen = address.options.unsafe_overwrite == Some(true);
    match &probed.creation {
        Ok(()) if chosen => Line::warning(
            "objects are created only if they are absent, and yet \"unsafe_overwrite\" is set",
            "Remove unsafe_overwrite=true from the location.",
        ),
        Ok(()) => Line::passed(
            "objects are created only if they are absent, even by eight writers at once",
        ),
        Err(error) if chosen => Line::warning(
            error.to_string(),
            "Make sure that nothing else ever writes there; better, use a store with conditional writes.",
        ),
        Err(error) => Line::error(error, "Let the credentials write and remove objects."),
    }
}
