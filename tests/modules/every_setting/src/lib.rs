//! A library whose only business are its parameters: one of each kind, with checks where there can be one,
//! and two that are read at server start only.
//!
//! On each reload of the server its worker writes all values to the log as the module sees them.

use module::settings::{
    About, BoolSetting, Check, DurationSetting, EnumSetting, IntSetting, MemoryUnit, SizeSetting,
    StringSetting, TimeUnit, Unit,
};
use module::{Failure, Level, Loading, Process, Registration, Report, Woken};
use std::time::Duration;

/// Refuses one value, and panics at another: both are refusals.
struct Checked;

impl Check for Checked {
    fn check(value: &str) -> Result<(), String> {
        match value {
            "panic" => panic!("asked to panic"),
            "wrong" => Err("It is the wrong text.".to_owned()),
            _ => Ok(()),
        }
    }
}

impl Check<i32> for Checked {
    fn check(value: &i32) -> Result<(), String> {
        if value % 2 == 0 {
            Ok(())
        } else {
            Err(format!("{value} is odd."))
        }
    }
}

impl Check<Duration> for Checked {
    fn check(value: &Duration) -> Result<(), String> {
        if *value == Duration::from_secs(90 * 60) {
            Err("It is exactly an hour and a half.".to_owned())
        } else {
            Ok(())
        }
    }
}

impl Check<u64> for Checked {
    fn check(value: &u64) -> Result<(), String> {
        if *value == 3 * 1024 * 1024 {
            Err("It is exactly three megabytes.".to_owned())
        } else {
            Ok(())
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Pace {
    Steady,
    Hurried,
}

static TEXT: StringSetting = StringSetting::checked::<Checked>(
    About::reload(c"every_setting.text", c"Sets a text."),
    c"default",
);
static FLAG: BoolSetting =
    BoolSetting::new(About::reload(c"every_setting.flag", c"Sets a flag."), true);
static PACE: EnumSetting<Pace> = EnumSetting::new(
    About::reload(c"every_setting.pace", c"Sets a pace."),
    &[(c"steady", Pace::Steady), (c"hurried", Pace::Hurried)],
);
static NUMBER: IntSetting = IntSetting::checked::<Checked>(
    About::reload(c"every_setting.number", c"Sets a number."),
    2,
    -10..=10,
);
static AMOUNT: IntSetting = IntSetting::new(
    About::reload(c"every_setting.amount", c"Sets a number with a unit."),
    64,
    0..=1024,
)
.unit(Unit::Kilobytes);
static MILLISECONDS: DurationSetting = DurationSetting::new(
    About::reload(c"every_setting.milliseconds", c"Sets a short time."),
    250,
    0..=60_000,
    TimeUnit::Milliseconds,
);
static MINUTES: DurationSetting = DurationSetting::checked::<Checked>(
    About::reload(c"every_setting.minutes", c"Sets a long time."),
    5,
    0..=1440,
    TimeUnit::Minutes,
);
static BYTES: SizeSetting = SizeSetting::new(
    About::reload(c"every_setting.bytes", c"Sets a small size."),
    512,
    0..=i32::MAX,
    MemoryUnit::Bytes,
);
static MEGABYTES: SizeSetting = SizeSetting::checked::<Checked>(
    About::reload(c"every_setting.megabytes", c"Sets a large size."),
    1,
    0..=i32::MAX,
    MemoryUnit::Megabytes,
);
static FIXED: StringSetting = StringSetting::new(
    About::restart(c"every_setting.fixed", c"Sets a text at server start.")
        .long(c"It cannot change later."),
    c"at start",
);

fn on_load(loading: Loading) -> Result<(), Failure> {
    if !loading.preloading() {
        return Ok(());
    }
    loading.reserve_prefix(c"every_setting")?;
    loading.register_worker(Registration {
        name: c"every setting",
        library: c"every_setting",
        function: c"every_setting_worker",
        restart_after: Duration::from_secs(1),
    })
}

fn work(process: Process) -> Result<(), Failure> {
    loop {
        let values = format!(
            "values: {:?} {} {:?} {} {} {:?} {:?} {} {} {:?}",
            TEXT.get(process),
            FLAG.get(process),
            PACE.get(process),
            NUMBER.get(process),
            AMOUNT.get(process),
            MILLISECONDS.get(process),
            MINUTES.get(process),
            BYTES.get(process),
            MEGABYTES.get(process),
            FIXED.get(process),
        );
        process.report(&Report::new(Level::Log, values));
        match process.idle(None)? {
            Woken::Reload => process.reload_configuration()?,
            Woken::Shutdown | Woken::PostmasterGone => return Ok(()),
            Woken::Event | Woken::Deadline => {}
        }
    }
}

module::export! {
    settings: [
        TEXT, FLAG, PACE, NUMBER, AMOUNT, MILLISECONDS, MINUTES, BYTES, MEGABYTES, FIXED,
    ],
    load: on_load,
    worker: every_setting_worker => work,
}
