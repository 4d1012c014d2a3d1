//! Metrics in the text format that every version of Prometheus reads.
//!
//! `prometheus-client` writes the `OpenMetrics` format, in which the type line of a counter lacks the `_total` of its
//! samples. Readers of the older text format, such as `promtool check metrics`, treat these samples as metrics without a
//! type. The output of this module is valid in both formats.

use prometheus_client::registry::Registry;

/// The media type of the text format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of the registry in the text format, version 0.0.4.
pub(crate) fn encode(registry: &Registry) -> String {
    let mut open_metrics = String::new();
    if prometheus_client::encoding::text::encode(&mut open_metrics, registry).is_err() {
        // Writing to a string cannot fail. If one of our encoders fails, the page lacks the rest of the metrics.
        tracing::error!("cannot encode all metrics");
    }
    to_text_format(&open_metrics)
}

fn to_text_format(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 1024);
    let mut help: Option<&str> = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = Some(rest);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, words)) = help.take().and_then(|help| help.split_once(' ')) {
                push(&mut text, &["# HELP ", name, suffix, " ", words]);
            }
            let kind = if kind == "unknown" { "untyped" } else { kind };
            push(&mut text, &["# TYPE ", name, suffix, " ", kind]);
        } else if !line.starts_with("# UNIT ") && line != "# EOF" {
            push(&mut text, &[line]);
        }
    }
    text
}

fn push(text: &mut String, parts: &[&str]) {
    for part in parts {
        text.push_str(part);
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;

    #[test]
    fn the_type_line_of_a_counter_has_the_name_of_its_samples() {
        let mut registry = Registry::default();
        registry.register("answers", "Answers given", Counter::<u64>::default());
        registry.register("backends", "Backends known", Gauge::<i64>::default());
        assert_eq!(
            encode(&registry),
            "# HELP answers_total Answers given.\n# TYPE answers_total counter\nanswers_total 0\n\
             # HELP backends Backends known.\n# TYPE backends gauge\nbackends 0\n"
        );
    }
}
