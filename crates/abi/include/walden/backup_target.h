/*-------------------------------------------------------------------------
 *
 * backup_target.h
 *	  The server's interface for base backup targets, 15 to 19.
 *
 * The server declares it in backup/basebackup_target.h and
 * backup/basebackup_sink.h and installs neither, so it is declared here: the
 * parts that a target uses, which are the same in all these majors.
 *
 * A target is a library in shared_preload_libraries that calls
 * BaseBackupAddTarget in its _PG_init. "pg_basebackup --target=NAME:DETAIL"
 * then sends the backup to it, inside the server: every callback runs in the
 * walsender that got BASE_BACKUP, and may raise ERROR, which ends the backup.
 *
 * Order: check_detail and get_sink, before the checkpoint; begin_backup; for
 * each tablespace begin_archive, archive_contents, end_archive, the data
 * directory ("base.tar") last; the manifest, unless it was not asked for;
 * end_backup; cleanup. Each callback has to forward to the next sink, with
 * the function of its name, once its own work is done; begin_backup forwards
 * to be given its buffer.
 *
 * What is easily overlooked:
 *	- end_backup is not success. If page checksums did not match, an ERROR
 *	  follows. A target that gives the backup its name in cleanup can tell:
 *	  behind an ERROR cleanup is called with CurrentMemoryContext ==
 *	  ErrorContext. And an ERROR in cleanup, where there was none before,
 *	  still reaches the client.
 *	- cleanup is not called when the process ends (FATAL): nothing may depend
 *	  on it. It may be called before begin_backup; bbs_state is then null.
 *	- Behind compression by the server (archives called "base.tar.zst") it is
 *	  not called by lz4 and zstd (15 to 19), nor by gzip of 19rc1; gzip of 15
 *	  to 18 forwards it. Such archives are best refused in begin_archive.
 *	- The server looks for interrupts once for each file only. A target does
 *	  it in archive_contents (CHECK_FOR_INTERRUPTS), and while it waits.
 *	- Do not register before_shmem_exit callbacks between begin_backup and
 *	  end_archive of "base.tar": the server then cannot end its own.
 *	- The elements of bbs_state->tablespaces differ between majors.
 *
 * Include the server's postgres.h first.
 *
 * SPDX-License-Identifier: PostgreSQL
 *
 *-------------------------------------------------------------------------
 */
#ifndef WALDEN_BACKUP_TARGET_H
#define WALDEN_BACKUP_TARGET_H

#include "access/xlogdefs.h"
#include "nodes/pg_list.h"

#ifdef __cplusplus
extern "C"
{
#endif

/* What all sinks of one backup share; kept by the server. */
typedef struct bbsink_state
{
	/* The tablespaces, the data directory last. */
	List	   *tablespaces;
	/* Index of the one that is being sent. */
	int			tablespace_num;
	uint64		bytes_done;
	/* An estimate, if the client asked for progress. */
	uint64		bytes_total;
	bool		bytes_total_is_valid;
	XLogRecPtr	startptr;
	TimeLineID	starttli;
} bbsink_state;

typedef struct bbsink bbsink;
typedef struct bbsink_ops bbsink_ops;

/* What every sink begins with. */
struct bbsink
{
	const bbsink_ops *bbs_ops;
	char	   *bbs_buffer;
	size_t		bbs_buffer_length;
	bbsink	   *bbs_next;
	bbsink_state *bbs_state;
};

/* All are required. */
struct bbsink_ops
{
	void		(*begin_backup) (bbsink *sink);
	void		(*begin_archive) (bbsink *sink, const char *archive_name);
	/* The first len bytes of bbs_buffer. */
	void		(*archive_contents) (bbsink *sink, size_t len);
	void		(*end_archive) (bbsink *sink);
	void		(*begin_manifest) (bbsink *sink);
	void		(*manifest_contents) (bbsink *sink, size_t len);
	void		(*end_manifest) (bbsink *sink);
	void		(*end_backup) (bbsink *sink, XLogRecPtr endptr, TimeLineID endtli);
	void		(*cleanup) (bbsink *sink);
};

/*
 * Adds a target, in place of one of the same name. check_detail is given the
 * target's name and its detail, NULL if there is none, and raises ERROR or
 * answers with what get_sink is given; get_sink makes the sink in front of
 * "next".
 */
extern void BaseBackupAddTarget(char *name,
								void *(*check_detail) (char *target, char *detail),
								bbsink *(*get_sink) (bbsink *next, void *detail_arg));

/* Forward to the next sink. */
extern void bbsink_forward_begin_backup(bbsink *sink);
extern void bbsink_forward_begin_archive(bbsink *sink, const char *archive_name);
extern void bbsink_forward_archive_contents(bbsink *sink, size_t len);
extern void bbsink_forward_end_archive(bbsink *sink);
extern void bbsink_forward_begin_manifest(bbsink *sink);
extern void bbsink_forward_manifest_contents(bbsink *sink, size_t len);
extern void bbsink_forward_end_manifest(bbsink *sink);
extern void bbsink_forward_end_backup(bbsink *sink, XLogRecPtr endptr, TimeLineID endtli);
extern void bbsink_forward_cleanup(bbsink *sink);

#ifdef __cplusplus
}
#endif

#endif							/* WALDEN_BACKUP_TARGET_H */
