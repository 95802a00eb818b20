//! The exit codes, and how failures are told.

use std::{fmt::Display, process::ExitCode};

use stepgate::diagnostic::Diagnostic;

/// It worked.
pub(crate) const FINE: ExitCode = ExitCode::SUCCESS;
/// It did not work.
pub(crate) const FAILED: u8 = 1;
/// A decision was deny.
pub(crate) const DENIED: u8 = 3;
/// A check found problems.
pub(crate) const PROBLEMS: u8 = 4;
/// An audit log does not verify.
pub(crate) const UNVERIFIED: u8 = 5;

/// It did not work: says why on standard error.
pub(crate) fn failed(reason: impl Display) -> ExitCode {
    eprintln!("stepgate: {reason}");
    FAILED.into()
}

/// A check found problems: prints them for people, one block each.
pub(crate) fn problems(findings: &[Diagnostic]) -> ExitCode {
    print_findings(findings);
    PROBLEMS.into()
}

/// Prints findings for people, one block each.
pub(crate) fn print_findings(findings: &[Diagnostic]) {
    for finding in findings {
        eprintln!("{finding}");
    }
}
