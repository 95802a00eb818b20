//! Tokens that stand for the gateway at Entra: what `client_assertion` carries (RFC 7523, section 2.2).

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_config::{BehaviorVersion, timeout::TimeoutConfig};
use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    rsa::KeyPair as RsaKeyPair,
    signature::RSA_PSS_SHA256,
};
use aws_sdk_sts::{Client, error::ProvideErrorMetadata as _};
use azure_core::{error::ErrorKind, http::ClientMethodOptions};
use azure_identity::ClientAssertion;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::FutureExt as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::{clock::Clock, secret::Secret};

/// How long one question to AWS may take, with the SDK's own retries in it.
const DEADLINE: Duration = Duration::from_secs(8);
/// How long an assertion of AWS lives, in seconds: it is traded at once.
const AWS_LIFETIME: i32 = 300;
/// What Entra is known to verify.
const AWS_ALGORITHM: &str = "RS256";
/// How long an assertion signed here lives, in seconds.
const LIFETIME: i64 = 300;

/// Why there is no assertion.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AssertionError {
    /// The file with the token, or with certificate and key.
    #[error("cannot read {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: io::ErrorKind,
    },
    /// The file is no certificate with its key.
    #[error("{} does not hold an RSA private key and its certificate, as PEM", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
    },
    /// AWS gave none.
    #[error(
        "AWS gave no web identity token ({code}); enable outbound identity federation for the account, and allow \
         sts:GetWebIdentityToken"
    )]
    Aws {
        /// The code AWS gave, or `unreachable`.
        code: String,
    },
}

/// AWS STS, asked for web identity tokens. Clones share the client.
#[derive(Clone, Debug, Default)]
pub(super) struct Web {
    client: Arc<OnceCell<Client>>,
}

impl Web {
    async fn token(&self, audience: &str) -> Result<String, AssertionError> {
        // Boxed and erased: the SDK's futures are nested deeper than the compiler follows inside ours.
        let client = self.client.get_or_init(|| connect().boxed()).await;
        let asked = client.get_web_identity_token().audience(audience).signing_algorithm(AWS_ALGORITHM);
        let answer = asked.duration_seconds(AWS_LIFETIME).send().boxed().await.map_err(|error| {
            let code = error.as_service_error().and_then(|refusal| refusal.code());
            AssertionError::Aws { code: code.unwrap_or("unreachable").to_owned() }
        })?;
        answer.web_identity_token.ok_or_else(|| AssertionError::Aws { code: "no token".to_owned() })
    }
}

async fn connect() -> Client {
    let timeouts = TimeoutConfig::builder().operation_timeout(DEADLINE).build();
    let config = aws_config::defaults(BehaviorVersion::v2026_01_12()).timeout_config(timeouts).load().await;
    Client::new(&config)
}

/// One way to an assertion.
pub(super) enum Assertion {
    /// What stands in a file.
    File(PathBuf),
    /// What AWS says of the gateway's role.
    AwsWebIdentity { audience: String, web: Web },
    /// What the workflow showed.
    Given(Secret),
    /// Signed here with the certificate's key.
    Certificate { file: PathBuf, client_id: String, audience: String, clock: Clock },
}

impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File(_) => "Assertion::File",
            Self::AwsWebIdentity { .. } => "Assertion::AwsWebIdentity",
            Self::Given(_) => "Assertion::Given",
            Self::Certificate { .. } => "Assertion::Certificate",
        })
    }
}

impl Assertion {
    pub(super) fn certificate(file: &Path, client_id: &str, audience: String, clock: Clock) -> Self {
        Self::Certificate { file: file.to_owned(), client_id: client_id.to_owned(), audience, clock }
    }

    async fn make(&self) -> Result<String, AssertionError> {
        match self {
            Self::File(path) => Ok(read(path)?.trim().to_owned()),
            Self::AwsWebIdentity { audience, web } => web.token(audience).await,
            Self::Given(token) => Ok(token.expose().to_owned()),
            Self::Certificate { file, client_id, audience, clock } => {
                sign(file, client_id, audience, clock.now().as_secs())
            }
        }
    }
}

#[async_trait::async_trait]
impl ClientAssertion for Assertion {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        self.make().await.map_err(|error| azure_core::Error::new(ErrorKind::Credential, error))
    }
}

fn read(path: &Path) -> Result<String, AssertionError> {
    fs::read_to_string(path).map_err(|error| AssertionError::File { path: path.to_owned(), reason: error.kind() })
}

/// The assertion that Entra wants of an application with a certificate: signed with PS256, the certificate named by the
/// SHA-256 of its DER (`x5t#S256`).
fn sign(file: &Path, client_id: &str, audience: &str, now: i64) -> Result<String, AssertionError> {
    let pem = Secret::new(read(file)?);
    let pem = pem.expose().as_bytes();
    let refuse = || AssertionError::Certificate { path: file.to_owned() };
    let certificate = CertificateDer::from_pem_slice(pem).map_err(|_| refuse())?;
    let key = key_pair(pem).ok_or_else(refuse)?;
    let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA256, certificate.as_ref()));
    let header = json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint });
    let claims = json!({
        "aud": audience,
        "iss": client_id,
        "sub": client_id,
        "jti": uuid::Uuid::new_v4().to_string(),
        "nbf": now,
        "iat": now,
        "exp": now + LIFETIME,
    });
    let signed =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).map_err(|_| refuse())?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn key_pair(pem: &[u8]) -> Option<RsaKeyPair> {
    match PrivateKeyDer::from_pem_slice(pem).ok()? {
        PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).ok(),
        PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()).ok(),
        _ => None,
    }
}
