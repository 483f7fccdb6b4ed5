//! A report as plain data: what an outer frame that owns nothing can hand to the server.
//!
//! Reporting may not return (`errfinish` checks for interrupts even below ERROR), so the texts live in fixed
//! buffers on the frame and not in anything that would have to be dropped. Longer texts are cut.

use super::guard::ServerError;
use crate::{Failure, Level, Report};
use core::ffi::{CStr, c_char, c_int};

const MESSAGE_BYTES: usize = 1024;
const DETAIL_BYTES: usize = 2048;
const HINT_BYTES: usize = 1024;

/// A NUL-terminated text in a fixed buffer; empty means none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<const N: usize>([u8; N]);

impl<const N: usize> Text<N> {
    pub(crate) const EMPTY: Self = Self([0; N]);

    /// The text, cut to fit at a character boundary; NUL bytes inside become question marks.
    pub(crate) fn of(text: &str) -> Self {
        let mut fits = text.len().min(N.saturating_sub(1));
        while !text.is_char_boundary(fits) {
            fits -= 1;
        }
        let mut buffer = [0; N];
        for (to, from) in buffer.iter_mut().zip(text.bytes().take(fits)) {
            *to = if from == 0 { b'?' } else { from };
        }
        Self(buffer)
    }

    fn is_empty(&self) -> bool {
        self.0.first().is_none_or(|byte| *byte == 0)
    }

    pub(crate) fn as_ptr(&self) -> *const c_char {
        self.0.as_ptr().cast()
    }

    fn to_text(self) -> String {
        CStr::from_bytes_until_nul(&self.0)
            .map(|text| text.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    fn to_option(self) -> Option<String> {
        (!self.is_empty()).then(|| self.to_text())
    }
}

/// One report, ready to be spoken.
#[derive(Clone, Copy, Debug)]
pub struct Speech {
    level: c_int,
    sqlstate: c_int,
    message: Text<MESSAGE_BYTES>,
    detail: Text<DETAIL_BYTES>,
    hint: Text<HINT_BYTES>,
}

impl Speech {
    pub(crate) fn silence() -> Self {
        Self {
            level: 0,
            sqlstate: 0,
            message: Text::EMPTY,
            detail: Text::EMPTY,
            hint: Text::EMPTY,
        }
    }

    /// A failure, at the given level of `abi::elog`.
    pub(crate) fn of_failure(level: c_int, failure: &Failure) -> Self {
        Self {
            level,
            sqlstate: match level {
                abi::elog::ERROR => abi::elog::ERRCODE_IO_ERROR,
                _ => 0,
            },
            message: Text::of(&failure.message),
            detail: Text::of(failure.detail.as_deref().unwrap_or_default()),
            hint: Text::of(failure.hint.as_deref().unwrap_or_default()),
        }
    }

    /// The same with the error code of a wrong configuration.
    pub(crate) fn about_configuration(mut self) -> Self {
        self.sqlstate = abi::elog::ERRCODE_CONFIG_FILE_ERROR;
        self
    }

    pub(crate) fn of_report(report: &Report) -> Self {
        let level = match report.level {
            Level::Debug2 => abi::elog::DEBUG2,
            Level::Debug1 => abi::elog::DEBUG1,
            Level::Log => abi::elog::LOG,
            Level::Warning => abi::elog::WARNING,
        };
        Self::of_failure(level, &report.text)
    }

    /// Speaks. At ERROR and above this does not return; below it may leave by `longjmp` too.
    ///
    /// # Safety
    /// On the server's main thread, from a frame that owns nothing or under [`super::guard`].
    pub(crate) unsafe fn speak(&self) {
        const FORMAT: *const c_char = c"%s".as_ptr();
        // SAFETY: promised by the caller.
        if !unsafe { abi::elog::errstart(self.level, core::ptr::null()) } {
            return;
        }
        if self.sqlstate != 0 {
            // SAFETY: a report is open.
            unsafe { abi::elog::errcode(self.sqlstate) };
        }
        // SAFETY: a report is open; one NUL-terminated argument for one %s.
        unsafe { abi::elog::errmsg_internal(FORMAT, self.message.as_ptr()) };
        if !self.detail.is_empty() {
            // SAFETY: as above.
            unsafe { abi::elog::errdetail_internal(FORMAT, self.detail.as_ptr()) };
        }
        if !self.hint.is_empty() {
            // SAFETY: as above.
            unsafe { abi::elog::errhint(FORMAT, self.hint.as_ptr()) };
        }
        // SAFETY: closes the report.
        unsafe { abi::elog::errfinish(c"speech.rs".as_ptr(), 0, c"speak".as_ptr()) };
    }

    /// Takes the texts of an error the server raised.
    ///
    /// # Safety
    /// `data` comes from `CopyErrorData`.
    pub(crate) unsafe fn take_from(&mut self, data: *const abi::elog::ErrorData) {
        // SAFETY: promised by the caller.
        let data = unsafe { &*data };
        // SAFETY: strings of a copied error are NUL-terminated or null.
        self.message = unsafe { copied(data.message) };
        // SAFETY: as above.
        self.detail = unsafe { copied(data.detail) };
        // SAFETY: as above.
        self.hint = unsafe { copied(data.hint) };
    }

    pub(crate) fn into_error(self) -> ServerError {
        let message = if self.message.is_empty() {
            "the server raised an error without a message".to_owned()
        } else {
            self.message.to_text()
        };
        ServerError {
            message,
            detail: self.detail.to_option(),
            hint: self.hint.to_option(),
        }
    }
}

unsafe fn copied<const N: usize>(text: *const c_char) -> Text<N> {
    let mut copy = Text::<N>::EMPTY;
    if !text.is_null() {
        // SAFETY: NUL-terminated, promised by the caller.
        let text = unsafe { CStr::from_ptr(text) };
        for (to, from) in copy
            .0
            .iter_mut()
            .take(N.saturating_sub(1))
            .zip(text.to_bytes())
        {
            *to = *from;
        }
    }
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_does_not_fit_is_cut_at_a_character_boundary() {
        assert_eq!(Text::<4>::of("aéé").to_text(), "aé");
        assert_eq!(Text::<5>::of("aéé").to_text(), "aé");
        assert_eq!(Text::<6>::of("aéé").to_text(), "aéé");
    }

    #[test]
    fn a_nul_inside_a_text_does_not_hide_the_rest() {
        assert_eq!(Text::<8>::of("a\0b").to_text(), "a?b");
    }

    #[test]
    fn an_empty_detail_is_no_detail() {
        let speech = Speech::of_failure(abi::elog::WARNING, &Failure::new("could not"));
        let error = speech.into_error();
        assert_eq!(
            (error.message.as_str(), error.detail, error.hint),
            ("could not", None, None)
        );
    }
}
