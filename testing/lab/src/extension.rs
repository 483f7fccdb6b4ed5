//! Walden's views in a server: as users make them where a server can be told where extensions lie, else by the script alone.

use std::fs;

use anyhow::Result;

use crate::{Cluster, Lab};

const CONTROL: &str = include_str!("../../../crates/server/extension/walden.control");
const SCRIPT: &str = include_str!("../../../crates/server/extension/walden--0.1.0.sql");

/// The first major with `extension_control_path`.
const WITH_CONTROL_PATH: u32 = 18;

impl Cluster<'_> {
    /// Makes the views of the extension `walden` in the database `postgres`.
    ///
    /// # Errors
    ///
    /// When the server refuses a statement.
    pub fn create_walden_views(&self, lab: &Lab) -> Result<()> {
        if lab.installation().major() < WITH_CONTROL_PATH {
            self.sql(&format!(
                "create schema walden; set search_path = walden, pg_catalog; {SCRIPT}"
            ))?;
            return Ok(());
        }
        let share = lab.dir().join("share");
        let files = share.join("extension");
        fs::create_dir_all(&files)?;
        fs::write(files.join("walden.control"), CONTROL)?;
        fs::write(files.join("walden--0.1.0.sql"), SCRIPT)?;
        let path = format!("{}:$system", share.display());
        self.reload(|settings| settings.set("extension_control_path", &path))?;
        self.wait_for_sql("show extension_control_path", &path)?;
        self.sql("create extension walden")?;
        Ok(())
    }
}
