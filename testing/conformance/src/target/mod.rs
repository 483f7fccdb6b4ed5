//! What a server and its administrator rely on when a base backup is sent to a target.

mod ended;
mod kept;
mod scene;
mod slow;
mod together;

use anyhow::{Result, ensure};
use lab::{Lab, Mark};

use self::scene::Scene;
use crate::promise::Promise;
use crate::subject::Subject;

/// All of them, by theme.
pub(crate) const PROMISES: &[&[Promise]] = &[
    kept::PROMISES,
    together::PROMISES,
    slow::PROMISES,
    ended::PROMISES,
];

/// Takes one backup. A target that takes none, or keeps it where it is not looked for, cannot be judged.
pub(crate) fn first_look(subject: &Subject, lab: &Lab) -> Result<()> {
    let scene = Scene::begin(subject, lab, "target-first-look")?;
    let outcome = scene.take()?;
    ensure!(
        outcome.status.success(),
        "the target \"{}\" takes no base backup: are its parameters given with --set, and is its name with --target? \
         pg_basebackup says: {}",
        subject.target()?.name,
        outcome.stderr.trim()
    );
    // Whether it is whole is for the promises to say.
    ensure!(
        !matches!(scene.find(), Ok(None)),
        "cannot judge the target \"{}\": no base backup is found in the archive's directory; say with --unpack-command how \
         the last one is unpacked",
        subject.target()?.name
    );
    ensure!(
        scene
            .server
            .logged(Mark::default(), &["was terminated by signal"])?
            .is_empty(),
        "the server crashed over the first base backup"
    );
    Ok(())
}
