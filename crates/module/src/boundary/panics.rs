//! Panics stop here: none leaves Rust, none prints a raw line into the server's log.

use crate::Failure;
use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
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
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let what = LAST.with(|last| last.borrow_mut().take());
        discard(payload);
        Failure::new(format!(
            "panic in the module: {}",
            what.as_deref().unwrap_or("no message")
        ))
        .hint("This is a bug in the module; the server goes on.")
    })
}

/// Drops a payload, which a module may have made as large as it likes. Its destructor may panic too; what that
/// second panic carries is forgotten and not dropped, or there would be no end to it.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
        LAST.with(|last| last.borrow_mut().take());
    }
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
    fn a_payload_that_is_no_text_is_dropped_and_the_place_is_named() {
        let shared = std::sync::Arc::new(());
        let payload = std::sync::Arc::clone(&shared);
        let failure = caught(|| std::panic::panic_any(payload)).unwrap_err();
        assert_eq!(
            std::sync::Arc::strong_count(&shared),
            1,
            "the payload leaks"
        );
        assert!(failure.message.contains("no message ("), "{failure:?}");
        assert!(failure.message.contains("panics.rs:"), "{failure:?}");
    }

    #[test]
    fn a_payload_that_panics_when_it_is_dropped_ends_here_too() {
        struct Spiteful;
        impl Drop for Spiteful {
            fn drop(&mut self) {
                panic!("once more");
            }
        }
        let failure = caught(|| std::panic::panic_any(Spiteful)).unwrap_err();
        assert!(!failure.message.contains("once more"), "{failure:?}");
        let next = caught(|| std::panic::resume_unwind(Box::new(7))).unwrap_err();
        assert!(next.message.ends_with("no message"), "{next:?}");
    }

    #[test]
    fn work_that_does_not_panic_returns_its_value() {
        assert_eq!(caught(|| 7).ok(), Some(7));
    }
}
