//! The two forms in which metrics are read: OpenMetrics 1.0 for scrapers that ask for it, which alone can carry exemplars,
//! and the Prometheus text format 0.0.4 for `curl`, `promtool` and everyone else.

use http::{HeaderMap, header::ACCEPT};

/// A form of the metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exposition {
    /// `text/plain; version=0.0.4`
    Text,
    /// `application/openmetrics-text; version=1.0.0`
    OpenMetrics,
}

impl Exposition {
    /// The form that a scraper asks for.
    pub fn wanted(headers: &HeaderMap) -> Self {
        let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        if accepted.any(|value| value.contains("application/openmetrics-text")) {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// Its content type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// OpenMetrics as text format 0.0.4: there a counter's family has the name of its samples, and units, exemplars and the end
/// are unknown.
pub(super) fn as_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = "";
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest;
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let total = if kind == "counter" { "_total" } else { "" };
            let about = help.strip_prefix(name).unwrap_or_default();
            text.extend(["# HELP ", name, total, about, "\n# TYPE ", name, total, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            text.extend([without_exemplar(line), "\n"]);
        }
    }
    text
}

/// A sample up to its exemplar, if it has one: ` # ` outside of quotes.
fn without_exemplar(sample: &str) -> &str {
    let (mut quoted, mut escaped) = (false, false);
    let end = sample.bytes().position(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b'#' => return !quoted,
            _ => {}
        }
        false
    });
    end.and_then(|end| sample.get(..end)).map_or(sample, str::trim_end)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_scraper_gets_what_it_asks_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, wanted) in [
            (None, Exposition::Text),
            (Some("*/*"), Exposition::Text),
            (Some("text/plain"), Exposition::Text),
            (Some(prometheus), Exposition::OpenMetrics),
        ] {
            let headers = accept.map(|accept| (ACCEPT, HeaderValue::from_static(accept)));
            assert_eq!(Exposition::wanted(&headers.into_iter().collect()), wanted, "{accept:?}");
        }
    }

    #[test]
    fn text_knows_no_units_and_no_exemplars_and_counters_by_their_samples() {
        let open = "\
# HELP a_b Things.
# TYPE a_b counter
a_b_total{x=\"1 # {2\",y=\"\\\"#\"} 3 # {trace_id=\"ab\"} 1
# HELP t_seconds Times.
# TYPE t_seconds histogram
# UNIT t_seconds seconds
t_seconds_sum 1.5
t_seconds_bucket{le=\"+Inf\"} 2 # {trace_id=\"ab\"} 0.7
# EOF
";
        let text = "\
# HELP a_b_total Things.
# TYPE a_b_total counter
a_b_total{x=\"1 # {2\",y=\"\\\"#\"} 3
# HELP t_seconds Times.
# TYPE t_seconds histogram
t_seconds_sum 1.5
t_seconds_bucket{le=\"+Inf\"} 2
";
        assert_eq!(as_text(open), text);
    }
}
