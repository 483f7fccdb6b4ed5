//! Metrics as text: the Prometheus format 0.0.4, or OpenMetrics.
//!
//! Guarantees: each metric has its help and type before its samples, and all its samples together; a value that is not known
//! has no sample. Left to others: what the values are.

use std::fmt::{Display, Write};

/// In which of the two forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `text/plain; version=0.0.4`
    Prometheus,
    /// `application/openmetrics-text; version=1.0.0`
    OpenMetrics,
}

impl Format {
    /// What a scraper gets that accepts this.
    pub(crate) fn accepted(accept: &str) -> Format {
        if accept.contains("application/openmetrics-text") {
            Format::OpenMetrics
        } else {
            Format::Prometheus
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Kinds of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Gauge,
    Counter,
    Histogram,
}

/// A text that grows.
pub(crate) struct Page {
    format: Format,
    text: String,
}

/// One metric, whose samples are being written.
pub(crate) struct Metric<'a> {
    page: &'a mut Page,
    name: &'static str,
}

impl Page {
    pub(crate) fn new(format: Format) -> Page {
        let text = String::new();
        Page { format, text }
    }

    /// Begins a metric. The names of counters end in `_total`, which OpenMetrics wants in samples alone.
    pub(crate) fn metric(&mut self, name: &'static str, kind: Kind, help: &str) -> Metric<'_> {
        let family = match self.format {
            Format::OpenMetrics => name.trim_end_matches("_total"),
            Format::Prometheus => name,
        };
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(self.text, "# HELP {family} {help}");
        let _ = writeln!(self.text, "# TYPE {family} {kind}");
        Metric { page: self, name }
    }

    /// A metric of one sample; none if it is not known.
    pub(crate) fn one(
        &mut self,
        name: &'static str,
        kind: Kind,
        help: &str,
        value: Option<impl Display>,
    ) {
        if let Some(value) = value {
            self.metric(name, kind, help).sample(&[], value);
        }
    }

    pub(crate) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

impl Metric<'_> {
    pub(crate) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.write("", labels, value);
    }

    /// The samples of a histogram; the bounds are upper bounds in seconds, each with what lies below it and above the one
    /// before.
    pub(crate) fn histogram(&mut self, labels: &[(&str, &str)], latency: &status::Histogram) {
        let mut below = 0;
        for (bound_ms, count) in &latency.buckets {
            below += count;
            #[expect(clippy::cast_precision_loss, reason = "bounds are small")]
            let bound = (*bound_ms as f64 / 1000.0).to_string();
            let labels = [labels, &[("le", bound.as_str())]].concat();
            self.write("_bucket", &labels, below);
        }
        let labels_inf = [labels, &[("le", "+Inf")]].concat();
        self.write("_bucket", &labels_inf, latency.count);
        self.write("_sum", labels, latency.seconds);
        self.write("_count", labels, latency.count);
    }

    fn write(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let text = &mut self.page.text;
        text.push_str(self.name);
        text.push_str(suffix);
        for (number, (name, value)) in labels.iter().enumerate() {
            text.push(if number == 0 { '{' } else { ',' });
            let _ = write!(text, "{name}=\"{}\"", escaped(value));
        }
        if !labels.is_empty() {
            text.push('}');
        }
        let _ = writeln!(text, " {value}");
    }
}

/// A label's value, as both formats want it.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(format: Format) -> String {
        let mut page = Page::new(format);
        page.one("a_up", Kind::Gauge, "Whether.", Some(1));
        page.one("a_unknown", Kind::Gauge, "Not known.", None::<u64>);
        let mut counter = page.metric("a_files_total", Kind::Counter, "Files.");
        counter.sample(&[("result", "a\"b")], 7);
        let latency = status::Histogram {
            buckets: vec![(1, 2), (500, 1)],
            count: 4,
            seconds: 9.5,
        };
        let mut histogram = page.metric("a_seconds", Kind::Histogram, "How long.");
        histogram.histogram(&[("op", "put")], &latency);
        page.finish()
    }

    #[test]
    fn the_prometheus_format_has_help_type_and_samples_of_what_is_known() {
        assert_eq!(
            page(Format::Prometheus),
            "# HELP a_up Whether.\n# TYPE a_up gauge\na_up 1\n\
             # HELP a_files_total Files.\n# TYPE a_files_total counter\na_files_total{result=\"a\\\"b\"} 7\n\
             # HELP a_seconds How long.\n# TYPE a_seconds histogram\n\
             a_seconds_bucket{op=\"put\",le=\"0.001\"} 2\na_seconds_bucket{op=\"put\",le=\"0.5\"} 3\n\
             a_seconds_bucket{op=\"put\",le=\"+Inf\"} 4\na_seconds_sum{op=\"put\"} 9.5\na_seconds_count{op=\"put\"} 4\n"
        );
    }

    #[test]
    fn open_metrics_names_counters_without_their_suffix_and_has_an_end() {
        let text = page(Format::OpenMetrics);
        assert!(
            text.contains("# TYPE a_files counter\na_files_total{"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
