//! `stepgate preflight`

use std::{path::PathBuf, process::ExitCode};

use serde_json::json;
use stepgate::{
    config,
    diagnostic::Diagnostic,
    server::{self, Check, State},
};

use crate::{Format, exit, serve};

#[derive(clap::Args)]
#[command(after_help = "Example:\n  stepgate preflight --config /etc/stepgate/stepgate.yaml\n\n\
    Asks issuers for their keys, the account whether it takes the credential, and looks at policies, audit directory and\n\
    every container that a grant names. Starts no gateway. Exits with 4 when something must be mended.")]
pub(crate) struct Args {
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
    /// The form of the report.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let environment = serve::environment();
    let config = match config::load(&args.config, &environment) {
        Ok(loaded) => loaded.config,
        Err(findings) => return report(args.format, &findings.iter().map(misconfigured).collect::<Vec<_>>()),
    };
    serve::block_on(async {
        let mut checks = vec![Check::ok("configuration", args.config.display().to_string())];
        checks.extend(server::preflight(config).await);
        report(args.format, &checks)
    })
}

fn misconfigured(finding: &Diagnostic) -> Check {
    let place = format!("{}:{}:{}", finding.file.display(), finding.line, finding.column);
    let mend = finding.mend.clone().unwrap_or_else(|| "see `stepgate check`".to_owned());
    Check::failed("configuration", format!("{place}: {}", finding.message), mend)
}

fn report(format: Format, checks: &[Check]) -> ExitCode {
    let failed = checks.iter().filter(|check| check.state == State::Failed).count();
    match format {
        Format::Json => println!("{}", json!({ "ok": failed == 0, "failed": failed, "checks": checks })),
        Format::Text => {
            let width = checks.iter().map(|check| check.check.chars().count()).max().unwrap_or_default();
            for Check { check, state, detail, mend } in checks {
                let state = match state {
                    State::Ok => "ok",
                    State::Failed => "FAILED",
                    State::Skipped => "skipped",
                };
                println!("{state:<8} {check:<width$}  {detail}");
                if let Some(mend) = mend {
                    println!("{:8} {:width$}  mend: {mend}", "", "");
                }
            }
        }
    }
    if failed == 0 { exit::FINE } else { exit::PROBLEMS.into() }
}
