//! From [`Raw`] to what it means: every check at once, each finding with its place and a mend.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use url::{Host, Url};

use super::{
    load::Written,
    raw::{self, Raw},
};
use crate::{
    access::IssuerName,
    audit,
    diagnostic::{Diagnostic, Places, Severity, Source},
    exchange::{self, KeySource},
    gateway, idempotency, identity, mcp, policy, revocation,
    secret::Secret,
    server::{Config, TlsFiles},
    telemetry::{self, OtlpProtocol},
    upstream,
};

/// Largest answer that is read from Cosmos: pages end at 4 MB.
const LARGEST_ANSWER: usize = 5 * 1024 * 1024;
/// Longest that one attempt at Cosmos may take: an operation is given 5 s there, a page as well.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How often the account key is read from Secrets Manager where the configuration does not say, and at most.
const KEY_REFRESH: Duration = Duration::from_secs(300);
const SHORTEST_KEY_REFRESH: Duration = Duration::from_secs(1);
/// This gateway's share of the account's 240 request units per second where the configuration does not say.
const METADATA_UNITS: u32 = 120;
/// When a scope that nobody uses is taken away where the configuration does not say, and at the earliest.
const UNUSED_FOR: Duration = Duration::from_secs(7 * 86_400);
const SHORTEST_UNUSED_FOR: Duration = Duration::from_secs(2 * 86_400);
/// Shortest secret of a file, and shortest key for continuations, in characters.
const LEAST_SECRET: usize = 16;
const LEAST_CONTINUATION_KEY: usize = 32;
/// How long a write is remembered: longer than a workflow waits before it tries again.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Shortest secret that markers may be sealed with, in characters.
const SHORTEST_KEY: usize = 32;
/// Most resource tokens kept at once.
const TOKENS: u64 = 50_000;

/// Checks a configuration as written. `environment` is asked for the variables it names.
pub(super) fn check(written: &Written, environment: &[(String, String)]) -> (Option<Config>, Vec<Diagnostic>) {
    let (source, places) = (&written.source, &written.places);
    let mut check = Check { source, places, base: base(written), environment, findings: Vec::new() };
    let config = check.config(&written.raw, policies(written));
    check.findings.sort_by_key(|finding| (finding.line, finding.column));
    (config, check.findings)
}

/// The policies' part, which stands on its own: they are checked together with a configuration that has errors.
pub(super) fn policies(written: &Written) -> policy::Config {
    let issuers = written.raw.issuers.iter();
    let known = issuers.map(|issuer| policy::KnownIssuer {
        name: IssuerName::new(issuer.name.as_str()),
        shared: issuer.shared.unwrap_or_else(|| identity::is_shared(issuer.kind)),
    });
    policy::Config { directory: base(written).join(&written.raw.policies.directory), issuers: Some(known.collect()) }
}

/// What the log shows: `STEPGATE_LOG`, such as `info` (the default) or `stepgate=debug`.
pub fn log_filter(environment: &[(String, String)]) -> &str {
    environment.iter().find(|(name, _)| name == "STEPGATE_LOG").map_or("info", |(_, filter)| filter.as_str())
}

/// What relative paths are taken from.
fn base(written: &Written) -> PathBuf {
    written.source.file.parent().map(Path::to_owned).unwrap_or_default()
}

/// `cosmos.credential`, as the rooms want it.
struct Credential {
    exchange: Option<exchange::Config>,
    continuation_key: Option<Secret>,
}

/// A check under way: what it reads from, and what it has found.
pub(super) struct Check<'a> {
    source: &'a Source,
    places: &'a Places,
    pub(super) base: PathBuf,
    pub(super) environment: &'a [(String, String)],
    findings: Vec<Diagnostic>,
}

impl Check<'_> {
    fn config(&mut self, raw: &Raw, policy: policy::Config) -> Option<Config> {
        self.exposure(raw);
        let issuers = self.issuers(&raw.issuers);
        let endpoint = self.endpoint("cosmos/endpoint", &raw.cosmos.endpoint);
        let public_url = raw.public_url.as_deref().and_then(|url| self.public_url(url));
        let admin_token = raw.admin_token.as_ref().and_then(|file| self.admin_token(file));
        let credential = self.credential(&raw.cosmos.credential, endpoint.clone());
        self.regions(&raw.cosmos.preferred_regions);
        let mcp = self.mcp(&raw.mcp, public_url.as_ref());
        let limits = self.limits(&raw.limits);
        let telemetry = self.telemetry(&raw.telemetry);
        let audit = self.audit(&raw.audit);
        let anchors = self.anchors(&raw.audit, endpoint.as_ref());
        let idempotency = self.idempotency(&raw.idempotency);
        let revocation = self.state(raw.state.as_ref(), endpoint.clone());
        self.own_documents(raw);
        self.directory("policies/directory", &policy.directory);
        if self.findings.iter().any(|finding| finding.severity == Severity::Error) {
            return None;
        }
        Some(Config {
            digest: hex::encode(digest(&SHA256, self.source.text.as_bytes())),
            listen: raw.listen,
            tls: raw.tls.as_ref().map(|tls| self.tls(tls)),
            admin: raw.admin,
            admin_tls: raw.admin_tls.as_ref().map(|tls| self.tls(tls)),
            admin_token,
            public_url,
            policy,
            issuers,
            ca_file: raw.cosmos.ca_file.as_ref().map(|file| self.base.join(file)),
            exchange: credential.exchange?,
            release_tokens: raw.exchange.release_tokens,
            upstream: upstream::Config {
                endpoint: endpoint?,
                preferred_regions: raw.cosmos.preferred_regions.clone(),
                largest_answer: LARGEST_ANSWER,
                attempt_timeout: ATTEMPT,
                continuation_key: credential.continuation_key,
            },
            audit,
            anchors,
            idempotency: idempotency?,
            revocation: revocation?,
            mcp,
            limits,
            drain: raw.limits.drain,
            telemetry,
        })
    }

    pub(super) fn refuse(&mut self, path: &str, message: impl Into<String>, mend: &str) {
        let place = self.places.of(path);
        self.findings.push(self.source.at(Severity::Error, place, message, Some(mend.to_owned())));
    }

    /// What is open to more than this machine must be encrypted, and must know its own name.
    fn exposure(&mut self, raw: &Raw) {
        if !raw.listen.ip().is_loopback() {
            if raw.tls.is_none() && !raw.trusted_tls_terminator {
                let mend = "set `tls`, or `trusted_tls_terminator: true` when a load balancer in front ends TLS";
                self.refuse("listen", format!("{} would serve plain HTTP off loopback", raw.listen), mend);
            }
            if raw.public_url.is_none() {
                let mend =
                    "set `public_url` to the address clients use; SDKs follow the one the account document names";
                self.refuse("listen", "a gateway off loopback needs `public_url`", mend);
            }
        }
        if !raw.admin.ip().is_loopback() {
            if raw.admin_tls.is_none() {
                self.refuse("admin", "the admin listener would serve plain HTTP off loopback", "set `admin_tls`");
            }
            if raw.admin_token.is_none() {
                let mend = "set `admin_token`; off loopback `/status` wants it";
                self.refuse("admin", "an admin listener off loopback needs `admin_token`", mend);
            }
        }
    }

    /// An address that credentials or keys travel to or from: encrypted, unless it is this machine.
    pub(super) fn endpoint(&mut self, path: &str, text: &str) -> Option<Url> {
        let mend = "write it as https://host/; http:// only for a loopback address";
        let Ok(url) = Url::parse(text) else {
            self.refuse(path, format!("`{text}` is no URL"), mend);
            return None;
        };
        let loopback = is_loopback(&url);
        let problem = match url.scheme() {
            _ if url.host().is_none() => "has no host",
            _ if !url.username().is_empty() || url.password().is_some() => "holds a user name or password",
            _ if url.query().is_some() || url.fragment().is_some() => "has a query or a fragment",
            "https" => return Some(url),
            "http" if loopback => return Some(url),
            "http" => "is plain HTTP off loopback",
            _ => "is neither http nor https",
        };
        self.refuse(path, format!("`{text}` {problem}"), mend);
        None
    }

    fn public_url(&mut self, text: &str) -> Option<Url> {
        match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() && url.path() == "/" => {
                Some(url)
            }
            _ => {
                self.refuse(
                    "public_url",
                    format!("`{text}` is no address of a gateway"),
                    "write it as https://host/ or https://host:port/",
                );
                None
            }
        }
    }

    fn admin_token(&mut self, file: &raw::SecretFile) -> Option<Secret> {
        self.secret("admin_token", file)
    }

    /// The secret in the file that `key` names.
    pub(super) fn secret(&mut self, key: &str, file: &raw::SecretFile) -> Option<Secret> {
        self.long_secret(key, file, LEAST_SECRET)
    }

    /// The same, of at least so many characters.
    fn long_secret(
        &mut self,
        key: &str,
        raw::SecretFile::File { path }: &raw::SecretFile,
        least: usize,
    ) -> Option<Secret> {
        let at = format!("{key}/path");
        let file = self.base.join(path);
        match fs::read_to_string(&file) {
            Ok(text) if text.trim().len() >= least => Some(Secret::new(text.trim().to_owned())),
            Ok(_) => {
                self.refuse(
                    &at,
                    format!("{} holds no token of {least} characters or more", file.display()),
                    "put a long random text there",
                );
                None
            }
            Err(error) => {
                self.refuse(
                    &at,
                    format!("cannot read {}: {error}", file.display()),
                    "make the file readable to the gateway",
                );
                None
            }
        }
    }

    fn credential(&mut self, credential: &raw::Credential, endpoint: Option<Url>) -> Credential {
        match credential {
            raw::Credential::ResourceToken { .. } => {
                Credential { exchange: self.resource_token(credential, endpoint), continuation_key: None }
            }
            raw::Credential::Entra { identity, authority, scope, continuation_key } => Credential {
                exchange: self.entra(identity, authority.as_deref(), scope.as_deref(), endpoint),
                continuation_key: continuation_key.as_ref().and_then(|file| {
                    self.long_secret("cosmos/credential/continuation_key", file, LEAST_CONTINUATION_KEY)
                }),
            },
        }
    }

    fn resource_token(&mut self, credential: &raw::Credential, endpoint: Option<Url>) -> Option<exchange::Config> {
        let raw::Credential::ResourceToken { lifetime, account_key, metadata_units_per_second, remove_unused_after } =
            credential
        else {
            return None;
        };
        let lifetime = lifetime.unwrap_or(Duration::from_secs(3600));
        if !(600..=86_400).contains(&lifetime.as_secs()) {
            let mend = "set it from 10m to 24h, which is what Cosmos accepts";
            self.refuse("cosmos/credential/lifetime", "a resource token cannot live that long, or that short", mend);
        }
        let units_per_second = metadata_units_per_second.unwrap_or(METADATA_UNITS);
        if !(10..=240).contains(&units_per_second) {
            let mend = "set it from 10 to 240, which is what an account has for all its gateways together";
            self.refuse("cosmos/credential/metadata_units_per_second", "no share of the budget for metadata", mend);
        }
        let unused_for = remove_unused_after.unwrap_or(UNUSED_FOR);
        if unused_for < SHORTEST_UNUSED_FOR {
            let mend = "set it to 2d or more; a scope in use may be seen to be only every 36 hours";
            self.refuse("cosmos/credential/remove_unused_after", "scopes in use would be taken away", mend);
        }
        let key = self.account_key(account_key)?;
        let (endpoint, cache_capacity) = (endpoint?, TOKENS);
        let config = exchange::BrokerConfig { endpoint, key, lifetime, cache_capacity, units_per_second, unused_for };
        Some(exchange::Config::ResourceToken(config))
    }

    fn account_key(&mut self, key: &raw::AccountKey) -> Option<KeySource> {
        const AT: &str = "cosmos/credential/account_key";
        match key {
            raw::AccountKey::File { path, field } => {
                let path = self.base.join(path);
                // Opened and not read: a copy made here would not be wiped.
                if let Err(error) = fs::File::open(&path) {
                    let message = format!("cannot read the account key in {}: {error}", path.display());
                    self.refuse(AT, message, "make the file readable to the gateway");
                }
                Some(KeySource::File { path, field: field.clone() })
            }
            raw::AccountKey::Env { variable, field } => {
                let value = self.environment.iter().find(|(name, _)| name == variable).map(|(_, value)| value.clone());
                let Some(value) = value else {
                    self.refuse(
                        AT,
                        format!("the environment has no {variable}"),
                        "set the variable for the gateway's process",
                    );
                    return None;
                };
                Some(KeySource::Env { variable: variable.clone(), value: Secret::new(value), field: field.clone() })
            }
            raw::AccountKey::AwsSecretsManager { secret_id, field, refresh } => {
                let refresh = refresh.unwrap_or(KEY_REFRESH);
                if refresh < SHORTEST_KEY_REFRESH {
                    let mend = "set it to 1s or more; a key that Cosmos refuses is read again at once in any case";
                    self.refuse(&format!("{AT}/refresh"), "the secret would be read all the time", mend);
                }
                let (secret_id, field) = (secret_id.clone(), field.clone());
                Some(KeySource::AwsSecretsManager { secret_id, field, refresh })
            }
        }
    }

    fn regions(&mut self, names: &[String]) {
        for (index, name) in names.iter().enumerate() {
            let (path, mend) =
                (format!("cosmos/preferred_regions/{index}"), "write each once, as the portal has it: West Europe");
            if name.trim().is_empty() {
                self.refuse(&path, "a region without a name", mend);
            } else if names.iter().take(index).any(|before| upstream::is_same_region(before, name)) {
                self.refuse(&path, format!("the region `{name}` stands twice"), mend);
            }
        }
    }

    /// The face for agents, if there is to be one. Its lists are checked in any case.
    fn mcp(&mut self, raw: &raw::Mcp, public_url: Option<&Url>) -> Option<mcp::Config> {
        let mut hosts = match &raw.allowed_hosts {
            Some(listed) => {
                self.each("mcp/allowed_hosts", listed, mcp::AllowedHost::parse, "write it as host or host:port")
            }
            None => vec![mcp::AllowedHost::Loopback],
        };
        hosts.extend(public_url.and_then(Url::host_str).and_then(mcp::AllowedHost::parse));
        let origins = match &raw.allowed_origins {
            Some(listed) => self.each(
                "mcp/allowed_origins",
                listed,
                mcp::AllowedOrigin::parse,
                "write it as https://host, without a path",
            ),
            None => vec![mcp::AllowedOrigin::Loopback],
        };
        raw.enabled.then_some(mcp::Config { hosts, origins })
    }

    /// What each text of a list means.
    fn each<T>(&mut self, path: &str, listed: &[String], parse: impl Fn(&str) -> Option<T>, mend: &str) -> Vec<T> {
        let mut meant = Vec::with_capacity(listed.len());
        for (index, text) in listed.iter().enumerate() {
            match parse(text) {
                Some(one) => meant.push(one),
                None => self.refuse(&format!("{path}/{index}"), format!("`{text}` cannot be used here"), mend),
            }
        }
        meant
    }

    fn limits(&mut self, limits: &raw::Limits) -> gateway::Limits {
        let bytes = |size: bytesize::ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
        let (request_body, body_memory) = (bytes(limits.request_body), bytes(limits.body_memory));
        if body_memory < request_body || body_memory > u32::MAX as usize {
            self.refuse("limits/body_memory", "must hold at least one body, and less than 4GiB", "set it to 256MiB");
        }
        if limits.concurrency == 0 || limits.deadline.is_zero() || limits.read_timeout.is_zero() {
            self.refuse("limits", "with no concurrency or no time no request could pass", "set each above zero");
        }
        let raw::Limits { concurrency, deadline, read_timeout, .. } = *limits;
        gateway::Limits { request_body, body_memory, concurrency, deadline, read_timeout }
    }

    fn telemetry(&mut self, telemetry: &raw::Telemetry) -> telemetry::Config {
        let raw::Telemetry { otlp_endpoint, otlp_protocol, service_name, sample_ratio } = telemetry;
        if service_name.is_empty() {
            self.refuse("telemetry/service_name", "a service without a name cannot be found", "set it to `stepgate`");
        }
        if !(0.0..=1.0).contains(sample_ratio) {
            self.refuse("telemetry/sample_ratio", "is no share", "set it from 0 (none) to 1 (all)");
        }
        let otlp = otlp_endpoint.as_deref().and_then(|endpoint| self.otlp(endpoint, *otlp_protocol, *sample_ratio));
        telemetry::Config { log: log_filter(self.environment).to_owned(), service_name: service_name.clone(), otlp }
    }

    /// A collector. Spans hold no secret, so the one beside the gateway may be plain HTTP.
    fn otlp(&mut self, text: &str, protocol: Option<raw::OtlpProtocol>, sample_ratio: f64) -> Option<telemetry::Otlp> {
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let Some(endpoint) = url else {
            let mend = "write it as http://host:4317 (gRPC) or http://host:4318 (HTTP)";
            self.refuse("telemetry/otlp_endpoint", format!("`{text}` is no address of a collector"), mend);
            return None;
        };
        let protocol = match protocol {
            Some(raw::OtlpProtocol::Grpc) => OtlpProtocol::Grpc,
            Some(raw::OtlpProtocol::Http) => OtlpProtocol::Http,
            None if endpoint.port() == Some(4318) || endpoint.path() != "/" => OtlpProtocol::Http,
            None => OtlpProtocol::Grpc,
        };
        Some(telemetry::Otlp { endpoint, protocol, sample_ratio })
    }

    fn idempotency(&mut self, raw: &raw::Idempotency) -> Option<idempotency::Config> {
        let ttl = raw.ttl.unwrap_or(REMEMBERED);
        if !(1..=u64::from(i32::MAX.unsigned_abs())).contains(&ttl.as_secs()) {
            self.refuse(
                "idempotency/ttl",
                "a document cannot live that long, or that short",
                "set it from 1s to 68 years",
            );
        }
        let Some(raw::SecretFile::File { path }) = &raw.key else {
            return Some(idempotency::Config { ttl, keys: Vec::new() });
        };
        let file = self.base.join(path);
        let lines = match fs::read_to_string(&file) {
            Ok(text) => Secret::new(text),
            Err(error) => {
                let message = format!("cannot read {}: {error}", file.display());
                self.refuse("idempotency/key/path", message, "make the file readable to the gateway");
                return None;
            }
        };
        let lines = lines.expose().lines().map(str::trim).filter(|line| !line.is_empty());
        let keys: Vec<Secret> = lines.map(|line| Secret::new(line.to_owned())).collect();
        if keys.is_empty() || keys.iter().any(|key| key.expose().len() < SHORTEST_KEY) {
            let message = format!("{} needs {SHORTEST_KEY} characters or more on each line", file.display());
            self.refuse("idempotency/key/path", message, "put a long random text there, the same for every gateway");
        }
        Some(idempotency::Config { ttl, keys })
    }

    fn state(&mut self, state: Option<&raw::State>, endpoint: Option<Url>) -> Option<revocation::Config> {
        Some(match state {
            None => revocation::Config::Memory,
            Some(raw::State::File { path }) => {
                let path = self.base.join(path);
                if let Some(directory) = path.parent() {
                    self.directory("state/path", directory);
                }
                revocation::Config::File(path)
            }
            Some(raw::State::Cosmos { database, container }) => {
                for (key, name) in [("state/database", database), ("state/container", container)] {
                    if name.is_empty() || name.contains(['/', '\\', '?', '#']) {
                        self.refuse(key, format!("`{name}` is no name that Cosmos DB gives"), "write the name alone");
                    }
                }
                let (database, container) = (database.clone(), container.clone());
                revocation::Config::Cosmos { endpoint: endpoint?, database, container }
            }
        })
    }

    fn audit(&mut self, audit: &raw::Audit) -> audit::Config {
        let mut config = audit::Config::in_directory(self.base.join(&audit.directory));
        config.durability = match audit.durability {
            raw::Durability::Fsync => audit::Durability::Fsync,
            raw::Durability::Write => audit::Durability::Write,
            raw::Durability::Memory => audit::Durability::Memory,
        };
        if let Some(raw::SecretFile::File { path }) = &audit.signing_key {
            config.signing_key = self.base.join(path);
        }
        if let Some(interval) = audit.checkpoint_interval {
            config.checkpoint_interval = interval;
        }
        if let Some(records) = audit.checkpoint_records {
            config.checkpoint_records = records.max(1);
        }
        if let Some(size) = audit.segment_size {
            config.segment_bytes = size.as_u64();
        }
        if let Some(age) = audit.segment_age {
            config.segment_age = age;
        }
        if let Some(reserve) = audit.reserve {
            config.room = reserve.as_u64();
        }
        if let Some(deadline) = audit.deadline {
            config.deadline = deadline;
        }
        for (key, time) in [
            ("audit/segment_age", config.segment_age),
            ("audit/deadline", config.deadline),
            ("audit/retain", audit.retain.unwrap_or(Duration::MAX)),
        ] {
            if time < Duration::from_secs(1) {
                self.refuse(key, "is shorter than a second", "give it a second or more");
            }
        }
        config.pack = audit.compress;
        config.retain = audit.retain;
        config
    }

    fn directory(&mut self, path: &str, directory: &Path) {
        if !directory.is_dir() {
            self.refuse(
                path,
                format!("{} is no directory", directory.display()),
                "name the directory that holds the files",
            );
        }
    }

    fn tls(&self, tls: &raw::Tls) -> TlsFiles {
        TlsFiles {
            certificate: self.base.join(&tls.certificate),
            private_key: self.base.join(&tls.private_key),
            client_ca: tls.client_ca.as_ref().map(|file| self.base.join(file)),
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::interpret;

    /// A configuration that can be served, with `changes` to its lines.
    fn findings(directory: &Path, changes: &[(&str, &str)]) -> Vec<String> {
        fs::write(directory.join("key"), "a2V5").unwrap();
        fs::create_dir_all(directory.join("policies")).unwrap();
        let mut text = "\
listen: 127.0.0.1:8080
admin: 127.0.0.1:9090
issuers:
  - name: build
    kind: oidc
    url: https://idp.example
    audiences: [stepgate]
    workload: { token_kind: workload }
cosmos:
  endpoint: https://account.documents.azure.com/
  credential: { kind: resource_token, lifetime: 1h, account_key: { kind: file, path: key } }
policies: { directory: policies }
audit: { directory: audit }
"
        .to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        let source = Source { file: directory.join("stepgate.yaml"), text: text.into() };
        let written = interpret(source, &[]).unwrap();
        let (config, findings) = check(&written, &[]);
        assert_eq!(config.is_none(), !findings.is_empty());
        findings.into_iter().map(|finding| format!("{}:{} {}", finding.line, finding.column, finding.message)).collect()
    }

    #[test]
    fn what_can_be_served_has_no_findings() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(findings(directory.path(), &[]), [""; 0]);
    }

    #[test]
    fn each_mistake_has_its_place() {
        let directory = tempfile::tempdir().unwrap();
        for (from, to, place, message) in [
            ("listen: 127.0.0.1", "listen: 0.0.0.0", "1:9", "plain HTTP off loopback"),
            ("admin: 127.0.0.1", "admin: 0.0.0.0", "2:8", "plain HTTP off loopback"),
            ("https://idp.example", "http://idp.example", "6:10", "plain HTTP off loopback"),
            ("https://idp.example", "idp.example", "6:10", "is no URL"),
            ("https://idp.example", "https://a:b@idp.example", "6:10", "holds a user name"),
            ("audiences: [stepgate]", "audiences: []", "4:11", "accepts no audience"),
            ("workload: { token_kind: workload }", "workload: {}", "5:11", "no rule that proves a workload"),
            ("kind: oidc", "kind: cognito", "5:11", "has rules of its own"),
            (
                "audiences: [stepgate]",
                "audiences: [stepgate]\n    algorithms: [HS256]",
                "8:18",
                "`HS256` is no accepted",
            ),
            ("https://account.documents", "http://account.documents", "10:13", "plain HTTP off loopback"),
            ("lifetime: 1h", "lifetime: 5m", "11:49", "cannot live that long"),
            ("audit: {", "idempotency: { ttl: 0s }\naudit: {", "13:21", "cannot live that long"),
            ("audit: {", "idempotency: { key: { kind: file, path: nowhere } }\naudit: {", "13:41", "cannot read"),
            ("audit: {", "idempotency: { key: { kind: file, path: key } }\naudit: {", "13:41", "32 characters or more"),
            ("path: key", "path: nowhere", "11:66", "cannot read the account key"),
            ("kind: file, path: key", "kind: env, variable: NOWHERE", "11:66", "the environment has no NOWHERE"),
            ("directory: policies", "directory: nowhere", "12:24", "is no directory"),
            ("admin: 127", "telemetry: { otlp_endpoint: nowhere }\nadmin: 127", "2:29", "is no address of a collector"),
            ("admin: 127", "mcp: { allowed_hosts: ['https://a'] }\nadmin: 127", "2:24", "`https://a` cannot be used"),
            ("admin: 127", "mcp: { allowed_origins: [a.example] }\nadmin: 127", "2:26", "`a.example` cannot be used"),
            ("admin: 127", "telemetry: { sample_ratio: 2 }\nadmin: 127", "2:28", "is no share"),
        ] {
            let findings = findings(directory.path(), &[(from, to)]);
            let expected = findings.iter().any(|f| f.starts_with(&format!("{place} ")) && f.contains(message));
            assert!(expected, "{to}: {place} {message} is not among {findings:?}");
        }
    }

    #[test]
    fn each_entra_identity_is_checked() {
        let directory = tempfile::tempdir().unwrap();
        let key = "credential: { kind: resource_token, lifetime: 1h, account_key: { kind: file, path: key } }";
        let written = |identity: &str| format!("credential: {{ kind: entra, identity: {{ {identity} }} }}");
        let app = "tenant_id: t.example, client_id: c";
        for good in [
            "kind: managed_identity".to_owned(),
            format!("kind: workload_identity, {app}, token_file: key"),
            format!("kind: client_secret, {app}, secret: {{ kind: file, path: key }}"),
            format!("kind: client_certificate, {app}, file: key"),
            format!("kind: federated, {app}, assertion: {{ kind: aws_web_identity }}"),
            format!("kind: federated, {app}, assertion: {{ kind: workflow_token }}"),
        ] {
            assert_eq!(findings(directory.path(), &[(key, &written(&good))]), [""; 0], "{good}");
        }
        for (bad, message) in [
            (format!("kind: client_secret, {app}, secret: {{ kind: file, path: nowhere }}"), "cannot read"),
            (format!("kind: client_secret, {app}, secret: {{ kind: env, variable: NOWHERE }}"), "NOWHERE"),
            ("kind: client_certificate, tenant_id: a/b, client_id: c, file: key".into(), "`a/b` is no tenant"),
            (format!("kind: federated, {app}, assertion: {{ kind: file, path: nowhere }}"), "cannot read"),
            ("kind: workload_identity".into(), "AZURE_TENANT_ID"),
        ] {
            let findings = findings(directory.path(), &[(key, &written(&bad))]);
            let expected = findings.iter().any(|f| f.starts_with("11:") && f.contains(message));
            assert!(expected, "{bad}: {message} is not among {findings:?}");
        }
        let plain = "credential: { kind: entra, authority: http://login.example, scope: a, identity: { kind: managed_identity } }";
        assert_eq!(findings(directory.path(), &[(key, plain)]).len(), 2, "authority and scope");
        let state = "audit: { directory: audit }\nstate: { kind: cosmos, database: a, container: b }";
        let own = written(&format!("kind: federated, {app}, assertion: {{ kind: workflow_token }}"));
        let kept = findings(directory.path(), &[(key, &own), ("audit: { directory: audit }", state)]);
        assert!(kept.iter().any(|f| f.contains("no Entra identity of its own to keep")), "{kept:?}");
        let regions = format!("preferred_regions: [West Europe]\n  {own}");
        let read = findings(directory.path(), &[(key, &regions)]);
        assert!(matches!(&*read, [f] if f.contains("no Entra identity of its own to read")), "{read:?}");
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let changes = [("https://idp.example", "nowhere"), ("directory: policies", "directory: nowhere"), ("1h", "1s")];
        assert_eq!(findings(directory.path(), &changes).len(), 3);
    }
}
