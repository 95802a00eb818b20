//! How the demo prints: in colour on a terminal, plain otherwise.

use std::{cell::Cell, io::IsTerminal as _};

use super::play::Heard;

/// The printer; it also remembers whether every answer was the expected one.
pub(super) struct Show {
    colour: bool,
    as_expected: Cell<bool>,
}

const BOLD: &str = "1";
const DIM: &str = "2";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";

impl Show {
    /// Colour on a terminal, unless `NO_COLOR` is set (no-color.org).
    pub(super) fn new(environment: &[(String, String)]) -> Self {
        let plain = environment.iter().any(|(name, value)| name == "NO_COLOR" && !value.is_empty());
        Self { colour: std::io::stdout().is_terminal() && !plain, as_expected: Cell::new(true) }
    }

    pub(super) fn in_colour(&self) -> bool {
        self.colour
    }

    /// Whether every answer so far was the expected one.
    pub(super) fn as_expected(&self) -> bool {
        self.as_expected.get()
    }

    pub(super) fn title(&self, text: &str) {
        println!("\n{}", self.paint(BOLD, text));
    }

    pub(super) fn fact(&self, name: &str, value: &str) {
        println!("  {}  {value}", self.paint(DIM, &format!("{name:<9}")));
    }

    pub(super) fn text(&self, text: &str) {
        for line in text.trim_end().lines() {
            println!("{}", format_args!("  {line}").to_string().trim_end());
        }
    }

    /// A state that went through.
    pub(super) fn step(&self, state: &str, what: &str, heard: &Heard, expected: u16, remark: &str) {
        let status = self.status(heard, expected);
        let took = format!("{:>4} ms", heard.took.as_millis());
        println!("  {state:<13} {what:<33} {status} {}  {}", self.paint(DIM, &took), self.paint(DIM, remark));
    }

    /// A request that was refused, with the sentence the gateway gave.
    pub(super) fn refusal(&self, who: &str, heard: &Heard, expected: u16) {
        let (status, error) = (self.status(heard, expected), self.paint(YELLOW, &heard.text("error")));
        println!("  {who:<37} {status} {error}\n  {:<37} {}", "", self.paint(DIM, &heard.text("detail")));
    }

    fn status(&self, heard: &Heard, expected: u16) -> String {
        let text = heard.status.to_string();
        if heard.status != expected {
            self.as_expected.set(false);
            return self.paint(RED, &format!("{text} (expected {expected}: {})", heard.text("detail")));
        }
        self.paint(if expected < 400 { GREEN } else { YELLOW }, &text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour && !text.is_empty() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
