/*
 * The one thing Rust cannot do: be the place a server ERROR jumps to.
 *
 * No server header is needed: the two variables have the same shape in every
 * supported major (utils/elog.h, PG_TRY). The signal mask is not saved, as
 * in PG_TRY.
 */
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>

extern sigjmp_buf *PG_exception_stack;
extern void *error_context_stack;

/* Runs body(arg); false when an ERROR ended it. */
bool
walden_guard(void (*body) (void *), void *arg)
{
	sigjmp_buf *const saved_exception_stack = PG_exception_stack;
	void	   *const saved_context_stack = error_context_stack;
	sigjmp_buf	here;
	volatile bool finished = false;

	if (sigsetjmp(here, 0) == 0)
	{
		PG_exception_stack = &here;
		body(arg);
		finished = true;
	}
	PG_exception_stack = saved_exception_stack;
	error_context_stack = saved_context_stack;
	return finished;
}
