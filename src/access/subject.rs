//! Who asks.

use std::{fmt, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The name an issuer has in the configuration, such as `cognito`; policy files refer to it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct IssuerName(Arc<str>);

impl IssuerName {
    /// A name as written.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IssuerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An identity: a `sub` means nothing without the issuer that gave it (OpenID Connect Core 1.0, section 5.7).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Subject {
    /// The issuer, by its configured name.
    pub issuer: IssuerName,
    /// The issuer's own identifier for the workload, from the claim the profile names (`sub` unless configured).
    pub id: Arc<str>,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.issuer, self.id)
    }
}

/// The profile that proved a subject to be a workload: the `kind` of its issuer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WorkloadKind {
    /// Explicit rules from the configuration.
    Oidc,
    /// Amazon Cognito user pools, client credentials.
    Cognito,
    /// Microsoft Entra ID, application permissions.
    Entra,
    /// Auth0, client credentials.
    Auth0,
    /// Okta custom authorization servers, client credentials.
    Okta,
    /// Keycloak service accounts.
    Keycloak,
    /// AWS outbound identity federation (`sts:GetWebIdentityToken`).
    AwsSts,
    /// Kubernetes service accounts: EKS IRSA, EKS Pod Identity, projected tokens.
    Kubernetes,
    /// GitHub Actions.
    Github,
}

impl WorkloadKind {
    /// The word of the configuration and of the audit record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Oidc => "oidc",
            Self::Cognito => "cognito",
            Self::Entra => "entra",
            Self::Auth0 => "auth0",
            Self::Okta => "okta",
            Self::Keycloak => "keycloak",
            Self::AwsSts => "aws-sts",
            Self::Kubernetes => "kubernetes",
            Self::Github => "github",
        }
    }
}
