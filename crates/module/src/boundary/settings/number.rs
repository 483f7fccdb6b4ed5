//! Parameters that are whole numbers: plain ones, durations, sizes.
//!
//! To the server all three are integers, in a unit that a user may leave out or replace (`90s`, `2min`).

use super::checks::{self, Check};
use super::{About, Setting, Unit};
use crate::Process;
use abi::Major;
use abi::guc::IntCheckHook;
use core::ops::RangeInclusive;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// A whole number with bounds.
#[derive(Debug)]
pub struct IntSetting {
    about: About,
    default: i32,
    min: i32,
    max: i32,
    unit: Unit,
    check: Option<IntCheckHook>,
    value: AtomicI32,
}

impl IntSetting {
    /// A number within `bounds`, without a unit. A default out of bounds does not compile.
    #[must_use]
    pub const fn new(about: About, default: i32, bounds: RangeInclusive<i32>) -> Self {
        let (min, max) = (*bounds.start(), *bounds.end());
        assert!(
            min <= default && default <= max,
            "the default is out of bounds"
        );
        Self {
            about,
            default,
            min,
            max,
            unit: Unit::None,
            check: None,
            value: AtomicI32::new(default),
        }
    }

    /// The same with a check.
    #[must_use]
    pub const fn checked<C: Check<i32>>(
        about: About,
        default: i32,
        bounds: RangeInclusive<i32>,
    ) -> Self {
        let mut setting = Self::new(about, default, bounds);
        setting.check = Some(checks::number::<C>);
        setting
    }

    /// The same number, counted in `unit`: the user may write another one, the server converts. For times
    /// and amounts of memory [`DurationSetting`] and [`SizeSetting`] keep the unit with the value.
    #[must_use]
    pub const fn unit(mut self, unit: Unit) -> Self {
        self.unit = unit;
        self
    }

    /// The present value, in its unit.
    #[must_use]
    pub fn get(&self, _: Process) -> i32 {
        self.value.load(Ordering::Relaxed)
    }
}

impl Setting for IntSetting {
    fn about(&self) -> &About {
        &self.about
    }

    unsafe fn define(&'static self, major: Major) {
        let about = &self.about;
        // SAFETY: all strings and the variable are static.
        unsafe {
            abi::guc::DefineCustomIntVariable(
                about.name.as_ptr(),
                about.short.as_ptr(),
                about.long_or_null(),
                self.value.as_ptr(),
                self.default,
                self.min,
                self.max,
                about.context.as_guc(),
                abi::guc::unit_flags(self.unit, major),
                self.check,
                None,
                None,
            );
        }
    }
}

/// The unit that a [`DurationSetting`] is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Whole milliseconds: `ms`.
    Milliseconds,
    /// Whole seconds: `s`.
    Seconds,
    /// Whole minutes: `min`.
    Minutes,
}

/// A parameter whose value is a duration, in a unit that the server converts.
#[derive(Debug)]
pub struct DurationSetting {
    number: IntSetting,
    unit_ms: u64,
}

impl DurationSetting {
    /// A span of time; default and bounds are counted in `unit` and not negative.
    #[must_use]
    pub const fn new(
        about: About,
        default: i32,
        bounds: RangeInclusive<i32>,
        unit: TimeUnit,
    ) -> Self {
        assert!(*bounds.start() >= 0, "a duration cannot be negative");
        let number = IntSetting::new(about, default, bounds);
        let (unit, unit_ms) = match unit {
            TimeUnit::Milliseconds => (Unit::Milliseconds, 1),
            TimeUnit::Seconds => (Unit::Seconds, 1000),
            TimeUnit::Minutes => (Unit::Minutes, 60_000),
        };
        Self {
            number: number.unit(unit),
            unit_ms,
        }
    }

    /// The same with a check.
    #[must_use]
    pub const fn checked<C: Check<Duration>>(
        about: About,
        default: i32,
        bounds: RangeInclusive<i32>,
        unit: TimeUnit,
    ) -> Self {
        let mut setting = Self::new(about, default, bounds, unit);
        let check: IntCheckHook = match unit {
            TimeUnit::Milliseconds => checks::duration::<C, 1>,
            TimeUnit::Seconds => checks::duration::<C, 1000>,
            TimeUnit::Minutes => checks::duration::<C, 60_000>,
        };
        setting.number.check = Some(check);
        setting
    }

    /// The present value, within the bounds.
    #[must_use]
    pub fn get(&self, process: Process) -> Duration {
        Duration::from_millis(times(self.number.get(process), self.unit_ms))
    }
}

impl Setting for DurationSetting {
    fn about(&self) -> &About {
        self.number.about()
    }

    unsafe fn define(&'static self, major: Major) {
        // SAFETY: promised by the caller.
        unsafe { self.number.define(major) };
    }
}

/// The unit that a [`SizeSetting`] is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryUnit {
    /// Bytes: `B`.
    Bytes,
    /// `kB`, 1024 bytes
    Kilobytes,
    /// `MB`, 1024 kilobytes
    Megabytes,
}

/// An amount of memory or storage.
#[derive(Debug)]
pub struct SizeSetting {
    number: IntSetting,
    unit_bytes: u64,
}

impl SizeSetting {
    /// An amount; default and bounds are counted in `unit` and not negative.
    #[must_use]
    pub const fn new(
        about: About,
        default: i32,
        bounds: RangeInclusive<i32>,
        unit: MemoryUnit,
    ) -> Self {
        assert!(*bounds.start() >= 0, "a size cannot be negative");
        let number = IntSetting::new(about, default, bounds);
        let (unit, unit_bytes) = match unit {
            MemoryUnit::Bytes => (Unit::Bytes, 1),
            MemoryUnit::Kilobytes => (Unit::Kilobytes, 1 << 10),
            MemoryUnit::Megabytes => (Unit::Megabytes, 1 << 20),
        };
        Self {
            number: number.unit(unit),
            unit_bytes,
        }
    }

    /// The same with a check, which sees bytes.
    #[must_use]
    pub const fn checked<C: Check<u64>>(
        about: About,
        default: i32,
        bounds: RangeInclusive<i32>,
        unit: MemoryUnit,
    ) -> Self {
        let mut setting = Self::new(about, default, bounds, unit);
        let check: IntCheckHook = match unit {
            MemoryUnit::Bytes => checks::size::<C, 1>,
            MemoryUnit::Kilobytes => checks::size::<C, 1024>,
            MemoryUnit::Megabytes => checks::size::<C, 1_048_576>,
        };
        setting.number.check = Some(check);
        setting
    }

    /// The present value, in bytes.
    #[must_use]
    pub fn get(&self, process: Process) -> u64 {
        times(self.number.get(process), self.unit_bytes)
    }
}

impl Setting for SizeSetting {
    fn about(&self) -> &About {
        self.number.about()
    }

    unsafe fn define(&'static self, major: Major) {
        // SAFETY: promised by the caller.
        unsafe { self.number.define(major) };
    }
}

/// A number of units in the small unit. 31 bits of megabytes fit in 64, so nothing is cut; negative numbers
/// are out of bounds and cannot get here.
pub(super) fn times(number: i32, unit: u64) -> u64 {
    u64::try_from(number)
        .unwrap_or_default()
        .saturating_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_number_of_the_largest_unit_fits() {
        assert_eq!(times(i32::MAX, 1 << 20), 2_147_483_647 * 1_048_576);
        assert_eq!(times(-1, 1000), 0);
    }
}
