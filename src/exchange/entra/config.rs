//! Who the gateway is to Entra.

use std::path::PathBuf;

use url::Url;

use super::EntraError;
use crate::secret::Secret;

/// What the Entra side needs to know.
#[derive(Clone, Debug)]
pub struct EntraConfig {
    /// The account, such as `https://account.documents.azure.com/`.
    pub endpoint: Url,
    /// Where tokens come from, such as `https://login.microsoftonline.com/`.
    pub authority: Url,
    /// What they are for, such as `https://cosmos.azure.com/.default`.
    pub scope: String,
    /// As whom.
    pub identity: EntraIdentity,
}

/// As whom the gateway asks.
#[derive(Clone, Debug)]
pub enum EntraIdentity {
    /// The machine's own identity, or a user-assigned one.
    ManagedIdentity {
        /// The client id of a user-assigned identity.
        client_id: Option<String>,
    },
    /// A Kubernetes service account.
    WorkloadIdentity {
        /// The tenant.
        tenant_id: String,
        /// The application.
        client_id: String,
        /// The projected token; read again for each fetch.
        token_file: PathBuf,
    },
    /// An application with a secret.
    ClientSecret {
        /// The tenant.
        tenant_id: String,
        /// The application.
        client_id: String,
        /// Its secret.
        secret: SecretSource,
    },
    /// An application with a certificate.
    ClientCertificate {
        /// The tenant.
        tenant_id: String,
        /// The application.
        client_id: String,
        /// Certificate and RSA key, as PEM; read again for each fetch.
        file: PathBuf,
    },
    /// An application that trusts another issuer's token.
    Federated {
        /// The tenant.
        tenant_id: String,
        /// The application.
        client_id: String,
        /// Which token.
        assertion: AssertionSource,
    },
}

/// Which token stands for the gateway at Entra.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AssertionSource {
    /// One that something else keeps fresh in a file.
    File {
        /// The file; read again for each fetch.
        path: PathBuf,
    },
    /// `sts:GetWebIdentityToken` of the gateway's own AWS role.
    AwsWebIdentity {
        /// Its `aud`, as the federated credential names it.
        audience: String,
    },
    /// The token of the workflow that asks: then Cosmos' log names the application of that workflow.
    WorkflowToken,
}

/// Where a secret is.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// A file; read again for each fetch.
    File {
        /// The file.
        path: PathBuf,
    },
    /// A variable of the environment.
    Env {
        /// Its value at the start.
        value: Secret,
    },
}

impl EntraIdentity {
    /// The word of the configuration.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ManagedIdentity { .. } => "managed_identity",
            Self::WorkloadIdentity { .. } => "workload_identity",
            Self::ClientSecret { .. } => "client_secret",
            Self::ClientCertificate { .. } => "client_certificate",
            Self::Federated { .. } => "federated",
        }
    }

    /// Whether each workflow has a token of its own, and the gateway none.
    pub fn is_per_workflow(&self) -> bool {
        matches!(self, Self::Federated { assertion: AssertionSource::WorkflowToken, .. })
    }
}

impl SecretSource {
    /// The secret as it is now, without the white space around it.
    pub(super) fn read(&self) -> Result<Secret, EntraError> {
        match self {
            Self::Env { value } => Ok(value.clone()),
            Self::File { path } => match std::fs::read_to_string(path) {
                Ok(text) => Ok(Secret::new(text.trim().to_owned())),
                Err(error) => Err(EntraError::Secret { path: path.clone(), reason: error.kind() }),
            },
        }
    }
}
