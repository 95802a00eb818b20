//! What the room is told of each issuer: values already checked by `config`.

use std::{borrow::Cow, collections::BTreeMap, fmt, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use super::profile::Profile;
use crate::access::{Assurance, IssuerName, WorkloadKind};

/// One trusted issuer.
#[derive(Clone, Debug)]
pub struct IssuerConfig {
    /// The name policy files use.
    pub name: IssuerName,
    /// The profile that tells workloads from humans.
    pub kind: WorkloadKind,
    /// The exact text of `iss`, as the issuer writes it: Auth0's ends in a slash, and that slash counts.
    pub url: String,
    /// Accepted values of `aud`. Empty accepts none, except under `cognito`, where a token without `aud` is held to
    /// `clients` instead.
    pub audiences: Vec<String>,
    /// Accepted clients; empty accepts any (under `cognito`: any of a token whose `aud` fits).
    pub clients: Vec<String>,
    /// Accepted signature algorithms.
    pub algorithms: Vec<Algorithm>,
    /// How far the issuer's clock may be off.
    pub leeway: Duration,
    /// `oidc`: all of these must hold, or nothing is proven. Keys are claim names or JSON pointers.
    pub workload: BTreeMap<String, Expect>,
    /// `oidc`: any one of these shows a human.
    pub human: BTreeMap<String, Expect>,
    /// The claim that identifies the subject.
    pub subject_claim: String,
    /// The claim that names the OAuth client; `None` is what the profile says.
    pub client_claim: Option<String>,
    /// Whether strangers get tokens from the same issuer, so that bindings must pin an owner. Policy asks; this room does not.
    pub shared: bool,
    /// Which claims say what of the execution.
    pub context: ContextMapping,
    /// How often the keys are fetched.
    pub refresh: Duration,
    /// How long keys are trusted while the issuer cannot be reached.
    pub max_staleness: Duration,
    /// Where the keys are, for an issuer without a discovery document.
    pub jwks_uri: Option<Url>,
}

impl IssuerConfig {
    /// An issuer with the defaults of its kind: it still accepts nothing, since it names no audience and no client.
    pub fn new(name: IssuerName, kind: WorkloadKind, url: String) -> Self {
        let profile = Profile::of(kind);
        Self {
            name,
            kind,
            url,
            audiences: Vec::new(),
            clients: Vec::new(),
            algorithms: profile.algorithms.to_vec(),
            leeway: Duration::from_secs(30),
            workload: BTreeMap::new(),
            human: BTreeMap::new(),
            subject_claim: "sub".to_owned(),
            client_claim: None,
            shared: profile.shared,
            context: profile.context.clone(),
            refresh: Duration::from_secs(5 * 60),
            max_staleness: Duration::from_secs(24 * 60 * 60),
            jwks_uri: None,
        }
    }
}

/// What a rule wants of a claim. A list-valued claim is met by any of its values; `null` counts as absent.
#[derive(Clone, PartialEq, Debug)]
pub enum Expect {
    /// There, whatever its value: `*` in the configuration.
    Present,
    /// This value.
    Is(Value),
}

impl From<Value> for Expect {
    fn from(value: Value) -> Self {
        if value == "*" { Self::Present } else { Self::Is(value) }
    }
}

impl Expect {
    /// Whether `claim` meets the rule.
    pub fn holds(&self, claim: Option<&Value>) -> bool {
        match (self, claim) {
            (_, None | Some(Value::Null)) => false,
            (Self::Present, Some(_)) => true,
            (Self::Is(wanted), Some(Value::Array(values))) if !wanted.is_array() => values.contains(wanted),
            (Self::Is(wanted), Some(value)) => value == wanted,
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present => f.write_str("present"),
            Self::Is(Value::String(text)) => write!(f, "`{text}`"),
            Self::Is(value) => write!(f, "`{value}`"),
        }
    }
}

/// Which claim carries which fact of the execution, and how sure it is. A fact without an entry is not read from tokens.
#[derive(Clone, Debug, Default)]
pub struct ContextMapping {
    /// The execution ARN.
    pub execution: Option<ContextClaim>,
    /// The state's name.
    pub state: Option<ContextClaim>,
    /// State.EnteredTime.
    pub entered: Option<ContextClaim>,
    /// State.RetryCount.
    pub attempt: Option<ContextClaim>,
    /// Execution.RedriveCount.
    pub redrive: Option<ContextClaim>,
    /// Map.Item.Index.
    pub item: Option<ContextClaim>,
}

/// A claim that carries a fact.
#[derive(Clone, Debug)]
pub struct ContextClaim {
    /// Its name, or a JSON pointer (RFC 6901) to it.
    pub claim: Cow<'static, str>,
    /// How sure the fact is, being in that claim.
    pub assurance: Assurance,
}

/// A signature algorithm (RFC 7518, section 3.1; RFC 8037) that a token may use. `none` and HMAC have no value here, so no
/// configuration can allow them.
#[allow(missing_docs, reason = "the names are the registered ones")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl Algorithm {
    /// Every algorithm, in the order of the registry.
    pub const ALL: [Self; 9] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

    /// The registered name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }

    /// The algorithm of that name; names are case-sensitive (RFC 7515, section 4.1.1).
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    pub(super) const fn for_jsonwebtoken(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::RS256 => jsonwebtoken::Algorithm::RS256,
            Self::RS384 => jsonwebtoken::Algorithm::RS384,
            Self::RS512 => jsonwebtoken::Algorithm::RS512,
            Self::PS256 => jsonwebtoken::Algorithm::PS256,
            Self::PS384 => jsonwebtoken::Algorithm::PS384,
            Self::PS512 => jsonwebtoken::Algorithm::PS512,
            Self::ES256 => jsonwebtoken::Algorithm::ES256,
            Self::ES384 => jsonwebtoken::Algorithm::ES384,
            Self::EdDSA => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
