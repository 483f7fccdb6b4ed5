/*-------------------------------------------------------------------------
 *
 * plain.c
 *	  A module in C, archive and recovery module at once, for the tests of
 *	  the hosts. It needs no header of any server and can pretend to be for
 *	  any major.
 *
 * What it is made into, on the compiler's command line:
 *
 *	MAJOR		the major it is for, which settles magic block and dialect
 *	NAME		what its messages begin with
 *	DIRECTORY	where files are kept
 *	NO_INIT		without its init functions
 *	NO_CALLBACKS	its init functions give no callbacks
 *	NO_JOBS		with a startup callback alone
 *
 * What it does, by the first word in DIRECTORY.mode, looked at in each call:
 *
 *	(no file)	copies files to and from DIRECTORY
 *	false		archives nothing
 *	error		raises ERROR
 *	unset		is not configured, and says why where there is a place for it
 *	hang		does nothing, interrupts included, as long as the word is there
 *	start		the same as it begins as a recovery module
 *	wait		the same, but heeds interrupts
 *	crash		SIGSEGV
 *
 * Each call is said on standard error, which is the server's log. It makes no
 * promise of durability.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "walden/recovery_module.h"

#define EXPORT __attribute__((visibility("default")))

/* fmgr.h: 56 bytes up to 17, and a name and a version behind them from 18 on. */
typedef struct Magic
{
	int			len;
	int			version;
	int			funcmaxargs;
	int			indexmaxkeys;
	int			namedatalen;
	int			float8byval;
	char		abi_extra[32];
#if MAJOR >= 18
	const char *name;
	const char *library_version;
#endif
} Magic;

EXPORT const Magic *Pg_magic_func(void);

const Magic *
Pg_magic_func(void)
{
	static const Magic magic = {
		.len = sizeof(Magic),
		.version = MAJOR * 100,
		.funcmaxargs = 100,
		.indexmaxkeys = 32,
		.namedatalen = 64,
		.float8byval = 1,
		.abi_extra = "PostgreSQL"
	};

	return &magic;
}

/* elog.h */
extern bool errstart(int elevel, const char *domain);
extern int	errmsg_internal(const char *fmt,...);
extern void errfinish(const char *filename, int lineno, const char *funcname);

#define ERROR 21
#define LOG 15

/* miscadmin.h */
extern volatile sig_atomic_t InterruptPending;
extern void ProcessInterrupts(void);

static void
say(const char *what, const char *file)
{
	fprintf(stderr, NAME ": %s %s\n", what, file);
}

static bool
mode_is(const char *wanted)
{
	char		word[16] = "";
	FILE	   *file = fopen(DIRECTORY ".mode", "r");

	if (file == NULL)
		return false;
	if (fscanf(file, "%15s", word) != 1)
		word[0] = '\0';
	fclose(file);
	return strcmp(word, wanted) == 0;
}

static void
hang_while(const char *mode, bool heeds_interrupts)
{
	if (!mode_is(mode))
		return;
	say("hangs", "");
	while (mode_is(mode))
	{
		usleep(10 * 1000);
		if (heeds_interrupts && InterruptPending)
			ProcessInterrupts();
	}
	say("goes on", "");
}

static void
misbehave(void)
{
	if (mode_is("error") && errstart(ERROR, NULL))
	{
		errmsg_internal(NAME " was asked to raise an error");
		errfinish(__FILE__, __LINE__, __func__);
	}
	if (mode_is("crash"))
		raise(SIGSEGV);
	hang_while("hang", false);
	hang_while("wait", true);
}

/* False when there is no file to copy. */
static bool
copy(const char *from, const char *to)
{
	char		buffer[65536];
	size_t		bytes;
	FILE	   *in = fopen(from, "r");
	FILE	   *out;

	if (in == NULL)
		return false;
	out = fopen(to, "w");
	while (out != NULL && (bytes = fread(buffer, 1, sizeof(buffer), in)) > 0)
		fwrite(buffer, 1, bytes, out);
	fclose(in);
	return out != NULL && fclose(out) == 0;
}

static const char *
kept(const char *file)
{
	static char path[1024];

	snprintf(path, sizeof(path), DIRECTORY "/%s", file);
	return path;
}

static bool
check_configured(void)
{
	char	  **reason = dlsym(RTLD_DEFAULT, "arch_module_check_errdetail_string");

	if (!mode_is("unset"))
		return true;
	if (reason != NULL)
		*reason = NAME " was asked to be not configured";
	return false;
}

static bool
archive(const char *file, const char *path)
{
	say("is asked to archive", file);
	misbehave();
	return !mode_is("false") && copy(path, kept(file));
}

/* The dialects of pgarch.h (15) and archive_module.h (16 and later). */
#if MAJOR == 15
typedef struct ArchiveModuleCallbacks
{
	bool		(*check_configured_cb) (void);
	bool		(*archive_file_cb) (const char *file, const char *path);
	void		(*shutdown_cb) (void);
} ArchiveModuleCallbacks;

static void
archive_shutdown(void)
{
	say("shuts down", "");
}

#ifndef NO_INIT
EXPORT void _PG_archive_module_init(ArchiveModuleCallbacks *callbacks);

void
_PG_archive_module_init(ArchiveModuleCallbacks *callbacks)
{
	say("begins", "");
#ifndef NO_CALLBACKS
	callbacks->check_configured_cb = check_configured;
#ifndef NO_JOBS
	callbacks->archive_file_cb = archive;
#endif
	callbacks->shutdown_cb = archive_shutdown;
#endif
}
#endif

#else
typedef struct ArchiveModuleState
{
	void	   *private_data;
} ArchiveModuleState;

typedef struct ArchiveModuleCallbacks
{
	void		(*startup_cb) (ArchiveModuleState *state);
	bool		(*check_configured_cb) (ArchiveModuleState *state);
	bool		(*archive_file_cb) (ArchiveModuleState *state, const char *file, const char *path);
	void		(*shutdown_cb) (ArchiveModuleState *state);
} ArchiveModuleCallbacks;

/* The state has to be the same from startup to shutdown. */
static void
startup16(ArchiveModuleState *state)
{
	say("begins", "");
	state->private_data = state;
}

static bool
check_configured16(ArchiveModuleState *state)
{
	return state->private_data == state && check_configured();
}

static bool
archive16(ArchiveModuleState *state, const char *file, const char *path)
{
	return state->private_data == state && archive(file, path);
}

static void
shutdown16(ArchiveModuleState *state)
{
	if (state->private_data == state)
		say("shuts down", "");
}

#ifndef NO_INIT
EXPORT const ArchiveModuleCallbacks *_PG_archive_module_init(void);

const ArchiveModuleCallbacks *
_PG_archive_module_init(void)
{
	static const ArchiveModuleCallbacks callbacks = {
		.startup_cb = startup16,
		.check_configured_cb = check_configured16,
#ifndef NO_JOBS
		.archive_file_cb = archive16,
#endif
		.shutdown_cb = shutdown16
	};

#ifdef NO_CALLBACKS
	return NULL;
#endif
	return &callbacks;
}
#endif
#endif

static void
recovery_startup(RecoveryModuleState *state)
{
	say("begins recovery", "");
	hang_while("start", false);
	state->private_data = state;
}

/* A word to the log's own writer on the way out must not end the process early. */
static void
recovery_shutdown(RecoveryModuleState *state)
{
	if (state->private_data == state && errstart(LOG, NULL))
	{
		errmsg_internal(NAME " says goodbye");
		errfinish(__FILE__, __LINE__, __func__);
		say("ends recovery", "");
	}
}

static bool
restore(RecoveryModuleState *state, const char *file, const char *path,
		const char *lastRestartPointFileName)
{
	say("is asked to restore", file);
	misbehave();
	return copy(kept(file), path);
}

#ifndef NO_INIT
EXPORT const RecoveryModuleCallbacks *_PG_recovery_module_init(void);

const RecoveryModuleCallbacks *
_PG_recovery_module_init(void)
{
	static const RecoveryModuleCallbacks callbacks = {
		.startup_cb = recovery_startup,
#ifndef NO_JOBS
		.restore_cb = restore,
#endif
		.shutdown_cb = recovery_shutdown
	};

#ifdef NO_CALLBACKS
	return NULL;
#endif
	return &callbacks;
}
#endif
