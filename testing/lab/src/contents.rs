//! What a database holds: row count and checksum of every user table.
//!
//! Guarantees that two databases compare equal exactly when every table has the same rows, whatever
//! their physical order. Leaves out sequences, large objects and everything outside tables.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::cluster::Cluster;

/// Row count and checksum of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableContents {
    /// Number of rows.
    pub rows: u64,
    /// MD5 over the rows as text, ordered bytewise.
    pub checksum: String,
}

/// The contents of all user tables of one database, by qualified name.
pub type Contents = BTreeMap<String, TableContents>;

/// A query for each table, run by psql's `\gexec`.
const QUERY: &str = r#"
select format('select %L, count(*),
                      md5(coalesce(string_agg(t::text, E''\n'' order by t::text collate "C"), ''''))
               from %I.%I t', schemaname || '.' || tablename, schemaname, tablename)
from pg_tables where schemaname not in ('pg_catalog', 'information_schema') order by 1 \gexec
"#;

/// Reads the contents of the database that `sql` asks: it runs a text through psql (`-A -t`), and answers with its output.
///
/// # Errors
///
/// When the server cannot be asked.
pub fn contents_through(sql: impl FnOnce(&str) -> Result<String>) -> Result<Contents> {
    let mut contents = Contents::new();
    for line in sql(QUERY)?.lines() {
        let mut fields = line.split('|');
        let mut next = || {
            fields
                .next()
                .with_context(|| format!("unexpected answer {line:?}"))
        };
        let (name, rows, checksum) = (next()?.to_owned(), next()?.parse()?, next()?.to_owned());
        contents.insert(name, TableContents { rows, checksum });
    }
    Ok(contents)
}

impl Cluster<'_> {
    /// Reads the contents of the database `postgres`.
    ///
    /// # Errors
    ///
    /// When the server cannot be asked.
    pub fn contents(&self) -> Result<Contents> {
        contents_through(|text| self.sql(text))
    }
}
