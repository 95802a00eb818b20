//! `cosmos.credential` of the kind `entra`: as whom the gateway asks for tokens.

use std::{fs, path::PathBuf};

use url::Url;

use super::{
    checked::Check,
    raw::{self, Raw},
};
use crate::{
    exchange::{self, AssertionSource, EntraConfig, EntraIdentity, SecretSource},
    secret::Secret,
};

const AUTHORITY: &str = "https://login.microsoftonline.com/";
const SCOPE: &str = "https://cosmos.azure.com/.default";
/// The audience that Entra's own documentation gives to federated credentials.
const FEDERATED_AUDIENCE: &str = "api://AzureADTokenExchange";
const AT: &str = "cosmos/credential/identity";

impl Check<'_> {
    pub(super) fn entra(
        &mut self,
        identity: &raw::EntraIdentity,
        authority: Option<&str>,
        scope: Option<&str>,
        endpoint: Option<Url>,
    ) -> Option<exchange::Config> {
        let authority = self.endpoint("cosmos/credential/authority", authority.unwrap_or(AUTHORITY));
        let scope = scope.unwrap_or(SCOPE);
        if !scope.ends_with("/.default") {
            let mend = "write it as https://cosmos.azure.com/.default or https://ACCOUNT.documents.azure.com/.default";
            self.refuse("cosmos/credential/scope", format!("`{scope}` is no scope of an application"), mend);
        }
        let identity = self.entra_identity(identity)?;
        Some(exchange::Config::Entra(EntraConfig {
            endpoint: endpoint?,
            authority: authority?,
            scope: scope.to_owned(),
            identity,
        }))
    }

    /// What an Entra token cannot do: leave; and, where it is each workflow's, keep revocations in Cosmos and read the account.
    pub(super) fn own_documents(&mut self, raw: &Raw) {
        let raw::Credential::Entra { identity, .. } = &raw.cosmos.credential else { return };
        if raw.exchange.release_tokens {
            let message = "an Entra token opens all that the gateway may touch, so none is released";
            self.refuse("exchange/release_tokens", message, "leave it out, or use resource tokens");
        }
        let per_workflow =
            matches!(identity, raw::EntraIdentity::Federated { assertion: raw::Assertion::WorkflowToken, .. });
        if per_workflow && matches!(raw.state, Some(raw::State::Cosmos { .. })) {
            let message = "the gateway has no Entra identity of its own to keep revocations in Cosmos with";
            self.refuse("state", message, "keep them in a file, or use another assertion than workflow_token");
        }
        if per_workflow && !raw.cosmos.preferred_regions.is_empty() {
            let message = "the gateway has no Entra identity of its own to read the account's regions with";
            let mend = "leave it out, so that all goes to the endpoint, or use another assertion than workflow_token";
            self.refuse("cosmos/preferred_regions", message, mend);
        }
    }

    fn entra_identity(&mut self, identity: &raw::EntraIdentity) -> Option<EntraIdentity> {
        Some(match identity {
            raw::EntraIdentity::ManagedIdentity { client_id } => {
                EntraIdentity::ManagedIdentity { client_id: client_id.clone() }
            }
            raw::EntraIdentity::WorkloadIdentity { tenant_id, client_id, token_file } => {
                let tenant_id = self.or_environment(tenant_id.clone(), "tenant_id", "AZURE_TENANT_ID");
                let client_id = self.or_environment(client_id.clone(), "client_id", "AZURE_CLIENT_ID");
                let token_file = token_file.as_ref().map(|file| self.base.join(file).display().to_string());
                let token_file = self.or_environment(token_file, "token_file", "AZURE_FEDERATED_TOKEN_FILE");
                EntraIdentity::WorkloadIdentity {
                    tenant_id: self.tenant(tenant_id?),
                    client_id: client_id?,
                    token_file: self.readable(PathBuf::from(token_file?)),
                }
            }
            raw::EntraIdentity::ClientSecret { tenant_id, client_id, secret } => EntraIdentity::ClientSecret {
                tenant_id: self.tenant(tenant_id.clone()),
                client_id: client_id.clone(),
                secret: self.entra_secret(secret)?,
            },
            raw::EntraIdentity::ClientCertificate { tenant_id, client_id, file } => EntraIdentity::ClientCertificate {
                tenant_id: self.tenant(tenant_id.clone()),
                client_id: client_id.clone(),
                file: self.readable(self.base.join(file)),
            },
            raw::EntraIdentity::Federated { tenant_id, client_id, assertion } => EntraIdentity::Federated {
                tenant_id: self.tenant(tenant_id.clone()),
                client_id: client_id.clone(),
                assertion: match assertion {
                    raw::Assertion::File { path } => {
                        AssertionSource::File { path: self.readable(self.base.join(path)) }
                    }
                    raw::Assertion::AwsWebIdentity { audience } => AssertionSource::AwsWebIdentity {
                        audience: audience.clone().unwrap_or_else(|| FEDERATED_AUDIENCE.to_owned()),
                    },
                    raw::Assertion::WorkflowToken => AssertionSource::WorkflowToken,
                },
            },
        })
    }

    fn entra_secret(&mut self, secret: &raw::EntraSecret) -> Option<SecretSource> {
        match secret {
            raw::EntraSecret::File { path } => Some(SecretSource::File { path: self.readable(self.base.join(path)) }),
            raw::EntraSecret::Env { variable } => {
                let value = self.or_environment(None, "secret", variable)?;
                Some(SecretSource::Env { value: Secret::new(value) })
            }
        }
    }

    fn or_environment(&mut self, written: Option<String>, key: &str, variable: &str) -> Option<String> {
        let found = self.environment.iter().find(|(name, _)| name == variable).map(|(_, value)| value.clone());
        let value = written.or(found);
        if value.is_none() {
            let message = format!("neither `{key}` nor {variable} of the environment says it");
            self.refuse(AT, message, "write the key, or set the variable for the gateway's process");
        }
        value
    }

    /// A tenant is part of a path: an id or a domain, and nothing else.
    fn tenant(&mut self, tenant: String) -> String {
        if tenant.is_empty() || !tenant.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')) {
            self.refuse(AT, format!("`{tenant}` is no tenant"), "write the directory's id or its domain");
        }
        tenant
    }

    fn readable(&mut self, file: PathBuf) -> PathBuf {
        if let Err(error) = fs::read(&file) {
            self.refuse(
                AT,
                format!("cannot read {}: {error}", file.display()),
                "make the file readable to the gateway",
            );
        }
        file
    }
}
