//! The log as it grows, one line a record, for the person who watches it.

use super::{
    display::{Paint, clause, pad, plain, target},
    draw::time_of_day,
    record::{Phase, Record, Verdict},
    trace::is_called,
};

/// Which records to show; a record must match all that is set.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    /// The execution, by its ARN or the last part of it.
    pub execution: Option<String>,
    /// The decision.
    pub decision: Option<Verdict>,
    /// The phase.
    pub phase: Option<Phase>,
    /// The operation's word, such as `items/read`.
    pub operation: Option<String>,
    /// The container, as `database/container`.
    pub container: Option<String>,
    /// The subject, as `issuer/subject` or the subject alone.
    pub subject: Option<String>,
    /// The request id.
    pub request: Option<String>,
}

impl Filter {
    /// Whether the record is to be shown.
    pub fn admits(&self, record: &Record) -> bool {
        let (entry, question) = (&record.entry, &record.entry.question);
        let execution = entry.context.execution.as_ref().map(|fact| &fact.value);
        let subject = entry.who.as_ref().map(|who| &who.subject);
        holds(&self.execution, |name| execution.is_some_and(|arn| is_called(arn, name)))
            && holds(&self.decision, |verdict| entry.decision.as_ref().is_some_and(|ruling| ruling.verdict == *verdict))
            && holds(&self.phase, |phase| entry.phase == *phase)
            && holds(&self.operation, |word| question.action.is_some_and(|action| action.as_str() == word))
            && holds(&self.container, |name| question.container.as_ref().is_some_and(|c| c.to_string() == *name))
            && holds(&self.subject, |name| subject.is_some_and(|s| *s.id == **name || s.to_string() == *name))
            && holds(&self.request, |id| *entry.request_id == **id)
    }
}

fn holds<T>(wanted: &Option<T>, check: impl FnOnce(&T) -> bool) -> bool {
    wanted.as_ref().is_none_or(check)
}

impl Record {
    /// The record on one line. `color` adds terminal colours.
    pub fn render_line(&self, color: bool) -> String {
        let (paint, entry) = (Paint(color), &self.entry);
        let verdict = entry.decision.as_ref().map(|ruling| ruling.verdict);
        let mut parts = vec![
            paint.dim(&time_of_day(self.time)),
            paint.dim(&pad(&format!("#{}", self.sequence.0), 6)),
            pad(entry.phase.as_str(), 10),
            paint.verdict(verdict, &pad(verdict.map_or("-", Verdict::as_str), 6)),
        ];
        if let Some(suppressed) = &entry.suppressed {
            parts.push(format!("{} refusals not written since {}", suppressed.count, suppressed.since.rfc3339()));
        }
        if let Some(reading) = &entry.reading {
            parts.push(plain(&format!("uid {} read: {} {}", reading.uid, reading.command, reading.selection)));
        }
        parts.extend(entry.question.action.map(|asked| asked.as_str().to_owned()));
        parts.push(target(&entry.question));
        if entry.phase == Phase::Recovered {
            parts.push(paint.bad("outcome unknown"));
        }
        if let Some(answer) = &entry.answer {
            let error = answer.error.as_deref().map(|error| format!(" {}", plain(error))).unwrap_or_default();
            let status = format!("{}{error}", answer.status);
            parts.push(if answer.status >= 400 { paint.bad(&status) } else { status });
        }
        if let Some(upstream) = &entry.upstream {
            let millis = upstream.latency.as_secs_f64() * 1000.0;
            parts.push(format!("{:.2} RU  {millis:.1} ms", upstream.request_units));
        }
        parts.extend(entry.who.as_ref().map(|who| plain(&who.subject.to_string())));
        if let Some(execution) = &entry.context.execution {
            let run = execution.value.as_str().split(':').skip(6).collect::<Vec<_>>().join(":");
            let state = entry.context.state.as_ref().map(|state| format!(" {}", state.value.as_str()));
            let attempt = entry.context.attempt.as_ref().map(|attempt| format!(" attempt {}", attempt.value.0));
            let place = format!("{run}{}{}", state.unwrap_or_default(), attempt.unwrap_or_default());
            parts.push(paint.bold(&plain(&place)));
        }
        parts.extend(entry.context.run.as_ref().map(|run| paint.bold(&plain(run.value.as_str()))));
        parts.extend(entry.decision.iter().flat_map(|ruling| ruling.clauses.iter().map(clause)));
        if entry.who.is_none() {
            parts.extend(entry.peer.map(|peer| peer.to_string()));
        }
        parts.retain(|part| !part.is_empty());
        parts.join("  ")
    }
}
