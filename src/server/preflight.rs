//! `stepgate preflight`: everything that a gateway with this configuration would depend on, asked once.
//!
//! `check` reads files and finds what is wrong in them; this finds out what the world says. It starts no gateway and writes nothing
//! that stays. Every check is made, so that one run tells all there is to mend.

use std::{fs, io, path::Path, time::Duration};

use serde::Serialize;

use super::Config;
use crate::{
    audit,
    clock::Clock,
    exchange::{AccountError, ContainerFacts, Exchange},
    identity::Identity,
    policy::{self, NamedGrant, PolicySet},
    transport::Transport,
};

/// How long issuers have to show their keys.
const ISSUERS: Duration = Duration::from_secs(20);
/// How often they are looked at meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Check {
    /// What.
    pub check: String,
    /// How it is.
    pub state: State,
    /// In one sentence.
    pub detail: String,
    /// What to change, where something is wrong.
    pub mend: Option<String>,
}

/// How a thing is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Not as it should be.
    Failed,
    /// It could not be looked at, since something before it failed or does not exist.
    Skipped,
}

impl Check {
    /// As it should be.
    pub fn ok(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Ok, detail: detail.into(), mend: None }
    }

    fn skipped(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Skipped, detail: detail.into(), mend: None }
    }

    /// Something to mend.
    pub fn failed(check: impl Into<String>, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Failed, detail: detail.into(), mend: Some(mend.into()) }
    }

    /// An error whose text ends with what to change.
    fn failed_with_mend(check: impl Into<String>, error: &impl ToString) -> Self {
        let text = error.to_string();
        let (detail, mend) = text.split_once("; ").map_or((text.as_str(), None), |(detail, mend)| (detail, Some(mend)));
        Self { check: check.into(), state: State::Failed, detail: detail.to_owned(), mend: mend.map(ToOwned::to_owned) }
    }
}

/// Looks at everything, in the order in which a request would need it.
pub async fn preflight(config: Config) -> Vec<Check> {
    let mut checks = issuers(&config).await;
    let policies = policy::load(&config.policy);
    checks.push(match &policies {
        Ok(set) => Check::ok("policies", format!("revision {}", set.revision())),
        Err(findings) => {
            let first = findings.first().map(|finding| finding.message.clone()).unwrap_or_default();
            let more = match findings.len() {
                0 | 1 => String::new(),
                several => format!(" (and {} more)", several - 1),
            };
            Check::failed("policies", format!("{first}{more}"), "run `stepgate check` for each with its place")
        }
    });
    checks.extend(audit(&config.audit));
    let exchange = match Transport::new(config.ca_file.as_deref()) {
        Ok(transport) => Exchange::new(config.exchange, false, transport, Clock::System),
        Err(error) => {
            checks.push(Check::failed("account", error.to_string(), "correct cosmos.ca_file"));
            return checks;
        }
    };
    checks.extend(account(&exchange, policies.as_ref().ok()).await);
    checks
}

/// Whether each issuer shows its keys.
async fn issuers(config: &Config) -> Vec<Check> {
    let made = Transport::new(None).map_err(|error| error.to_string());
    let made = made.and_then(|transport| {
        Identity::new(config.issuers.clone(), transport, Clock::System).map_err(|error| error.to_string())
    });
    let identity = match made {
        Ok(identity) => identity,
        Err(error) => return vec![Check::failed("issuers", error, "correct the issuers")],
    };
    let all_known = async {
        while identity.status().iter().any(|issuer| !issuer.usable && issuer.error.is_none()) {
            tokio::time::sleep(LOOK).await;
        }
    };
    let fetching = async {
        tokio::select! {
            () = identity.keep_fresh() => {}
            () = all_known => {}
        }
    };
    // Who has not answered by then is reported as having shown nothing.
    let _ = tokio::time::timeout(ISSUERS, fetching).await;
    let report = |issuer: crate::identity::IssuerStatus| {
        let name = format!("issuer {}", issuer.name);
        match (issuer.usable, issuer.error) {
            (true, _) => Check::ok(name, format!("{} keys at {}", issuer.keys.len(), issuer.url)),
            (false, error) => {
                let detail = error.map_or_else(|| "it does not answer".to_owned(), |error| error.to_string());
                Check::failed(name, detail, "check its url, and the way out to it")
            }
        }
    };
    identity.status().into_iter().map(report).collect()
}

/// Whether the log could be written.
fn audit(config: &audit::Config) -> Vec<Check> {
    let directory = match writable(&config.directory) {
        Ok(()) => Check::ok("audit directory", format!("{} can be written", config.directory.display())),
        Err(error) => {
            let detail = format!("{}: {error}", config.directory.display());
            Check::failed("audit directory", detail, "make the directory, and let the gateway's user write in it")
        }
    };
    let key = &config.signing_key;
    let signing_key = match fs::read(key) {
        Ok(_) => Check::ok("audit signing key", format!("{} can be read", key.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match key.parent().map_or(Ok(()), writable) {
            Ok(()) => Check::ok("audit signing key", format!("{} will be made at the first start", key.display())),
            Err(error) => {
                let detail = format!("{} is not there and cannot be made: {error}", key.display());
                Check::failed("audit signing key", detail, "let the gateway's user write beside it, or make it")
            }
        },
        Err(error) => {
            let detail = format!("{}: {error}", key.display());
            Check::failed("audit signing key", detail, "let the gateway's user read it")
        }
    };
    vec![directory, signing_key]
}

/// Whether a file can be written and synced in a directory; a directory that is not there is judged by the one it would be made
/// in.
fn writable(directory: &Path) -> io::Result<()> {
    let existing = directory.ancestors().find(|path| path.is_dir() || path.as_os_str().is_empty());
    let existing = match existing {
        Some(path) if !path.as_os_str().is_empty() => path,
        _ => Path::new("."),
    };
    let probe = existing.join(format!(".stepgate-preflight-{}", std::process::id()));
    let written = fs::File::create_new(&probe)?.sync_all();
    fs::remove_file(&probe)?;
    written
}

/// Whether the account takes the credential, and has the containers that grants name.
async fn account(exchange: &Exchange, policies: Option<&PolicySet>) -> Vec<Check> {
    if exchange.wants_workflow_token() {
        return vec![Check::skipped(
            "account",
            "each workflow has an Entra token of its own; let one call POST /preflight",
        )];
    }
    let mut checks = Vec::new();
    match exchange.look(None).await {
        Ok(()) => checks.push(Check::ok(
            "account",
            format!("it takes the credential; {} enforces scopes", exchange.enforcer().as_str()),
        )),
        Err(error @ AccountError::Credential(_)) => {
            checks.push(Check::failed_with_mend("credential", &error));
            checks.push(Check::skipped("account", "there is no credential to show it"));
        }
        Err(error) => checks.push(Check::failed_with_mend("account", &error)),
    }
    let Some(policies) = policies else { return checks };
    let open = checks.iter().all(|check| check.state == State::Ok);
    let mut seen = std::collections::BTreeMap::new();
    for grant in policies.named_grants() {
        let name = format!("container {}", grant.container);
        if !open {
            seen.entry(name.clone()).or_insert_with(|| Check::skipped(name, "the account could not be asked"));
            continue;
        }
        let asks_nothing = grant.levels == 0 && !grant.idempotent;
        if let Some(known) = seen.get(&name)
            && (known.state != State::Ok || asks_nothing)
        {
            continue;
        }
        let check = match exchange.container(&grant.container).await {
            Ok(facts) => fits(name.clone(), &grant, &facts),
            Err(error) => Check::failed_with_mend(name.clone(), &error),
        };
        seen.insert(name, check);
    }
    checks.extend(seen.into_values());
    checks
}

/// Whether a container is as a grant on it wants it.
fn fits(name: String, grant: &NamedGrant<'_>, facts: &ContainerFacts) -> Check {
    let NamedGrant { levels, idempotent, clause, .. } = grant;
    if *levels > facts.levels {
        return Check::failed(
            name,
            format!(
                "the grant {clause} fixes {levels} levels of the partition key, and the container's has {}",
                facts.levels
            ),
            "write as many components as the container's key has, outermost first",
        );
    }
    if *idempotent && facts.default_ttl.is_none() {
        return Check::failed(
            name,
            format!(
                "the grant {clause} has writes done once, and the markers they leave never expire in this container"
            ),
            "turn on time to live (`defaultTtl: -1` lets only what has a `ttl` of its own expire)",
        );
    }
    Check::ok(name, format!("its partition key has {} levels", facts.levels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_held_against_what_a_grant_wants_of_it() {
        let home = tempfile::tempdir().unwrap();
        let policy = "roles: { r: { grants: [{ container: d/c, partition_key: [a, b], operations: [items/upsert], idempotency: on }] } }\n";
        fs::write(home.path().join("p.yaml"), policy).unwrap();
        let set = policy::load(&policy::Config { directory: home.path().to_owned(), issuers: None }).unwrap();
        let grant = set.named_grants().next().unwrap();
        for (levels, default_ttl, state) in [
            (2, Some(-1), State::Ok),
            (3, Some(3600), State::Ok),
            (2, None, State::Failed),
            (1, Some(-1), State::Failed),
        ] {
            let check = fits("container d/c".to_owned(), &grant, &ContainerFacts { levels, default_ttl });
            assert_eq!(check.state, state, "{levels} {default_ttl:?}: {check:?}");
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_judged_by_where_it_would_be() {
        let home = tempfile::tempdir().unwrap();
        assert!(writable(home.path()).is_ok());
        assert!(writable(&home.path().join("a/b/c")).is_ok());
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "nothing stays");
        let file = home.path().join("file");
        fs::write(&file, "x").unwrap();
        let checks = audit(&audit::Config::in_directory(home.path().join("audit")));
        assert!(checks.iter().all(|check| check.state == State::Ok), "{checks:?}");
        assert!(writable(Path::new("/proc/nowhere")).is_err());
    }
}
