/*-------------------------------------------------------------------------
 *
 * c_recovery.c
 *	  A recovery module in C: restores from a directory by copying.
 *
 * It shows what a recovery module may use, which is what any code in the
 * server may use: palloc, ereport, a parameter of its own, files opened
 * through the server. It runs in Walden's recovery worker, a process
 * without a database connection and without transactions.
 *
 * The one thing to get right is the answer. False says that the archive has
 * no such file, and outside standby mode recovery then ends. A module that
 * cannot tell raises ERROR: the worker reports it, cleans up after it and
 * tries again, and it never looks like the end of WAL.
 *
 * SPDX-License-Identifier: PostgreSQL
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "walden/recovery_module.h"

PG_MODULE_MAGIC;

/* What is copied between two checks for interrupts. */
#define COPY_BYTES (64 * 1024)

/* The module's state, kept in private_data from startup to shutdown. */
typedef struct CRecovery
{
	uint64		restored;		/* files found in the archive */
	uint64		absent;			/* files the archive does not have */
	uint64		removed;		/* files cleaned up */
} CRecovery;

/* c_recovery.archive_directory */
static char *archive_directory = NULL;

/* In fmgr.h from 16 on. */
extern PGDLLEXPORT void _PG_init(void);

static void c_recovery_startup(RecoveryModuleState *state);
static bool c_recovery_restore(RecoveryModuleState *state, const char *file,
							   const char *path,
							   const char *lastRestartPointFileName);
static void c_recovery_cleanup(RecoveryModuleState *state,
							   const char *lastRestartPointFileName);
static void c_recovery_end(RecoveryModuleState *state,
						   const char *lastRestartPointFileName);
static void c_recovery_shutdown(RecoveryModuleState *state);

static const RecoveryModuleCallbacks callbacks = {
	.startup_cb = c_recovery_startup,
	.restore_cb = c_recovery_restore,
	.archive_cleanup_cb = c_recovery_cleanup,
	.recovery_end_cb = c_recovery_end,
	.shutdown_cb = c_recovery_shutdown
};

/*
 * Accepts what may be an archive directory. Whether it is there is looked at
 * when a file is wanted: it may be mounted later than the server starts.
 */
static bool
check_archive_directory(char **newval, void **extra, GucSource source)
{
	if (*newval == NULL || **newval == '\0' || is_absolute_path(*newval))
		return true;

	GUC_check_errdetail("The archive directory must be an absolute path.");
	return false;
}

void
_PG_init(void)
{
	DefineCustomStringVariable("c_recovery.archive_directory",
							   "Sets the directory that WAL files are restored from.",
							   NULL,
							   &archive_directory,
							   "",
							   PGC_SIGHUP,
							   0,
							   check_archive_directory, NULL, NULL);

	MarkGUCPrefixReserved("c_recovery");
}

const RecoveryModuleCallbacks *
_PG_recovery_module_init(void)
{
	return &callbacks;
}

/*
 * Memory that the module keeps is best taken from TopMemoryContext by name:
 * what a callback leaves in the current context is gone after it.
 */
static void
c_recovery_startup(RecoveryModuleState *state)
{
	state->private_data = MemoryContextAllocZero(TopMemoryContext,
												 sizeof(CRecovery));
}

/* The archive directory; ERROR when there is none to look into. */
static const char *
configured_directory(void)
{
	struct stat st;

	if (archive_directory == NULL || archive_directory[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("\"c_recovery.archive_directory\" is not set")));

	if (stat(archive_directory, &st) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not stat archive directory \"%s\": %m",
						archive_directory)));

	if (!S_ISDIR(st.st_mode))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a directory", archive_directory)));

	return archive_directory;
}

/*
 * Copies what is left of one file to another, and returns how many bytes that
 * were. A file opened through the server is closed by it after an ERROR.
 */
static uint64
copy_contents(int from, const char *fromname, int to, const char *toname)
{
	char	   *buffer = palloc(COPY_BYTES);
	uint64		copied = 0;

	for (;;)
	{
		ssize_t		got;

		CHECK_FOR_INTERRUPTS();

		got = read(from, buffer, COPY_BYTES);
		if (got < 0)
		{
			if (errno == EINTR)
				continue;
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read file \"%s\": %m", fromname)));
		}
		if (got == 0)
			break;

		/* A short write without an error means that the disk is full. */
		errno = 0;
		if (write(to, buffer, got) != got)
		{
			if (errno == 0)
				errno = ENOSPC;
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not write file \"%s\": %m", toname)));
		}
		copied += got;
	}

	pfree(buffer);
	return copied;
}

/*
 * "path" is a private name that the worker chose: a copy that ends half way
 * is never seen by the server, and the worker removes it.
 */
static bool
c_recovery_restore(RecoveryModuleState *state, const char *file,
				   const char *path, const char *lastRestartPointFileName)
{
	CRecovery  *me = (CRecovery *) state->private_data;
	char	   *source = psprintf("%s/%s", configured_directory(), file);
	uint64		copied;
	int			from;
	int			to;

	from = OpenTransientFile(source, O_RDONLY | PG_BINARY);
	if (from < 0)
	{
		/* The one case in which it is known that the file is not there. */
		if (errno == ENOENT)
		{
			me->absent++;
			return false;
		}
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open archive file \"%s\": %m", source)));
	}

	to = OpenTransientFile(path, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY);
	if (to < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", path)));

	copied = copy_contents(from, source, to, path);

	/* A copy into the archive may have been cut off half way. */
	if (IsXLogFileName(file) && copied != (uint64) wal_segment_size)
		ereport(ERROR,
				(errmsg("archive file \"%s\" has the wrong size: " UINT64_FORMAT
						" bytes instead of %d",
						source, copied, wal_segment_size)));

	if (CloseTransientFile(to) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not close file \"%s\": %m", path)));
	if (CloseTransientFile(from) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not close file \"%s\": %m", source)));

	me->restored++;
	return true;
}

/*
 * Removes segments, complete and partial, that lie before the oldest one to
 * keep. The timeline takes no part in the comparison, and timeline history
 * files stay: what pg_archivecleanup does. 24 zeros keep everything.
 */
static void
c_recovery_cleanup(RecoveryModuleState *state,
				   const char *lastRestartPointFileName)
{
	CRecovery  *me = (CRecovery *) state->private_data;
	const char *directory = configured_directory();
	DIR		   *dir;
	struct dirent *entry;

	if (!IsXLogFileName(lastRestartPointFileName))
		ereport(ERROR,
				(errmsg("\"%s\" is not the name of a WAL segment",
						lastRestartPointFileName)));

	dir = AllocateDir(directory);
	while ((entry = ReadDir(dir, directory)) != NULL)
	{
		char		path[MAXPGPATH];

		if (!IsXLogFileName(entry->d_name) &&
			!IsPartialXLogFileName(entry->d_name))
			continue;
		if (strncmp(entry->d_name + 8, lastRestartPointFileName + 8, 16) >= 0)
			continue;

		CHECK_FOR_INTERRUPTS();

		snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
		if (unlink(path) != 0 && errno != ENOENT)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not remove archive file \"%s\": %m", path)));
		me->removed++;
	}
	FreeDir(dir);
}

static void
c_recovery_end(RecoveryModuleState *state, const char *lastRestartPointFileName)
{
	CRecovery  *me = (CRecovery *) state->private_data;

	ereport(LOG,
			(errmsg("c_recovery: recovery has ended, " UINT64_FORMAT
					" files restored, " UINT64_FORMAT " absent",
					me->restored, me->absent)));
}

static void
c_recovery_shutdown(RecoveryModuleState *state)
{
	CRecovery  *me = (CRecovery *) state->private_data;

	ereport(LOG,
			(errmsg("c_recovery: shutting down, " UINT64_FORMAT
					" files restored, " UINT64_FORMAT " absent, "
					UINT64_FORMAT " removed",
					me->restored, me->absent, me->removed)));
}
