/*
 * A base backup target that keeps nothing and tells what it is given, through
 * walden/backup_target.h and the server's own headers: for the test that
 * compares this with what the server tells its client.
 */
#include "postgres.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/memutils.h"
#include "walden/backup_target.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

typedef struct told_sink
{
	bbsink		base;
	uint64		bytes;
	uint64		manifest_bytes;
} told_sink;

#define TELL(...) ereport(LOG, (errmsg_internal("told_target: " __VA_ARGS__)))

static void
begin_backup(bbsink *sink)
{
	bbsink_state *state = sink->bbs_state;

	bbsink_forward_begin_backup(sink);
	TELL("begins at %X/%X on timeline %u, %d archives, estimate %s of %llu, buffer %llu",
		 LSN_FORMAT_ARGS(state->startptr), state->starttli, list_length(state->tablespaces),
		 state->bytes_total_is_valid ? "true" : "false",
		 (unsigned long long) state->bytes_total,
		 (unsigned long long) (sink->bbs_buffer == NULL ? 0 : sink->bbs_buffer_length));
}

static void
begin_archive(bbsink *sink, const char *archive_name)
{
	TELL("archive %d is %s", sink->bbs_state->tablespace_num, archive_name);
	bbsink_forward_begin_archive(sink, archive_name);
}

static void
archive_contents(bbsink *sink, size_t len)
{
	CHECK_FOR_INTERRUPTS();
	((told_sink *) sink)->bytes += len;
	bbsink_forward_archive_contents(sink, len);
}

static void
manifest_contents(bbsink *sink, size_t len)
{
	((told_sink *) sink)->manifest_bytes += len;
	bbsink_forward_manifest_contents(sink, len);
}

static void
end_backup(bbsink *sink, XLogRecPtr endptr, TimeLineID endtli)
{
	TELL("ends at %X/%X on timeline %u, %llu bytes, the server counts %llu, manifest %s",
		 LSN_FORMAT_ARGS(endptr), endtli, (unsigned long long) ((told_sink *) sink)->bytes,
		 (unsigned long long) sink->bbs_state->bytes_done,
		 ((told_sink *) sink)->manifest_bytes > 0 ? "came" : "did not come");
	bbsink_forward_end_backup(sink, endptr, endtli);
}

static void
cleanup(bbsink *sink)
{
	if (CurrentMemoryContext != ErrorContext)
		TELL("is over, and is well");
	bbsink_forward_cleanup(sink);
}

static const bbsink_ops ops = {
	.begin_backup = begin_backup,
	.begin_archive = begin_archive,
	.archive_contents = archive_contents,
	.end_archive = bbsink_forward_end_archive,
	.begin_manifest = bbsink_forward_begin_manifest,
	.manifest_contents = manifest_contents,
	.end_manifest = bbsink_forward_end_manifest,
	.end_backup = end_backup,
	.cleanup = cleanup
};

static void *
check_detail(char *target, char *detail)
{
	if (detail == NULL)
		ereport(ERROR, (errmsg("target \"%s\" needs a detail", target)));
	TELL("target %s, detail %s", target, detail);
	return detail;
}

static bbsink *
get_sink(bbsink *next, void *detail_arg)
{
	told_sink  *sink = palloc0(sizeof(told_sink));

	TELL("sink for %s", (char *) detail_arg);
	sink->base.bbs_ops = &ops;
	sink->base.bbs_next = next;
	return &sink->base;
}

void
_PG_init(void)
{
	BaseBackupAddTarget("told", check_detail, get_sink);
}
