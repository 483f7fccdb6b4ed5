/*-------------------------------------------------------------------------
 *
 * recovery_module.h
 *	  The interface between Walden's recovery worker and recovery modules.
 *
 * A recovery module is a library that restores files from an archive, cleans
 * the archive up, or is told when recovery ends. It is named in
 * walden.restore_library, walden.archive_cleanup_library or
 * walden.recovery_end_library and loaded once, by the recovery worker, a
 * background worker of the server. Include the server's postgres.h and
 * fmgr.h first; the library needs PG_MODULE_MAGIC.
 *
 * Every callback runs in the worker, with the data directory as the working
 * directory and in a memory context that is reset after each call. A
 * callback may raise ERROR; the worker reports it and goes on. One that takes
 * longer than walden.restore_timeout is no longer waited for, and what it then
 * restores is thrown away; it should check for interrupts, because the worker
 * can neither be ended nor serve others before it returns.
 *
 * SPDX-License-Identifier: PostgreSQL
 *
 *-------------------------------------------------------------------------
 */
#ifndef WALDEN_RECOVERY_MODULE_H
#define WALDEN_RECOVERY_MODULE_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C"
{
#endif

/* One per loaded library, owned by the worker. */
typedef struct RecoveryModuleState
{
	/* The module's own; the worker never looks at it. */
	void	   *private_data;
} RecoveryModuleState;

/* Called once, right after _PG_recovery_module_init. */
typedef void (*RecoveryStartupCB) (RecoveryModuleState *state);

/*
 * Create "path" with the contents of the archived file "file".
 *
 * True: the file is complete. False: it is *not in the archive*, which may
 * end recovery; whoever cannot tell raises ERROR instead. The last argument
 * names the oldest file recovery may still need, 24 zeros when unknown.
 */
typedef bool (*RecoveryRestoreCB) (RecoveryModuleState *state,
								   const char *file, const char *path,
								   const char *lastRestartPointFileName);

/* Files before lastRestartPointFileName are no longer needed by this server. */
typedef void (*RecoveryArchiveCleanupCB) (RecoveryModuleState *state,
										  const char *lastRestartPointFileName);

/* Recovery has ended; called once, before the server opens for writing. */
typedef void (*RecoveryRecoveryEndCB) (RecoveryModuleState *state,
									   const char *lastRestartPointFileName);

/*
 * The worker is leaving in an orderly way: it was told to end, or a callback
 * ended it with FATAL, perhaps one of this module's own. Interrupts are held,
 * and an ERROR is FATAL, after which the next module is told.
 */
typedef void (*RecoveryShutdownCB) (RecoveryModuleState *state);

/* Each callback is optional but the one for the job the library is named for. */
typedef struct RecoveryModuleCallbacks
{
	RecoveryStartupCB startup_cb;
	RecoveryRestoreCB restore_cb;
	RecoveryArchiveCleanupCB archive_cleanup_cb;
	RecoveryRecoveryEndCB recovery_end_cb;
	RecoveryShutdownCB shutdown_cb;
} RecoveryModuleCallbacks;

/*
 * The symbol the worker looks up. The struct it returns must live as long
 * as the process.
 */
typedef const RecoveryModuleCallbacks *(*RecoveryModuleInit) (void);

/* Default visibility: newer servers compile modules with hidden symbols. */
#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
extern const RecoveryModuleCallbacks *_PG_recovery_module_init(void);

#ifdef __cplusplus
}
#endif

#endif							/* WALDEN_RECOVERY_MODULE_H */
