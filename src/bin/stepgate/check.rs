//! `stepgate check`

use std::{path::PathBuf, process::ExitCode};

use serde_json::json;
use stepgate::diagnostic::Severity;

use crate::{Format, exit};

#[derive(clap::Args)]
#[command(after_help = "Example:\n  stepgate check --config /etc/stepgate/stepgate.yaml --deny-warnings")]
pub(crate) struct Args {
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
    /// Exit with 4 on warnings too.
    #[arg(long)]
    deny_warnings: bool,
    /// The form of the report.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let findings = stepgate::config::check(&args.config, &crate::serve::environment());
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    let warnings = findings.len() - errors;
    match args.format {
        Format::Json => println!("{}", json!({"errors": errors, "warnings": warnings, "findings": findings})),
        Format::Text => {
            exit::print_findings(&findings);
            println!("{}: {errors} errors, {warnings} warnings", args.config.display());
        }
    }
    if errors > 0 || (args.deny_warnings && warnings > 0) { exit::PROBLEMS.into() } else { exit::FINE }
}
