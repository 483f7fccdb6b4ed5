//! A server that writes WAL of every kind that can be asked of it.

use std::path::Path;

use anyhow::Result;
use lab::{Cluster, Lab, Settings};

/// Settings of a server that copies each finished segment to a directory.
pub(crate) fn settings(lab: &Lab, into: &Path) -> Settings {
    lab.settings()
        .with("wal_level", "logical")
        .with("max_prepared_transactions", "10")
        .with("shared_buffers", "128MB")
        .with("max_wal_size", "512MB")
        .with("checkpoint_timeout", "30s")
        .with("track_commit_timestamp", "on")
        .with("autovacuum", "on")
        .with("archive_mode", "on")
        .with("archive_command", &format!("cp %p {}/%f", into.display()))
}

/// Definitions, indexes of every kind, locks, subtransactions, two-phase commits, restore points.
const KINDS: &[&str] = &[
    "create table kinds (id int primary key, t text, r int4range, p point, a int[])",
    "insert into kinds select i, md5(i::text), int4range(i, i + 5), point(i, -i), array[i, i % 7] \
     from generate_series(1, 20000) i",
    "create index on kinds using hash (t)",
    "create index on kinds using gin (a)",
    "create index on kinds using gist (r)",
    "create index on kinds using spgist (p)",
    "create index on kinds using brin (id)",
    "insert into kinds select i, md5(i::text), int4range(i, i + 5), point(i, -i), array[i, i % 7] \
     from generate_series(20001, 30000) i",
    "update kinds set t = t || 'x', a = a || 4 where id % 3 = 0",
    "delete from kinds where id % 5 = 0",
    "vacuum kinds",
    "create sequence numbers",
    "select nextval('numbers') from generate_series(1, 100)",
    "alter table kinds add column later int default 5",
    "create materialized view seen as select id, t from kinds",
    "refresh materialized view seen",
    "create database another",
    "drop database another",
    "create role somebody",
    "grant select on kinds to somebody",
    "comment on table kinds is 'all of them'",
    "begin; insert into kinds values (-1); savepoint one; insert into kinds values (-2); rollback to one; \
     insert into kinds values (-3); prepare transaction 'first'",
    "commit prepared 'first'",
    "begin; create table never (i int); insert into kinds values (-4); prepare transaction 'second'",
    "rollback prepared 'second'",
    "begin; insert into kinds values (-5); rollback",
    "do $$ begin for i in 1 .. 200 loop begin insert into kinds values (-1000 - i); \
     exception when unique_violation then null; end; \
     end loop; end $$",
    "begin; select * from kinds where id = 1 for key share; savepoint one; \
     select * from kinds where id = 1 for update; commit",
    "select pg_create_restore_point('between two things')",
    "select pg_logical_emit_message(false, 'short', 'not in a transaction')",
    "select pg_logical_emit_message(true, 'short', 'in a transaction')",
    "truncate seen_too",
    "vacuum full kinds",
    "reindex table kinds",
    "drop materialized view seen",
    "checkpoint",
];

/// Everything once, and pgbench's transactions in between; `messages_mb` megabytes come in long records.
pub(crate) fn write(
    cluster: &Cluster,
    scale: u32,
    transactions: u32,
    messages_mb: u32,
) -> Result<()> {
    cluster.sql("create table seen_too (i int)")?;
    cluster.pgbench(&["-i", "-q", "-s", &scale.to_string()])?;
    for statement in KINDS {
        cluster.sql(statement)?;
    }
    for compression in ["off", "pglz", "on"] {
        cluster.reload(|settings| settings.set("wal_compression", compression))?;
        cluster.sql("checkpoint")?;
        cluster.pgbench(&["-c", "4", "-t", &transactions.to_string()])?;
    }
    // Long records: of a third of a segment, of a segment, and of several.
    let mut left = messages_mb;
    for megabytes in [1, 5, 17, 40].into_iter().cycle() {
        if left == 0 {
            break;
        }
        let now = left.min(megabytes);
        cluster.sql(&format!(
            "select pg_logical_emit_message(true, 'long', repeat(md5('{left}'), {now} * 32768))"
        ))?;
        left -= now;
    }
    for i in 0..20 {
        cluster.sql(&format!("insert into kinds values (-100000 - {i})"))?;
        cluster.switch_segment()?;
    }
    Ok(())
}
