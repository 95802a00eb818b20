//! Words and colours that the trace and the tail share.

use super::record::{Question, Verdict};
use crate::policy::Clause;

/// Whether text may carry terminal colours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint(pub(super) bool);

impl Paint {
    pub(super) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    pub(super) fn verdict(self, verdict: Option<Verdict>, text: &str) -> String {
        match verdict {
            Some(Verdict::Allow) => self.with("32", text),
            Some(Verdict::Deny) => self.with("1;31", text),
            Some(Verdict::Reject) => self.with("33", text),
            None => text.to_owned(),
        }
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 && !text.trim().is_empty() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Text that came from outside, without what a terminal would obey or reorder.
pub(super) fn plain(text: &str) -> String {
    let obeyed = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if obeyed(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// What a question is about: `shop/orders ["t1"] o-17 (batch of 3)`.
pub(super) fn target(question: &Question) -> String {
    let mut parts = Vec::new();
    parts.extend(question.container.as_ref().map(ToString::to_string));
    parts.extend(question.partition_key.as_ref().map(|key| key.to_json().to_string()));
    parts.extend(question.item.as_ref().map(|item| item.as_str().to_owned()));
    if !question.batch.is_empty() {
        let mut operations: Vec<&str> = question.batch.iter().map(|inside| inside.operation.as_str()).collect();
        operations.dedup();
        parts.push(format!("({}: {})", question.batch.len(), operations.join(", ")));
    }
    plain(&parts.join(" "))
}

/// A clause by name and place: `order-writer (shop.yaml:4)`.
pub(super) fn clause(clause: &Clause) -> String {
    plain(&format!("{} ({})", clause.name, clause.place))
}

/// `text`, filled with spaces to `width` characters.
pub(super) fn pad(text: &str, width: usize) -> String {
    format!("{text:width$}")
}
