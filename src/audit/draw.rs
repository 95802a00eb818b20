//! A trace for people: a tree of text for the terminal, and a Mermaid flowchart for a wiki.

use super::{
    display::{Paint, pad, plain},
    record::{Telling, Verdict},
    trace::{Call, Outcome, Trace, TryKey, Visit},
};
use crate::clock::Timestamp;

/// The columns of a request, each as wide as its widest cell.
const COLUMNS: usize = 7;

impl Trace {
    /// The trace as a tree, one request a line, with the columns aligned. `color` adds terminal colours.
    pub fn render_text(&self, color: bool) -> String {
        let paint = Paint(color);
        let mut text = self.heading(paint);
        let widths = self.calls().fold([0; COLUMNS], |widths, call| {
            let mut cells = cells(call).map(|cell| cell.chars().count());
            cells.iter_mut().zip(widths).for_each(|(cell, width)| *cell = width.max(*cell));
            cells
        });
        for (visit, is_last) in with_last(&self.states) {
            let (branch, trunk) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            text.push_str(&format!("{branch}{}\n", self.visit(visit, paint)));
            for (attempt, is_last) in with_last(&visit.attempts) {
                let (branch, twig) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
                text.push_str(&format!("{trunk}{branch}{}\n", attempt_title(&attempt.key)));
                for (call, is_last) in with_last(&attempt.requests) {
                    let branch = if is_last { "└─ " } else { "├─ " };
                    let line = format!("{trunk}{twig}{branch}{}", line(call, &widths, paint));
                    text.push_str(line.trim_end());
                    text.push('\n');
                }
            }
        }
        text.push('\n');
        text.push_str(&self.foot());
        text
    }

    fn heading(&self, paint: Paint) -> String {
        let mut rows = vec![("execution", format!("{} ({})", self.execution, self.assurance.as_str()))];
        rows.extend(self.workloads.iter().map(|workload| ("workload", plain(workload))));
        rows.extend(self.policy_revisions.iter().map(|revision| ("policy", plain(revision))));
        let span = self.last.since(self.first).as_secs_f64();
        rows.push(("when", format!("{}, {span:.3} s from the first record to the last", self.first.rfc3339())));
        let mut text = String::new();
        for (name, value) in rows {
            text.push_str(&format!("{}  {value}\n", paint.dim(&pad(name, 9))));
        }
        text.push('\n');
        text
    }

    fn visit(&self, visit: &Visit, paint: Paint) -> String {
        let mut title = paint.bold(&plain(visit.state.as_deref().unwrap_or("(no state given)")));
        if let Some(assurance) = visit.assurance.filter(|assurance| *assurance != self.assurance) {
            title.push_str(&format!(" ({})", assurance.as_str()));
        }
        if let Some(entered) = &visit.entered {
            title.push_str(&paint.dim(&format!("  entered {}", plain(entered))));
        }
        title
    }

    fn foot(&self) -> String {
        let totals = &self.totals;
        let mut parts = Vec::new();
        for (count, word) in [
            (totals.allowed, "allowed"),
            (totals.denied, "denied"),
            (totals.rejected, "rejected"),
            (totals.unknown, "with unknown outcome"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {word}"));
            }
        }
        let plural = if totals.requests == 1 { "" } else { "s" };
        format!(
            "{} request{plural}: {}; {:.2} RU, {:.1} ms in Cosmos\n",
            totals.requests,
            parts.join(", "),
            totals.request_units,
            totals.latency_ms
        )
    }

    /// The trace as a Mermaid flowchart.
    pub fn render_mermaid(&self) -> String {
        let mut text = format!("flowchart LR\n  execution[\"{}\"]\n", quote(&self.execution));
        for (visit, v) in self.states.iter().zip(0..) {
            let name = visit.state.as_deref().unwrap_or("(no state given)");
            text.push_str(&format!("  execution --> s{v}[\"{}\"]\n", quote(name)));
            for (attempt, a) in visit.attempts.iter().zip(0..) {
                text.push_str(&format!("  s{v} --> s{v}a{a}([\"{}\"])\n", quote(&attempt_title(&attempt.key))));
                for (call, c) in attempt.requests.iter().zip(0..) {
                    let [_, operation, target, decision, status, ru, latency] = cells(call);
                    let facts = [decision, status, ru.trim().to_owned(), latency.trim().to_owned()];
                    let facts: Vec<String> = facts.into_iter().filter(|fact| !fact.is_empty()).collect();
                    let mut lines = vec![quote(&format!("{operation} {target}")), quote(&facts.join(", "))];
                    lines.extend(call.clauses.iter().map(|clause| quote(clause)));
                    let class = class(call);
                    text.push_str(&format!("  s{v}a{a} --> s{v}a{a}r{c}[\"{}\"]:::{class}\n", lines.join("<br/>")));
                }
            }
        }
        text.push_str("  classDef allow fill:#e6f4ea,stroke:#137333,color:#202124\n");
        text.push_str("  classDef refused fill:#fce8e6,stroke:#c5221f,color:#202124\n");
        text.push_str("  classDef unknown fill:#fef7e0,stroke:#b06000,color:#202124\n");
        text
    }
}

fn class(call: &Call) -> &'static str {
    match (call.outcome, call.decision) {
        (Outcome::Unknown | Outcome::Pending, _) => "unknown",
        (_, Some(Verdict::Allow)) => "allow",
        _ => "refused",
    }
}

fn with_last<T>(items: &[T]) -> impl Iterator<Item = (&T, bool)> {
    let count = items.len();
    items.iter().zip(1..).map(move |(item, n)| (item, n == count))
}

fn attempt_title(key: &TryKey) -> String {
    let mut title = match key.attempt {
        Some(attempt) => format!("attempt {attempt}"),
        None => "(no attempt given)".to_owned(),
    };
    if let Some(redrive) = key.redrive.filter(|redrive| *redrive > 0) {
        title.push_str(&format!(", redrive {redrive}"));
    }
    if let Some(item) = key.item {
        title.push_str(&format!(", item {item}"));
    }
    title
}

fn cells(call: &Call) -> [String; COLUMNS] {
    let status = match (call.outcome, call.status) {
        (Outcome::Unknown, _) => "outcome unknown".to_owned(),
        (Outcome::Pending, _) => "no outcome yet".to_owned(),
        (Outcome::Answered, Some(status)) => {
            let error = call.error.as_deref().map(|error| format!(" {}", plain(error))).unwrap_or_default();
            let sent = if call.sent > 1 { format!(" (sent {} times)", call.sent) } else { String::new() };
            let told = call.told.filter(|told| *told != Telling::First);
            let told = told.map(|told| format!(" {}", told.as_str())).unwrap_or_default();
            let masked = call.masked.join(", ");
            let masked = if masked.is_empty() { masked } else { format!(" without {masked}") };
            format!("{status}{error}{told}{sent}{masked}")
        }
        (Outcome::Answered, None) => String::new(),
    };
    [
        time_of_day(call.time),
        call.operation.unwrap_or("-").to_owned(),
        call.target.clone(),
        call.decision.map_or("-", Verdict::as_str).to_owned(),
        status,
        call.request_units.map(|units| format!("{units:.2} RU")).unwrap_or_default(),
        call.latency_ms.map(|millis| format!("{millis:.1} ms")).unwrap_or_default(),
    ]
}

fn line(call: &Call, widths: &[usize; COLUMNS], paint: Paint) -> String {
    let [time, operation, target, decision, status, units, latency] = cells(call);
    let [w_time, w_operation, w_target, w_decision, w_status, w_units, w_latency] = *widths;
    let is_bad = call.outcome != Outcome::Answered || call.status.is_some_and(|status| status >= 400);
    let status = pad(&status, w_status);
    [
        paint.dim(&pad(&time, w_time)),
        pad(&operation, w_operation),
        pad(&target, w_target),
        paint.verdict(call.decision, &pad(&decision, w_decision)),
        if is_bad { paint.bad(&status) } else { status },
        format!("{units:>w_units$}"),
        format!("{latency:>w_latency$}"),
        call.clauses.join(", "),
    ]
    .join("  ")
}

/// `19:29:22.123`
pub(super) fn time_of_day(time: Timestamp) -> String {
    time.rfc3339().get(11..23).unwrap_or_default().to_owned()
}

/// Text inside the quotes of a Mermaid node, where `#`-codes stand for what Mermaid or HTML would read.
fn quote(text: &str) -> String {
    plain(text).chars().fold(String::new(), |mut quoted, c| {
        match c {
            '"' | '#' | '<' | '>' | '&' | ';' | '`' | '\\' => quoted.push_str(&format!("#{};", u32::from(c))),
            c => quoted.push(c),
        }
        quoted
    })
}
