//! The metrics as a real Prometheus takes them, and the alert rules and the dashboard that `contrib/monitoring` ships.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use lab::{Cluster, DEADLINE, Lab, scenario, stores, wait_for, wait_until};
use rustix::process::Signal;
use serde_json::Value;

use crate::common::{SMALL_MB, primary, write};
use crate::monitoring::get;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const RULES: &str = "contrib/monitoring/walden.rules.yml";
const DASHBOARD: &str = "contrib/monitoring/walden-dashboard.json";

/// How many times the rules have to be evaluated before a server counts as one that raises no alert.
const EVALUATIONS: usize = 6;

fn shipped(path: &str) -> Result<String> {
    let path = Path::new(ROOT).join(path);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

fn program(name: &str) -> Result<PathBuf> {
    Ok(stores::folder("prometheus")?.join("bin").join(name))
}

/// A child that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}

/// The rules with everything that takes minutes taking seconds.
fn hurried(rules: &str) -> String {
    let lines = rules.lines().map(|line| {
        let indent = line.len() - line.trim_start().len();
        if line.trim_start().starts_with("for: ") {
            format!("{}for: 1s", " ".repeat(indent))
        } else {
            line.replace("_age_seconds > 600", "_age_seconds > 2")
        }
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

struct Prometheus {
    port: u16,
    _running: Running,
}

impl Prometheus {
    /// One that scrapes this port each second, with the shipped rules.
    fn start(lab: &Lab, scraped: u16) -> Result<Prometheus> {
        let dir = lab.dir().join("prometheus");
        fs::create_dir(&dir)?;
        let rules = shipped(RULES)?;
        ensure!(hurried(&rules) != rules, "the rules take no time");
        fs::write(dir.join("rules.yml"), hurried(&rules))?;
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: [rules.yml]\n\
             scrape_configs:\n- job_name: walden\n  static_configs: [{{targets: ['127.0.0.1:{scraped}']}}]\n"
        );
        fs::write(dir.join("prometheus.yml"), config)?;
        let port = free_port()?;
        let mut command = Command::new(program("prometheus")?);
        command
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .current_dir(&dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let running = Running(command.spawn().context("prometheus does not run")?);
        let prometheus = Prometheus {
            port,
            _running: running,
        };
        prometheus.wait_for_evaluations(1)?;
        Ok(prometheus)
    }

    fn ask(&self, path: &str) -> Option<Value> {
        let answer = get(self.port, path, "application/json").ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let is_chunked = head
            .to_ascii_lowercase()
            .contains("transfer-encoding: chunked");
        let start = if is_chunked { body.find('{')? } else { 0 };
        let mut documents =
            serde_json::Deserializer::from_str(body.get(start..)?).into_iter::<Value>();
        documents.next()?.ok()
    }

    /// When the rules were evaluated last; `None` before the first time.
    fn evaluated_at(&self) -> Option<String> {
        let rules = self.ask("/api/v1/rules")?;
        let at = rules.pointer("/data/groups/0/lastEvaluation")?.as_str()?;
        (!at.starts_with("0001")).then(|| at.to_owned())
    }

    /// Waits until the rules were evaluated so often.
    fn wait_for_evaluations(&self, count: usize) -> Result<()> {
        let mut seen = BTreeSet::new();
        wait_until("the rules to be evaluated", || {
            seen.extend(self.evaluated_at());
            Ok(seen.len() >= count)
        })
    }

    /// Names of the alerts in this state.
    fn alerts(&self, state: &str) -> Result<BTreeSet<String>> {
        let answer = self.ask("/api/v1/alerts").context("no answer")?;
        let alerts = answer.pointer("/data/alerts").and_then(Value::as_array);
        let of = alerts.context("no alerts")?.iter();
        let of = of.filter(|alert| alert.get("state").is_some_and(|is| is == state));
        let names = of.filter_map(|alert| alert.pointer("/labels/alertname")?.as_str());
        Ok(names.map(str::to_owned).collect())
    }

    fn wait_for_alert(&self, name: &str) -> Result<()> {
        wait_until(&format!("alert {name} to fire"), || {
            Ok(self.alerts("firing")?.contains(name))
        })
    }

    fn wait_for_silence(&self) -> Result<()> {
        wait_until("the alerts to end", || {
            Ok(self.alerts("firing")?.is_empty() && self.alerts("pending")?.is_empty())
        })
    }
}

fn served(lab: &Lab, cluster: &Cluster) -> Result<(u16, Running)> {
    let port = free_port()?;
    let mut command = lab.command("walden");
    command.arg("-D").arg(cluster.data());
    command.args(["metrics", "--listen", &port.to_string()]);
    let served = command.stdout(Stdio::null()).stderr(Stdio::null());
    let served = Running(served.spawn()?);
    wait_for("metrics to be served", DEADLINE, || {
        Ok(get(port, "/metrics", "*/*")
            .ok()
            .filter(|page| page.contains("walden_up 1")))
    })?;
    Ok((port, served))
}

#[test]
fn alerts_fire_while_archiving_fails_or_stands_still_and_not_on_an_idle_server() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        primary.base_backup("backup")?;
        primary.archive_everything()?;
        let (scraped, serving) = served(lab, &primary)?;
        let prometheus = Prometheus::start(lab, scraped)?;
        // Before the first scrape metrics are gone, and no alert waits for minutes here.
        prometheus.wait_for_silence()?;
        prometheus.wait_for_evaluations(EVALUATIONS)?;
        for state in ["pending", "firing"] {
            assert_eq!(
                prometheus.alerts(state)?,
                BTreeSet::new(),
                "{state} though idle"
            );
        }

        let away = archive.path().with_extension("away");
        fs::rename(archive.path(), &away)?;
        write(&primary, 1)?;
        primary.switch_segment()?;
        prometheus.wait_for_alert("WaldenArchivingFails")?;
        prometheus.wait_for_alert("WaldenArchivingIsBehind")?;
        fs::rename(&away, archive.path())?;
        primary.wait_until_archived()?;
        prometheus.wait_for_silence()?;

        let archiver = primary.wait_for_process("archiver")?;
        archiver.pause()?;
        prometheus.wait_for_alert("WaldenArchiverStuck")?;
        archiver.signal(Signal::CONT)?;
        prometheus.wait_for_silence()?;

        primary.kill()?;
        prometheus.wait_for_alert("WaldenDown")?;
        drop(serving);
        prometheus.wait_for_alert("WaldenMetricsGone")
    })
}

/// What promtool says to this on its standard input, and whether it is content.
fn promtool(arguments: &[&str], input: &str) -> Result<(bool, String)> {
    let mut child = Command::new(program("promtool")?)
        .args(arguments)
        .current_dir(ROOT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    Ok((output.status.success(), said))
}

#[test]
fn promtool_is_content_with_the_metrics_and_the_rules() -> Result<()> {
    scenario(|lab| {
        let (is_right, said) = promtool(&["check", "rules", RULES], "")?;
        ensure!(is_right, "{said}");
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        primary.base_backup("backup")?;
        primary.archive_everything()?;
        let mut command = lab.command("walden");
        let page = lab::run(command.arg("-D").arg(primary.data()).arg("metrics"))?.success()?;
        let (is_right, said) = promtool(&["check", "metrics"], &page)?;
        ensure!(is_right && said.trim().is_empty(), "{said}");
        let (is_right, _) = promtool(&["check", "metrics"], "walden_up up\n")?;
        ensure!(!is_right, "promtool takes everything");
        Ok(())
    })
}

/// What a scrape of the server `a` brings each minute, and the one alert that fires after ten of them.
const TEN_MINUTES: [(&str, &[(&str, &str)]); 4] = [
    (
        "WaldenArchivingFails",
        &[
            ("walden_build_info", "1x10"),
            (
                "walden_archive_failing{cause=\"store\"}",
                "1 0 1 0 1 0 1 0 1 0 1",
            ),
            (
                "walden_archive_failing{cause=\"module\"}",
                "0 1 0 1 0 1 0 1 0 1 0",
            ),
        ],
    ),
    (
        "WaldenRestoreFails",
        &[
            ("walden_build_info", "1x10"),
            ("walden_restore_failing", "0x10"),
            ("walden_restore_hanging", "1x10"),
        ],
    ),
    (
        "WaldenMetricsGone",
        &[
            ("walden_build_info", "1x10"),
            ("up{job=\"walden\"}", "0x10"),
        ],
    ),
    ("WaldenMetricsGone", &[("walden_up", "1 1 _x9")]),
];

/// A test of the shipped rules as promtool takes it: with these series exactly this alert fires.
fn rule_test(alert: &str, series: &[(&str, &str)]) -> String {
    let rules = Path::new(ROOT).join(RULES);
    let mut test = format!(
        "rule_files: ['{}']\nevaluation_interval: 1m\ntests:\n- interval: 1m\n  input_series:\n",
        rules.display()
    );
    for (series, values) in series {
        test += &format!("  - {{series: '{series}', values: '{values}'}}\n");
    }
    test + &format!(
        "  promql_expr_test:\n  - expr: count by (alertname) (ALERTS{{alertstate=\"firing\"}})\n    \
         eval_time: 10m\n    exp_samples: [{{labels: '{{alertname=\"{alert}\"}}', value: 1}}]\n"
    )
}

#[test]
fn alerts_fire_when_causes_alternate_when_a_module_hangs_and_when_nothing_is_served() -> Result<()>
{
    for (alert, series) in TEN_MINUTES {
        let test = |alert| promtool(&["test", "rules", "/dev/stdin"], &rule_test(alert, series));
        let (is_right, said) = test(alert)?;
        ensure!(is_right, "{alert}: {said}");
        let (is_right, _) = test("WaldenDown")?;
        ensure!(!is_right, "promtool takes everything");
    }
    Ok(())
}

/// The names of metrics in a text, without what a histogram appends to its own.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let words = words.filter(|word| word.starts_with("walden_"));
    let plain = words.map(|word| {
        ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| word.strip_suffix(suffix))
            .unwrap_or(word)
    });
    plain.map(str::to_owned).collect()
}

#[test]
fn rules_dashboard_and_book_name_metrics_that_there_are() -> Result<()> {
    let source = shipped("crates/cli/src/metrics/mod.rs")?;
    let literals = source.split('"').filter(|text| {
        text.starts_with("walden_") && !text.contains(|c: char| c != '_' && !c.is_ascii_lowercase())
    });
    let there: BTreeSet<String> = literals.map(str::to_owned).collect();
    ensure!(there.len() > 15, "the search is blind: {there:?}");
    for path in [RULES, DASHBOARD, "docs/src/monitoring.md"] {
        let named = metrics_in(&shipped(path)?);
        let unknown: Vec<_> = named.difference(&there).collect();
        ensure!(unknown.is_empty(), "{path} names {unknown:?}");
        ensure!(named.len() > 5, "{path}: the search is blind");
    }
    let book = metrics_in(&shipped("docs/src/monitoring.md")?);
    let missing: Vec<_> = there.difference(&book).collect();
    ensure!(missing.is_empty(), "the book lacks {missing:?}");
    let dashboard: Value = serde_json::from_str(&shipped(DASHBOARD)?)?;
    ensure!(
        dashboard["panels"]
            .as_array()
            .is_some_and(|panels| panels.len() > 8)
    );
    Ok(())
}
