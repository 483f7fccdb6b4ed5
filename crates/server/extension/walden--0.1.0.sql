-- Views over what SHOW walden.status answers: pure SQL, no function of the library, no file, no request to the archive.
--
-- Members of pg_monitor see them (the parameter is shown to them alone). Times are timestamps with time zone, ages are
-- intervals, sizes are bytes, and what is not known is NULL.

-- As a message and not as an error where the library is not preloaded: the parameter is then not defined.
create view status as
select nullif(nullif(current_setting('walden.status', true), ''), 'null')::jsonb as document;
comment on view status is 'the whole document; NULL where the library is not preloaded';

create view archiver as
with read as (
    select document is not null as preloaded,
           nullif(document -> 'archiver', 'null') as a,
           clock_timestamp() as now,
           pg_size_bytes(current_setting('wal_segment_size')) as segment_bytes,
           case when not pg_is_in_recovery() then pg_current_wal_flush_lsn() end as flushed
    from status
), pending as (
    select read.*,
           nullif(a -> 'pending', 'null') as p,
           to_timestamp((a -> 'pending' ->> 'counted_at')::float8) as counted_at,
           a -> 'unarchived' ->> 'first_segment' as first_open,
           coalesce((a ->> 'live')::bool, false) as live
    from read
), through as (
    select pending.*,
           case
               when live and first_open ~ '^[0-9A-F]{24}$'
                   and now - to_timestamp((a -> 'unarchived' ->> 'looked_at')::float8) < interval '10 s' then
                   '0/0'::pg_lsn
                   + ('x' || substr(first_open, 9, 8))::bit(32)::bigint::numeric * 4294967296
                   + ('x' || substr(first_open, 17, 8))::bit(32)::bigint::numeric * segment_bytes
           end as archived_through
    from pending
)
select case
           when not preloaded then 'not preloaded'
           when a is null then 'no archiver'
           when not live then 'stale'
           when (a -> 'call' ->> 'lasts')::float8 > (a -> 'call' ->> 'may_last')::float8 then 'hanging'
           when a ->> 'failing_since' is not null then 'failing'
           when p is null or now - counted_at > interval '10 s' then 'unknown'
           when (p ->> 'files')::bigint > 0 then 'archiving'
           else 'idle'
       end as state,
       (p ->> 'files')::bigint as pending_files,
       (p ->> 'bytes')::bigint as pending_bytes,
       p ->> 'oldest' as oldest_pending_file,
       now - to_timestamp((p ->> 'oldest_since')::float8) as oldest_pending_age,
       counted_at,
       a -> 'last_archived' ->> 'file' as last_archived_file,
       to_timestamp((a -> 'last_archived' ->> 'at')::float8) as last_archived_at,
       a -> 'last_failure' ->> 'file' as last_failed_file,
       a -> 'last_failure' ->> 'cause' as last_failure_cause,
       a -> 'last_failure' ->> 'message' as last_failure,
       a -> 'last_failure' ->> 'hint' as last_failure_hint,
       to_timestamp((a -> 'last_failure' ->> 'at')::float8) as last_failed_at,
       to_timestamp((a ->> 'failing_since')::float8) as failing_since,
       a -> 'call' ->> 'module' as called_module,
       a -> 'call' ->> 'file' as called_file,
       make_interval(secs => (a -> 'call' ->> 'lasts')::float8) as call_age,
       (a -> 'files' ->> 'archived')::bigint as archived_files,
       (a -> 'files' ->> 'duplicate')::bigint as duplicate_files,
       (a -> 'files' ->> 'refused')::bigint as refused_files,
       (a -> 'files' ->> 'failed')::bigint as failed_files,
       (a -> 'bytes' ->> 'wal')::bigint as wal_bytes,
       (a -> 'bytes' ->> 'stored')::bigint as stored_bytes,
       (a -> 'recent' ->> 'files')::float8 / nullif((a -> 'recent' ->> 'seconds')::float8, 0) as recent_files_per_second,
       (a -> 'recent' ->> 'bytes')::float8 / nullif((a -> 'recent' ->> 'seconds')::float8, 0) as recent_bytes_per_second,
       archived_through,
       greatest(flushed - archived_through, 0) as lag_bytes,
       a ->> 'archive' as archive,
       nullif(a ->> 'compression', '') as compression,
       (a ->> 'recipients')::int as recipients,
       (a ->> 'jobs')::int as jobs,
       nullif(a ->> 'libraries', '') as libraries,
       (a ->> 'pid')::int as pid,
       to_timestamp((a ->> 'since')::float8) as since,
       current_setting('walden.version', true) as version
from through;
comment on view archiver is 'one row: what the archiver does; counts are since "since", when the process began';

create view recovery as
with read as (
    select document is not null as preloaded, nullif(document -> 'recovery', 'null') as r from status
)
select case
           when not preloaded then 'not preloaded'
           when r is null then 'no recovery module'
           when not (r ->> 'live')::bool then 'stale'
           when (r -> 'call' ->> 'lasts')::float8 > (r -> 'call' ->> 'may_last')::float8 then 'hanging'
           when pg_is_in_recovery() and r ->> 'failing_since' is not null
               and clock_timestamp() - to_timestamp((r -> 'last_failure' ->> 'at')::float8) < interval '2 min' then 'failing'
           when r -> 'asked' ->> 'file' is not null then 'restoring'
           else 'waiting'
       end as state,
       pg_is_in_recovery() as in_recovery,
       r ->> 'library' as library,
       (r -> 'restored' ->> 'ahead')::bigint as restored_ahead,
       (r -> 'restored' ->> 'asked')::bigint as restored_when_asked,
       (r -> 'restored' ->> 'absent')::bigint as absent,
       (r -> 'restored' ->> 'unknown')::bigint as could_not_tell,
       make_interval(secs => (r ->> 'waited')::float8) as waited,
       (r ->> 'prefetch_depth')::int as prefetch_depth,
       r -> 'asked' ->> 'file' as asked_file,
       to_timestamp((r -> 'asked' ->> 'at')::float8) as asked_at,
       r -> 'call' ->> 'module' as called_module,
       r -> 'call' ->> 'task' as called_for,
       r -> 'call' ->> 'file' as called_file,
       make_interval(secs => (r -> 'call' ->> 'lasts')::float8) as call_age,
       r -> 'last_restored' ->> 'file' as last_restored_file,
       to_timestamp((r -> 'last_restored' ->> 'at')::float8) as last_restored_at,
       r -> 'last_failure' ->> 'file' as last_failed_file,
       r -> 'last_failure' ->> 'cause' as last_failure_cause,
       r -> 'last_failure' ->> 'message' as last_failure,
       to_timestamp((r -> 'last_failure' ->> 'at')::float8) as last_failed_at,
       to_timestamp((r ->> 'failing_since')::float8) as failing_since,
       r ->> 'archive' as archive,
       (r ->> 'pid')::int as pid,
       to_timestamp((r ->> 'since')::float8) as since
from read;
comment on view recovery is 'one row: what the recovery worker does; counts are since "since", when the process began';

create view files as
with in_flight as (
    select f.file, f.state, f.attempts, make_interval(secs => f.age) as age, f.error
    from status,
         jsonb_to_recordset(coalesce(nullif(document -> 'archiver' -> 'in_flight', 'null'), '[]'))
             as f(file text, state text, attempts bigint, age float8, error text)
    where (document -> 'archiver' ->> 'live')::bool
)
select * from in_flight
union all
select w.file, 'waiting', 0, null, null
from status,
     jsonb_array_elements_text(coalesce(nullif(document #> '{archiver,pending,first}', 'null'), '[]')) as w(file)
where (document -> 'archiver' ->> 'live')::bool and w.file not in (select file from in_flight);
comment on view files is 'files on their way into the archive, and of the first ten that are ready those that are not';

create view requests as
select process,
       q.op,
       q.outcome,
       (q.latency ->> 'count')::bigint as requests,
       make_interval(secs => (q.latency ->> 'seconds')::float8) as total_time,
       make_interval(secs => (q.latency ->> 'seconds')::float8 / nullif((q.latency ->> 'count')::float8, 0)) as mean_time
from status,
     unnest(array['archiver', 'recovery']) as process,
     jsonb_to_recordset(coalesce(nullif(document -> process -> 'requests', 'null'), '[]'))
         as q(op text, outcome text, latency jsonb);
comment on view requests is 'requests to the archive by process, operation and outcome, since it was opened';

create view backups as
select b.file as backup_history_file,
       to_timestamp(b.at) as archived_at
from status,
     jsonb_to_recordset(coalesce(nullif(document -> 'archiver' -> 'backups', 'null'), '[]')) as b(file text, at float8);
comment on view backups is 'backup history files that this archiver has archived; the last ten';

grant usage on schema walden to pg_monitor;
grant select on all tables in schema walden to pg_monitor;
