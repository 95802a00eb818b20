//! The account key: the one secret that can make every other, so it is kept as short a way as it can be.

use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

use aws_lc_rs::{constant_time, hmac};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::secrets_manager::{SecretsManager, SecretsManagerError, Stage};
use crate::secret::Secret;

/// The decoded key of a Cosmos account (primary or secondary); wiped on drop, never printed.
pub struct AccountKey(Zeroizing<Vec<u8>>);

impl AccountKey {
    /// Reads the base64 form in which Azure shows a key; white space around it (the newline of a file) is ignored.
    pub fn from_base64(text: &str) -> Result<Self, NotAKey> {
        let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| NotAKey)?);
        if bytes.is_empty() {
            return Err(NotAKey);
        }
        Ok(Self(bytes))
    }

    /// The HMAC-SHA256 of `message` under this key.
    pub(super) fn mac(&self, message: &[u8]) -> hmac::Tag {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), message)
    }

    /// The base64 form, for a client that signs by itself.
    pub(super) fn to_base64(&self) -> Secret {
        Secret::new(STANDARD.encode(&*self.0))
    }

    /// Whether `other` is the same key, compared in constant time.
    pub(super) fn matches(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccountKey([redacted])")
    }
}

/// The text is not the base64 form of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not the base64 form of a key")]
pub struct NotAKey;

/// Where the account key comes from. It never stands in the configuration itself.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// A file, watched, so that a mounted secret can be rotated under a running gateway.
    File {
        /// The file.
        path: PathBuf,
        /// The member that holds the key when the file is JSON; without it the whole file is the key.
        field: Option<String>,
    },
    /// An environment variable, already read: a process cannot see its environment rotated.
    Env {
        /// The variable's name, for messages.
        variable: String,
        /// Its value.
        value: Secret,
        /// The member that holds the key when the value is JSON.
        field: Option<String>,
    },
    /// AWS Secrets Manager: the version staged `AWSCURRENT`, and the others when Cosmos refuses what is in that.
    AwsSecretsManager {
        /// The secret's name or ARN.
        secret_id: String,
        /// The member that holds the key; the secret is JSON.
        field: String,
        /// How often `AWSCURRENT` is read again, about.
        refresh: Duration,
    },
}

/// Where in its source a key stands. Nothing here is derived from the key itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Position {
    /// The label of the secret's version, in AWS Secrets Manager.
    pub stage: Option<Stage>,
    /// The id of that version.
    pub version: Option<Arc<str>>,
    /// The member of the JSON object.
    pub field: Option<Arc<str>>,
}

/// For messages: `AWSPENDING, field secondaryMasterKey`.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.stage, &self.field) {
            (Some(stage), Some(field)) => write!(f, "{}, field {field}", stage.as_str()),
            (None, Some(field)) => write!(f, "field {field}"),
            _ => f.write_str("the key itself"),
        }
    }
}

/// A key, and where it was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) key: Arc<AccountKey>,
    pub(super) at: Position,
}

/// How far a source is searched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Search {
    /// Where the key belongs.
    Usual,
    /// Wherever a key may stand that Cosmos takes in the middle of a rotation.
    Everywhere,
}

impl KeySource {
    /// The word of the configuration: `file`, `env` or `aws_secrets_manager`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Env { .. } => "env",
            Self::AwsSecretsManager { .. } => "aws_secrets_manager",
        }
    }

    /// How often it is read again even though nothing says that it changed; `None` where it cannot change.
    pub(super) fn refresh(&self) -> Option<Duration> {
        match self {
            // Some file systems tell a watch nothing of what others write.
            Self::File { .. } => Some(Duration::from_secs(60)),
            Self::Env { .. } => None,
            Self::AwsSecretsManager { refresh, .. } => Some(*refresh),
        }
    }

    /// The keys that stand there now, the likeliest first, and never none.
    ///
    /// The account takes two keys, and a rotation replaces one of them. Next to the configured field is therefore its
    /// counterpart of the same version, which the rotation left alone. Then comes the version that a rotation under way is
    /// about to put in force (`AWSPENDING`): Cosmos makes the new key, so it takes that before Secrets Manager calls it
    /// current. Last is the version before the current one, for an account that lags behind the end of a rotation.
    pub(super) async fn read(&self, aws: &SecretsManager, search: Search) -> Result<Vec<Found>, KeyError> {
        match self {
            Self::File { path, field } => {
                let text = tokio::fs::read_to_string(path).await;
                let text = text.map_err(|error| KeyError::Unreadable { path: path.clone(), reason: error.kind() })?;
                self.keys(&Zeroizing::new(text), field.as_deref(), &Position::default())
            }
            Self::Env { value, field, .. } => self.keys(value.expose(), field.as_deref(), &Position::default()),
            Self::AwsSecretsManager { secret_id, field, .. } => {
                let stage = async |stage| {
                    let version = aws.version(secret_id, stage).await?;
                    let at = Position { stage: Some(stage), version: version.id, field: None };
                    self.keys(version.text.expose(), Some(field), &at)
                };
                if search == Search::Usual {
                    return stage(Stage::Current).await;
                }
                let (current, pending, previous) =
                    tokio::join!(stage(Stage::Current), stage(Stage::Pending), stage(Stage::Previous));
                // There is not always a rotation under way, nor always a version before.
                let others = [pending, previous].into_iter().flatten().flatten();
                Ok(current?.into_iter().chain(others).collect())
            }
        }
    }

    /// The key in `text` and, beside it, its counterpart.
    fn keys(&self, text: &str, field: Option<&str>, at: &Position) -> Result<Vec<Found>, KeyError> {
        let found = |field: Option<&str>, text: &str| {
            let key = AccountKey::from_base64(text).map_err(|NotAKey| KeyError::NotAKey { place: self.to_string() })?;
            Ok::<_, KeyError>(Found { key: Arc::new(key), at: Position { field: field.map(Into::into), ..at.clone() } })
        };
        let Some(field) = field else { return Ok(vec![found(None, text)?]) };
        let first = found(Some(field), &self.member(text, field)?)?;
        let other = counterpart(field)
            .and_then(|other| found(Some(&other), &self.member(text, &other).ok()?).ok())
            .filter(|other| !other.key.matches(&first.key));
        Ok(std::iter::once(first).chain(other).collect())
    }

    /// The string member called `field` of the JSON object `text`. Other members are skipped over, not copied.
    fn member(&self, text: &str, field: &str) -> Result<Zeroizing<String>, KeyError> {
        let members: std::collections::HashMap<&str, &serde_json::value::RawValue> =
            serde_json::from_str(text).map_err(|_| KeyError::NotAnObject { place: self.to_string() })?;
        let value = members.get(field).and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
        value
            .map(Zeroizing::new)
            .ok_or_else(|| KeyError::NoSuchField { place: self.to_string(), field: field.to_owned() })
    }
}

/// The field of the account's other key: `secondaryMasterKey` for `primaryMasterKey`, as Azure calls them, and whatever
/// else differs in that word.
fn counterpart(field: &str) -> Option<String> {
    let words = [("primary", "secondary"), ("Primary", "Secondary"), ("PRIMARY", "SECONDARY")];
    words
        .iter()
        .flat_map(|&(one, other)| [(one, other), (other, one)])
        .find_map(|(word, other)| field.contains(word).then(|| field.replacen(word, other, 1)))
}

/// Where, for messages: `file /etc/key`.
impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => write!(f, "file {}", path.display()),
            Self::Env { variable, .. } => write!(f, "environment variable {variable}"),
            Self::AwsSecretsManager { secret_id, .. } => write!(f, "secret {secret_id}"),
        }
    }
}

/// The account key cannot be had.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("the account key's file {} cannot be read: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: io::ErrorKind,
    },
    /// A field was named, but there is no JSON object to look in.
    #[error("{place} is not a JSON object with distinct plain names; leave out `field` if it holds the bare key")]
    NotAnObject {
        /// The source.
        place: String,
    },
    /// The JSON object has no string member of that name.
    #[error("{place} has no string member `{field}`")]
    NoSuchField {
        /// The source.
        place: String,
        /// The member looked for.
        field: String,
    },
    /// What was found is not base64.
    #[error("{place} does not hold the base64 form of a key; name the member in `field` if it is JSON")]
    NotAKey {
        /// The source.
        place: String,
    },
    /// AWS Secrets Manager gave no secret.
    #[error(transparent)]
    SecretsManager(#[from] SecretsManagerError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(value: &str, field: Option<&str>) -> KeySource {
        let value = Secret::new(value.to_owned());
        KeySource::Env { variable: "KEY".into(), value, field: field.map(str::to_owned) }
    }

    async fn read(source: &KeySource) -> Result<Arc<AccountKey>, KeyError> {
        let found = source.read(&SecretsManager::default(), Search::Everywhere).await?;
        Ok(Arc::clone(&found[0].key))
    }

    #[tokio::test]
    async fn a_key_is_read_bare_or_from_a_member() {
        let key = AccountKey::from_base64("c2VjcmV0").unwrap();
        assert!(read(&env("c2VjcmV0\n", None)).await.unwrap().matches(&key));
        let json = r#"{"other": {"a": 1}, "primaryMasterKey": "c2VjcmV0"}"#;
        assert!(read(&env(json, Some("primaryMasterKey"))).await.unwrap().matches(&key));
    }

    #[tokio::test]
    async fn the_accounts_other_key_stands_behind_the_configured_one() {
        let fields = async |json: &str, field: &str| {
            let found = env(json, Some(field)).read(&SecretsManager::default(), Search::Usual).await.unwrap();
            found.into_iter().map(|found| found.at.field.unwrap().to_string()).collect::<Vec<_>>()
        };
        let both = r#"{"primaryMasterKey": "b25l", "secondaryMasterKey": "dHdv", "primaryReadonlyMasterKey": "cm8="}"#;
        assert_eq!(fields(both, "primaryMasterKey").await, ["primaryMasterKey", "secondaryMasterKey"]);
        assert_eq!(fields(both, "secondaryMasterKey").await, ["secondaryMasterKey", "primaryMasterKey"]);
        assert_eq!(fields(r#"{"primary": "b25l", "secondary": "b25l"}"#, "primary").await, ["primary"], "the same key");
        assert_eq!(fields(r#"{"primary": "b25l", "secondary": "!"}"#, "primary").await, ["primary"], "no key");
        assert_eq!(fields(r#"{"key": "b25l", "secondary": "dHdv"}"#, "key").await, ["key"]);
    }

    #[tokio::test]
    async fn a_key_that_is_not_there_is_named_by_place_and_field() {
        let text = |error: KeyError| error.to_string();
        assert_eq!(
            text(read(&env("c2VjcmV0", Some("a"))).await.unwrap_err()),
            "environment variable KEY is not a JSON object with distinct plain names; leave out `field` if it holds the bare key"
        );
        assert_eq!(
            text(read(&env(r#"{"a": 1}"#, Some("a"))).await.unwrap_err()),
            "environment variable KEY has no string member `a`"
        );
        assert!(matches!(read(&env("{}", None)).await, Err(KeyError::NotAKey { .. })));
        assert!(matches!(read(&env("", None)).await, Err(KeyError::NotAKey { .. })));
        let absent = KeySource::File { path: "/nowhere/key".into(), field: None };
        let error = KeyError::Unreadable { path: "/nowhere/key".into(), reason: io::ErrorKind::NotFound };
        assert_eq!(read(&absent).await.unwrap_err(), error);
    }

    #[test]
    fn a_key_does_not_print() {
        let key = AccountKey::from_base64("c2VjcmV0").unwrap();
        assert_eq!(format!("{key:?}"), "AccountKey([redacted])");
        assert!(!format!("{:?}", env("c2VjcmV0", None)).contains("c2Vj"));
    }
}
