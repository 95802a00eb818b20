//! Why there is no Entra token.

use std::{error::Error, io, path::PathBuf, time::Duration};

use azure_core::error::ErrorKind;

use super::AssertionError;

/// Why there is no Entra token.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EntraError {
    /// Entra (or the machine's identity endpoint) answered no.
    #[error("Entra refused the gateway (status {status}{}); check tenant, client and {credential}", .code.as_deref().map(|code| format!(", AADSTS{code}")).unwrap_or_default(), credential = "that its secret, certificate or federated credential is current")]
    Refused {
        /// The status.
        status: u16,
        /// The AADSTS codes, where Entra gave any.
        code: Option<String>,
    },
    /// No answer.
    #[error("Entra cannot be reached: {reason}")]
    Unreachable {
        /// What the client said.
        reason: String,
    },
    /// No answer in time.
    #[error("Entra gave no token within {0:?}")]
    Deadline(Duration),
    /// The client secret cannot be read.
    #[error("cannot read the client secret in {}: {reason}", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: io::ErrorKind,
    },
    /// The assertion cannot be had.
    #[error(transparent)]
    Assertion(#[from] AssertionError),
    /// Each workflow has its own token, and the gateway none.
    #[error("the gateway has no Entra identity of its own: each workflow's token is the assertion")]
    PerWorkflow,
    /// Cosmos refused a token that was only just fetched.
    #[error("Cosmos refused a fresh Entra token; another is fetched in {retry_after:?}")]
    Throttled {
        /// How long.
        retry_after: Duration,
    },
    /// The cache gave nothing back.
    #[error("no Entra token")]
    NoToken,
}

impl EntraError {
    /// What azure_identity met, by the kinds of its causes.
    pub(super) fn of(error: &azure_core::Error) -> Self {
        let causes = std::iter::successors(Some(error as &(dyn Error + 'static)), |error| (*error).source());
        let mut innermost = error.to_string();
        for cause in causes {
            if let Some(error) = cause.downcast_ref::<AssertionError>() {
                return Self::Assertion(error.clone());
            }
            if let Some(ErrorKind::HttpResponse { status, error_code, .. }) =
                cause.downcast_ref::<azure_core::Error>().map(azure_core::Error::kind)
            {
                return Self::Refused { status: u16::from(*status), code: error_code.clone() };
            }
            innermost = cause.to_string();
        }
        Self::Unreachable { reason: innermost }
    }
}
