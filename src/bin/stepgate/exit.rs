//! The exit codes, and how failures are told.

use std::{fmt::Display, process::ExitCode};

use stepgate::diagnostic::Diagnostic;

/// It worked.
pub(crate) const FINE: ExitCode = ExitCode::SUCCESS;

/// It did not work: says why on standard error.
pub(crate) fn failed(reason: impl Display) -> ExitCode {
    eprintln!("stepgate: {reason}");
    ExitCode::from(1)
}

/// A decision was deny.
pub(crate) fn denied() -> ExitCode {
    ExitCode::from(3)
}

/// A check found problems.
pub(crate) fn problems() -> ExitCode {
    ExitCode::from(4)
}

/// An audit log does not verify.
pub(crate) fn unverified() -> ExitCode {
    ExitCode::from(5)
}

/// Prints findings for people, one block each.
pub(crate) fn print_findings(findings: &[Diagnostic]) {
    for finding in findings {
        eprintln!("{finding}");
    }
}
