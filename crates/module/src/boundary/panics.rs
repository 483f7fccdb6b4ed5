//! Panics stop here: none leaves Rust, none prints a raw line into the server's log.

use crate::Failure;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `work`; a panic becomes a failure that says what and where.
///
/// Whatever `work` was changing may be half changed: callers drop it and start afresh.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Failure> {
    static HOOK: Once = Once::new();
    // The hook belongs to this library's own copy of the standard library: no other module is affected.
    HOOK.call_once(|| std::panic::set_hook(Box::new(remember)));
    std::panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        // A payload whose own destructor panics must not get a second chance to do so here.
        std::mem::forget(payload);
        let what = LAST.with(|last| last.borrow_mut().take());
        Failure::new(format!(
            "panic in the module: {}",
            what.as_deref().unwrap_or("no message")
        ))
        .hint("This is a bug in the module; the server goes on.")
    })
}

fn remember(info: &PanicHookInfo<'_>) {
    let message = info
        .payload()
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| info.payload().downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    let place = info
        .location()
        .map(|at| format!(" ({}:{})", at.file(), at.line()));
    LAST.with(|last| {
        *last.borrow_mut() = Some(format!("{message}{}", place.unwrap_or_default()));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_failure_that_names_message_and_place() {
        let failure = caught(|| panic!("the {} broke", "thing")).unwrap_err();
        assert!(failure.message.contains("the thing broke"), "{failure:?}");
        assert!(failure.message.contains("panics.rs:"), "{failure:?}");
    }

    #[test]
    fn work_that_does_not_panic_returns_its_value() {
        assert_eq!(caught(|| 7).ok(), Some(7));
    }
}
