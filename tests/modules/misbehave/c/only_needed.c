/*-------------------------------------------------------------------------
 *
 * only_needed.c
 *	  A module in C with nothing but what its jobs need: no _PG_init, and of
 *	  all callbacks archive_file_cb and restore_cb alone.
 *
 * Files are copied to and from only_needed.directory, without any promise.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "fmgr.h"
#include "storage/copydir.h"
#include "utils/guc.h"
#if PG_VERSION_NUM >= 160000
#include "archive/archive_module.h"
#else
#include "postmaster/pgarch.h"

extern PGDLLEXPORT void _PG_archive_module_init(ArchiveModuleCallbacks *cb);
#endif

#include "walden/recovery_module.h"

PG_MODULE_MAGIC;

static void
kept(char *path, const char *file)
{
	snprintf(path, MAXPGPATH, "%s/%s",
			 GetConfigOption("only_needed.directory", false, false), file);
}

static bool
archive(const char *file, const char *path)
{
	char		from[MAXPGPATH];
	char		to[MAXPGPATH];

	snprintf(from, sizeof(from), "%s", path);
	kept(to, file);
	if (access(to, F_OK) == 0)
		return true;
	copy_file(from, to);
	return true;
}

#if PG_VERSION_NUM >= 160000
static bool
archive_with_state(ArchiveModuleState *state, const char *file, const char *path)
{
	return archive(file, path);
}

const ArchiveModuleCallbacks *
_PG_archive_module_init(void)
{
	static const ArchiveModuleCallbacks callbacks = {
		.archive_file_cb = archive_with_state
	};

	return &callbacks;
}
#else
void
_PG_archive_module_init(ArchiveModuleCallbacks *cb)
{
	cb->archive_file_cb = archive;
}
#endif

static bool
restore(RecoveryModuleState *state, const char *file, const char *path,
		const char *last)
{
	char		from[MAXPGPATH];
	char		to[MAXPGPATH];

	kept(from, file);
	snprintf(to, sizeof(to), "%s", path);
	if (access(from, F_OK) != 0)
		return false;
	copy_file(from, to);
	return true;
}

const RecoveryModuleCallbacks *
_PG_recovery_module_init(void)
{
	static const RecoveryModuleCallbacks callbacks = {.restore_cb = restore};

	return &callbacks;
}
