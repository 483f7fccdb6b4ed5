/*-------------------------------------------------------------------------
 *
 * misbehave_c.c
 *	  A recovery module in C that raises ERROR, or leaks, where it is told to.
 *
 * misbehave_c.at names the place: load, startup, restore, archive_cleanup,
 * recovery_end, shutdown; misbehave_c.mode is ok, error, or late, which
 * raises the ERROR with a file open, memory allocated and a lock of the
 * server held, all of which the host has to put in order. Files come from
 * misbehave_c.directory.
 *
 * It counts its files in private_data, says at its shutdown how many it
 * restored, and makes no promise about the files it copies.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>

#include "fmgr.h"
#include "storage/copydir.h"
#include "storage/fd.h"
#include "storage/lwlock.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "walden/recovery_module.h"

PG_MODULE_MAGIC;

static char *at = NULL;
static char *mode = NULL;
static char *directory = NULL;

void		_PG_init(void);

static void
misbehave(const char *where, const char *place, const char *how)
{
	if (where == NULL || how == NULL || strcmp(where, place) != 0 ||
		strcmp(how, "ok") == 0)
		return;

	if (strcmp(how, "late") == 0)
	{
		if (OpenTransientFile("PG_VERSION", O_RDONLY) < 0 ||
			AllocateDir(".") == NULL)
			elog(ERROR, "could not open anything");
		(void) palloc(100 * 1024);
		LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
		ereport(ERROR,
				(errmsg("asked to raise a late ERROR during %s", place),
				 errdetail("A file is open and a lock is held."),
				 errhint("Look whether they still are.")));
	}
	ereport(ERROR, (errmsg("asked to raise ERROR during %s", place)));
}

void
_PG_init(void)
{
	/* Before anything is defined: nothing can be defined twice. */
	misbehave(GetConfigOption("misbehave_c.at", true, false), "load",
			  GetConfigOption("misbehave_c.mode", true, false));

	DefineCustomStringVariable("misbehave_c.at", "Sets where to misbehave.",
							   NULL, &at, "", PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("misbehave_c.mode", "Sets how to misbehave.",
							   NULL, &mode, "ok", PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("misbehave_c.directory", "Sets where files are kept.",
							   NULL, &directory, "", PGC_SIGHUP, 0, NULL, NULL, NULL);
}

static void
startup(RecoveryModuleState *state)
{
	misbehave(at, "startup", mode);
	state->private_data = MemoryContextAllocZero(TopMemoryContext, sizeof(int));
}

static bool
restore(RecoveryModuleState *state, const char *file, const char *path,
		const char *last)
{
	char		from[MAXPGPATH];
	char		to[MAXPGPATH];
	struct stat st;

	misbehave(at, "restore", mode);
	snprintf(from, sizeof(from), "%s/%s", directory, file);
	snprintf(to, sizeof(to), "%s", path);
	if (stat(from, &st) != 0)
	{
		if (errno == ENOENT)
			return false;
		ereport(ERROR, (errmsg("could not stat file \"%s\": %m", from)));
	}
	copy_file(from, to);
	*(int *) state->private_data += 1;
	return true;
}

static void
archive_cleanup(RecoveryModuleState *state, const char *last)
{
	misbehave(at, "archive_cleanup", mode);
}

static void
recovery_end(RecoveryModuleState *state, const char *last)
{
	misbehave(at, "recovery_end", mode);
}

static void
shutdown_module(RecoveryModuleState *state)
{
	ereport(LOG,
			(errmsg("misbehave_c: shutting down after %d restored",
					*(int *) state->private_data)));
	misbehave(at, "shutdown", mode);
}

static const RecoveryModuleCallbacks callbacks = {
	.startup_cb = startup,
	.restore_cb = restore,
	.archive_cleanup_cb = archive_cleanup,
	.recovery_end_cb = recovery_end,
	.shutdown_cb = shutdown_module
};

const RecoveryModuleCallbacks *
_PG_recovery_module_init(void)
{
	return &callbacks;
}
