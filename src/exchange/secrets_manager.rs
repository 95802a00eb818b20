//! AWS Secrets Manager, asked for one version of one secret.

use std::{sync::Arc, time::Duration};

use aws_config::{BehaviorVersion, timeout::TimeoutConfig};
use aws_sdk_secretsmanager::{
    Client,
    error::{ProvideErrorMetadata as _, SdkError},
    operation::get_secret_value::GetSecretValueError,
};
use futures_util::FutureExt as _;
use tokio::sync::OnceCell;

use crate::secret::Secret;

/// A label that AWS puts on a version of a secret, and moves as a rotation goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// `AWSCURRENT`: the version in force.
    Current,
    /// `AWSPENDING`: the version that a rotation under way has written and not yet put in force.
    Pending,
    /// `AWSPREVIOUS`: the version that was in force before.
    Previous,
}

impl Stage {
    /// AWS' word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "AWSCURRENT",
            Self::Pending => "AWSPENDING",
            Self::Previous => "AWSPREVIOUS",
        }
    }
}

/// A version of a secret.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) text: Secret,
    pub(super) id: Option<Arc<str>>,
}

/// How long one question may take, with the SDK's own retries in it.
const DEADLINE: Duration = Duration::from_secs(4);

/// A client made at its first use, since making one may already ask the network (instance metadata) for credentials.
#[derive(Debug, Default)]
pub(super) struct SecretsManager {
    client: OnceCell<Client>,
}

impl SecretsManager {
    /// The version that is staged so now. The stage is always named: a secret's default is `AWSCURRENT`, and a reader should
    /// not have to know.
    pub(super) async fn version(&self, secret_id: &str, stage: Stage) -> Result<Version, SecretsManagerError> {
        // Boxed and erased: the SDK's futures are nested deeper than the compiler follows inside ours.
        let client = self.client.get_or_init(|| connect().boxed()).await;
        let question = client.get_secret_value().secret_id(secret_id).version_stage(stage.as_str());
        let answer = question.send().boxed().await;
        let answer = answer.map_err(|error| SecretsManagerError::from_sdk(secret_id, stage, &error))?;
        let text =
            answer.secret_string.ok_or_else(|| SecretsManagerError::NotText { secret_id: secret_id.to_owned() })?;
        Ok(Version { text: Secret::new(text), id: answer.version_id.map(Into::into) })
    }

    /// A client of a server that stands in for AWS.
    #[cfg(test)]
    pub(super) fn of(server: &super::scripted::Scripted) -> Self {
        use aws_sdk_secretsmanager::config::{Config, Credentials, Region};
        let config = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("us-east-1"))
            .endpoint_url(server.url().as_str())
            .credentials_provider(Credentials::new("id", "secret", None, None, "test"))
            .build();
        Self { client: OnceCell::new_with(Some(Client::from_conf(config))) }
    }
}

/// A client by the AWS defaults: region, endpoint (`AWS_ENDPOINT_URL`) and credentials from where every AWS tool takes them.
async fn connect() -> Client {
    let timeouts = TimeoutConfig::builder().operation_timeout(DEADLINE).build();
    let config = aws_config::defaults(BehaviorVersion::v2026_01_12()).timeout_config(timeouts).load().await;
    Client::new(&config)
}

/// AWS Secrets Manager gave no secret.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SecretsManagerError {
    /// `ResourceNotFoundException`
    #[error("there is no secret {secret_id} in this account and region, or it has no version staged {}", stage.as_str())]
    NotFound {
        /// The secret.
        secret_id: String,
        /// The stage asked for.
        stage: Stage,
    },
    /// `AccessDeniedException`, or credentials that AWS does not accept.
    #[error("AWS refuses to show secret {secret_id} ({code}); allow secretsmanager:GetSecretValue on it")]
    Denied {
        /// The secret.
        secret_id: String,
        /// The code AWS gave.
        code: String,
    },
    /// `DecryptionFailure`
    #[error("secret {secret_id} cannot be decrypted; allow kms:Decrypt on its KMS key")]
    Undecryptable {
        /// The secret.
        secret_id: String,
    },
    /// The secret is binary.
    #[error("secret {secret_id} is binary; store it as text")]
    NotText {
        /// The secret.
        secret_id: String,
    },
    /// Any other code.
    #[error("AWS Secrets Manager answered {code} for secret {secret_id}")]
    Refused {
        /// The secret.
        secret_id: String,
        /// The code AWS gave, or `unknown`.
        code: String,
    },
    /// No answer: no route, no credentials, no time.
    #[error("AWS Secrets Manager cannot be asked for secret {secret_id}: {reason}")]
    Unreachable {
        /// The secret.
        secret_id: String,
        /// What the SDK said.
        reason: String,
    },
}

impl SecretsManagerError {
    fn from_sdk<R>(secret_id: &str, stage: Stage, error: &SdkError<GetSecretValueError, R>) -> Self
    where
        R: std::fmt::Debug + 'static,
    {
        let secret_id = secret_id.to_owned();
        let Some(refusal) = error.as_service_error() else {
            return Self::Unreachable { secret_id, reason: causes(error) };
        };
        let code = refusal.code().unwrap_or("unknown");
        match code {
            "ResourceNotFoundException" => Self::NotFound { secret_id, stage },
            "DecryptionFailure" => Self::Undecryptable { secret_id },
            "AccessDeniedException"
            | "UnrecognizedClientException"
            | "InvalidSignatureException"
            | "ExpiredTokenException" => Self::Denied { secret_id, code: code.to_owned() },
            _ => Self::Refused { secret_id, code: code.to_owned() },
        }
    }
}

/// The causes of an error, on one line. Not the SDK's own context, which prints the raw response, secret and all.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::exchange::scripted::{Reply, Scripted};

    #[tokio::test]
    async fn the_stage_is_named_in_the_question() {
        let server = Scripted::start(|request| {
            assert_eq!(request.headers["x-amz-target"], "secretsmanager.GetSecretValue");
            let question: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
            assert_eq!(question, serde_json::json!({"SecretId": "prod/cosmos", "VersionStage": "AWSPENDING"}));
            Reply::new(StatusCode::OK).body(r#"{"SecretString": "text", "VersionId": "v-2"}"#)
        });
        let server = server.await;
        let version = SecretsManager::of(&server).version("prod/cosmos", Stage::Pending).await.unwrap();
        assert_eq!((version.text.expose(), version.id.as_deref()), ("text", Some("v-2")));
        assert!(!format!("{version:?}").contains("text:\"") && format!("{version:?}").contains("redacted"));
    }

    #[tokio::test]
    async fn refusals_are_told_apart_by_code() {
        let refused = async |code: &'static str| {
            let body = format!(r#"{{"__type": "{code}", "message": "no"}}"#);
            let server = Scripted::start(move |_| Reply::new(StatusCode::BAD_REQUEST).body(body.clone())).await;
            SecretsManager::of(&server).version("s", Stage::Current).await.unwrap_err()
        };
        let absent = SecretsManagerError::NotFound { secret_id: "s".into(), stage: Stage::Current };
        assert_eq!(refused("ResourceNotFoundException").await, absent);
        assert_eq!(refused("DecryptionFailure").await, SecretsManagerError::Undecryptable { secret_id: "s".into() });
        let code = "AccessDeniedException".to_owned();
        assert_eq!(refused("AccessDeniedException").await, SecretsManagerError::Denied { secret_id: "s".into(), code });
        let code = "InvalidRequestException".to_owned();
        assert_eq!(
            refused("InvalidRequestException").await,
            SecretsManagerError::Refused { secret_id: "s".into(), code }
        );
    }

    #[tokio::test]
    async fn an_answer_that_cannot_be_read_does_not_end_up_in_the_message() {
        let server = Scripted::start(|_| Reply::new(StatusCode::OK).body(r#"{"SecretString": "hunter2", "#)).await;
        let error = SecretsManager::of(&server).version("s", Stage::Current).await.unwrap_err();
        assert!(matches!(error, SecretsManagerError::Refused { .. }), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}
