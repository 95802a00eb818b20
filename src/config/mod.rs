//! The configuration: what was typed ([`Raw`]), then what it means ([`Config`]).
//!
//! This is the only reader of configuration files and of the environment. Rooms own their typed configuration and know
//! nothing of this one; the checks here fill them, and report every problem at once, each with its place and a mend.

mod anchors;
mod checked;
#[cfg(feature = "dev")]
pub mod dev;
mod entra;
mod issuers;
mod load;
mod raw;

use std::path::Path;

pub use checked::log_filter;
pub use load::{Written, interpret, read};
pub use raw::{Credential, Raw};

use crate::{
    diagnostic::{Diagnostic, Severity},
    policy,
    server::Config,
};

/// A configuration that can be served, and what was noticed on the way.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings.
    pub warnings: Vec<Diagnostic>,
}

/// Reads and checks a configuration file. The policies are read by the gateway itself.
pub fn load(file: &Path, environment: &[(String, String)]) -> Result<Loaded, Vec<Diagnostic>> {
    settle(&read(file, environment)?, environment)
}

/// Checks a configuration that was read.
pub fn settle(written: &Written, environment: &[(String, String)]) -> Result<Loaded, Vec<Diagnostic>> {
    match checked::check(written, environment) {
        (Some(config), warnings) => Ok(Loaded { config, warnings }),
        (None, findings) => Err(findings),
    }
}

/// Everything that is wrong, or merely odd, in a configuration file and the policies it names; errors first.
pub fn check(file: &Path, environment: &[(String, String)]) -> Vec<Diagnostic> {
    let written = match read(file, environment) {
        Ok(written) => written,
        Err(findings) => return findings,
    };
    let (_, mut findings) = checked::check(&written, environment);
    let policies = checked::policies(&written);
    // A directory that is not there has been found already.
    if policies.directory.is_dir() {
        findings.extend(match policy::load(&policies) {
            Ok(policies) => policies.warnings().to_vec(),
            Err(findings) => findings,
        });
    }
    findings.sort_by_key(|finding| finding.severity == Severity::Warning);
    findings
}

/// The JSON Schema of the configuration file, as committed in `config/stepgate.schema.json`.
pub fn schema() -> String {
    let schema = schemars::schema_for!(Raw);
    serde_json::to_string_pretty(&schema).unwrap_or_default()
}
