//! The kit's settings as a server sees them: shown, converted, checked, fixed at start.

use anyhow::Result;
use lab::{Cluster, Lab, Mark, scenario};
use walden_examples_tests::SEGMENT_MB;

/// A running server with the library of all kinds of parameters preloaded.
fn server(lab: &Lab) -> Result<Cluster<'_>> {
    lab.require_library("every_setting")?;
    let settings = lab
        .settings()
        .with("shared_preload_libraries", "every_setting")
        .with("every_setting.fixed", "as configured");
    let server = lab.cluster("server", SEGMENT_MB, settings)?;
    server.start()?;
    Ok(server)
}

#[test]
fn every_kind_of_parameter_is_shown_with_its_unit_bounds_and_words() -> Result<()> {
    scenario(|lab| {
        let server = server(lab)?;
        let shown = server.sql(
            "select split_part(name, '.', 2), vartype, setting, coalesce(unit, '-'), \
                    coalesce(min_val, '-'), coalesce(max_val, '-'), coalesce(enumvals::text, '-'), context, \
                    coalesce(extra_desc, '-') \
             from pg_settings where name like 'every_setting.%' order by name",
        )?;
        let expected = "\
amount|integer|64|kB|0|1024|-|sighup|-
bytes|integer|512|B|0|2147483647|-|sighup|-
fixed|string|as configured|-|-|-|-|postmaster|It cannot change later.
flag|bool|on|-|-|-|-|sighup|-
megabytes|integer|1|MB|0|2147483647|-|sighup|-
milliseconds|integer|250|ms|0|60000|-|sighup|-
minutes|integer|5|min|0|1440|-|sighup|-
number|integer|2|-|-10|10|-|sighup|-
pace|enum|steady|-|-|-|{steady,hurried}|sighup|-
text|string|default|-|-|-|-|sighup|-";
        assert_eq!(shown, expected);
        Ok(())
    })
}

#[test]
fn a_module_sees_values_in_its_own_types_and_the_server_converts_units() -> Result<()> {
    scenario(|lab| {
        let server = server(lab)?;
        let first = "values: \"default\" true Steady 2 64 250ms 300s 512 1048576 \"as configured\"";
        server.wait_for_log(Mark::default(), &[first])?;
        let mark = server.mark()?;
        server.reload(|settings| {
            for (name, value) in [
                ("text", "gr\u{fc}n"),
                ("flag", "no"),
                ("pace", "hurried"),
                ("number", "-4"),
                ("amount", "1MB"),
                ("milliseconds", "2s"),
                ("minutes", "2h"),
                ("bytes", "2kB"),
                ("megabytes", "2TB"),
            ] {
                settings.set(&format!("every_setting.{name}"), value);
            }
        })?;
        let then = "values: \"gr\u{fc}n\" false Hurried -4 1024 2s 7200s 2048 2199023255552 \"as configured\"";
        server.wait_for_log(mark, &[then])?;
        assert_eq!(server.sql("show every_setting.megabytes")?, "2TB");
        Ok(())
    })
}

#[test]
fn a_check_refuses_a_value_with_its_reason_and_the_old_value_stays() -> Result<()> {
    scenario(|lab| {
        let server = server(lab)?;
        for (name, value, reason) in [
            ("text", "wrong", "It is the wrong text."),
            ("text", "panic", "panic in the module: asked to panic"),
            ("number", "3", "3 is odd."),
            ("number", "12", "12 is outside the valid range"),
            ("minutes", "90", "It is exactly an hour and a half."),
            ("megabytes", "3MB", "It is exactly three megabytes."),
        ] {
            let name = format!("every_setting.{name}");
            let before = server.sql(&format!("show {name}"))?;
            let mark = server.mark()?;
            server.reload(|settings| settings.set(&name, value))?;
            server.wait_for_log(mark, &[&name, reason])?;
            assert_eq!(server.sql(&format!("show {name}"))?, before, "{value}");
            server.configure(|settings| settings.remove(&name))?;
        }
        Ok(())
    })
}

#[test]
fn a_parameter_of_server_start_keeps_its_value_until_the_next() -> Result<()> {
    scenario(|lab| {
        let server = server(lab)?;
        let mark = server.mark()?;
        server.reload(|settings| settings.set("every_setting.fixed", "other"))?;
        server.wait_for_log(
            mark,
            &[
                "every_setting.fixed",
                "cannot be changed without restarting",
            ],
        )?;
        assert_eq!(server.sql("show every_setting.fixed")?, "as configured");
        Ok(())
    })
}

#[test]
fn a_wrong_value_at_start_and_a_misspelt_name_are_warned_of_and_the_default_counts() -> Result<()> {
    scenario(|lab| {
        lab.require_library("every_setting")?;
        let settings = lab
            .settings()
            .with("shared_preload_libraries", "every_setting")
            .with("every_setting.number", "3")
            .with("every_setting.nmuber", "4");
        let server = lab.cluster("server", SEGMENT_MB, settings)?;
        server.start()?;
        server.wait_for_log(
            Mark::default(),
            &["WARNING", "every_setting.number", "3 is odd."],
        )?;
        server.wait_for_log(Mark::default(), &["WARNING", "every_setting.nmuber"])?;
        assert_eq!(server.sql("show every_setting.number")?, "2");
        Ok(())
    })
}

#[test]
fn without_preloading_what_may_change_on_reload_is_defined_in_a_session_too() -> Result<()> {
    scenario(|lab| {
        lab.require_library("every_setting")?;
        let server = lab.cluster("server", SEGMENT_MB, lab.settings())?;
        server.start()?;
        let answer = server.sql(
            "load 'every_setting'; show every_setting.minutes; \
             select count(*) from pg_settings where name = 'every_setting.fixed';",
        )?;
        assert_eq!(answer, "5min\n0");
        Ok(())
    })
}
