//! A server's configuration, as the whole text of its `postgresql.conf`.
//!
//! Guarantees that what is not set here has the server's own default. Leaves validation to the server.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Parameters and their values.
#[derive(Clone, Debug, Default)]
pub struct Settings(BTreeMap<String, String>);

impl Settings {
    /// What every server of the tests runs with: reachable through a socket only, small, and without
    /// syncing its own data (the archive is synced by Walden whatever the server does).
    #[must_use]
    pub(crate) fn base(library_dir: &Path) -> Settings {
        let mut settings = Settings::default();
        for (name, value) in [
            ("listen_addresses", ""),
            ("fsync", "off"),
            ("autovacuum", "off"),
            ("shared_buffers", "16MB"),
            ("max_connections", "20"),
            ("max_wal_senders", "4"),
            ("wal_level", "replica"),
            // At least twice the largest segment size that a test uses.
            ("min_wal_size", "128MB"),
            ("wal_retrieve_retry_interval", "100ms"),
            ("log_line_prefix", crate::log::LINE_PREFIX),
            ("log_timezone", "UTC"),
            ("timezone", "UTC"),
            ("lc_messages", "C"),
        ] {
            settings.set(name, value);
        }
        settings.set(
            "dynamic_library_path",
            &format!("{}:$libdir", library_dir.display()),
        );
        settings
    }

    /// Sets a parameter; the value is given without quotes.
    pub fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    /// The same settings with one more.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Settings {
        self.set(name, value);
        self
    }

    /// The same settings without one.
    #[must_use]
    pub fn without(mut self, name: &str) -> Settings {
        self.remove(name);
        self
    }

    /// Takes a parameter back to the server's default.
    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// The value of a parameter set here.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The text of a configuration file; within quotes a quote is doubled.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.0 {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{name} = '{}'",
                value.replace('\\', "\\\\").replace('\'', "''")
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_in_values_survive_the_configuration_file() {
        let settings = Settings::default().with("restore_command", r#"cp '\a' "%p""#);
        assert_eq!(
            settings.render(),
            "restore_command = 'cp ''\\\\a'' \"%p\"'\n"
        );
    }
}
