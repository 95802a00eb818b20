//! What can be revoked, and how an operator says so.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    access::{Execution, IssuerName},
    clock::Timestamp,
};

/// Longest identifier that is taken, in bytes.
const LONGEST: usize = 2048;
/// Longest reason that is kept, in bytes.
const LONGEST_REASON: usize = 500;

/// Whose requests are refused.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Target {
    /// Every request of a subject, whichever token it shows.
    Subject {
        /// The issuer, by its name in the configuration.
        issuer: IssuerName,
        /// The subject, as the issuer calls it.
        subject: String,
    },
    /// Every request of an OAuth client.
    Client {
        /// The issuer.
        issuer: IssuerName,
        /// The client.
        client: String,
    },
    /// One token, by its `jti`.
    Token {
        /// The issuer.
        issuer: IssuerName,
        /// The token's `jti`.
        token_id: String,
    },
    /// Every request that says it is of this execution. A caller that does not say so is not stopped: where the execution
    /// stands in a header alone it is the caller's own word.
    Execution {
        /// Its ARN.
        execution: String,
    },
}

impl Target {
    /// The id of its revocation: the same target has the same id at every replica, so revoking twice is revoking once.
    pub fn id(&self) -> String {
        // Serialising text members to a text cannot fail; an empty digest input would only make ids collide.
        let text = serde_json::to_string(self).unwrap_or_default();
        let digest = digest(&SHA256, text.as_bytes());
        hex::encode(digest.as_ref().get(..8).unwrap_or_default())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subject { issuer, subject } => write!(f, "subject {issuer}/{subject}"),
            Self::Client { issuer, client } => write!(f, "client {client} of {issuer}"),
            Self::Token { issuer, token_id } => write!(f, "token {token_id} of {issuer}"),
            Self::Execution { execution } => write!(f, "execution {execution}"),
        }
    }
}

/// What an operator asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Order {
    /// Whom it is about.
    pub target: Target,
    /// Why, in the operator's words.
    pub reason: Option<String>,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
}

/// An order that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// Not a JSON object.
    #[error("the body must be a JSON object such as {{\"issuer\": \"cognito\", \"subject\": \"7h2kexample\"}}")]
    NotAnObject,
    /// A member that means nothing here.
    #[error("unknown member `{0}`: there are issuer, subject, client, token_id, execution, reason, until")]
    Unknown(String),
    /// A member that is no text, or an empty or over-long one.
    #[error("`{0}` must be a text of 1 to {1} bytes")]
    Text(&'static str, usize),
    /// None or several of the four.
    #[error("name exactly one of subject, client, token_id, execution")]
    OneTarget,
    /// A subject, client or token means nothing without its issuer.
    #[error("`{0}` needs `issuer`: an identifier means nothing without who gave it")]
    NoIssuer(&'static str),
    /// An execution has none.
    #[error("an execution has no issuer: leave `issuer` out")]
    IssuerOfExecution,
    /// No such issuer.
    #[error("there is no issuer `{0}`; the configuration has {1}")]
    UnknownIssuer(String, String),
    /// Not an ARN.
    #[error("`execution` must be an execution ARN (arn:aws:states:REGION:ACCOUNT:execution:STATE_MACHINE:NAME)")]
    Execution,
    /// Not a time to come.
    #[error("`until` must be a time to come, such as 2026-11-22T21:24:18Z")]
    Until,
}

impl Order {
    /// Reads an order, in which `issuers` may be named.
    pub(super) fn read(body: &[u8], issuers: &[IssuerName], now: Timestamp) -> Result<Self, Malformed> {
        let members: Map<String, Value> = serde_json::from_slice(body).map_err(|_| Malformed::NotAnObject)?;
        const KNOWN: [&str; 7] = ["issuer", "subject", "client", "token_id", "execution", "reason", "until"];
        if let Some(unknown) = members.keys().find(|name| !KNOWN.contains(&name.as_str())) {
            return Err(Malformed::Unknown(unknown.clone()));
        }
        let text = |name: &'static str, longest: usize| match members.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if (1..=longest).contains(&text.len()) => Ok(Some(text.clone())),
            Some(_) => Err(Malformed::Text(name, longest)),
        };
        let issuer = text("issuer", LONGEST)?;
        let of_issuer = |name| {
            let issuer = issuer.clone().ok_or(Malformed::NoIssuer(name))?;
            let known = issuers.iter().find(|known| known.as_str() == issuer).cloned();
            known.ok_or_else(|| {
                let names: Vec<&str> = issuers.iter().map(IssuerName::as_str).collect();
                Malformed::UnknownIssuer(issuer, names.join(", "))
            })
        };
        let named = (
            text("subject", LONGEST)?,
            text("client", LONGEST)?,
            text("token_id", LONGEST)?,
            text("execution", LONGEST)?,
        );
        let target = match named {
            (Some(subject), None, None, None) => Target::Subject { issuer: of_issuer("subject")?, subject },
            (None, Some(client), None, None) => Target::Client { issuer: of_issuer("client")?, client },
            (None, None, Some(token_id), None) => Target::Token { issuer: of_issuer("token_id")?, token_id },
            (None, None, None, Some(_)) if issuer.is_some() => return Err(Malformed::IssuerOfExecution),
            (None, None, None, Some(execution)) => {
                execution.parse::<Execution>().map_err(|_| Malformed::Execution)?;
                Target::Execution { execution }
            }
            _ => return Err(Malformed::OneTarget),
        };
        let until = text("until", LONGEST)?.map(|text| time(&text).ok_or(Malformed::Until)).transpose()?;
        if until.is_some_and(|until| until <= now) {
            return Err(Malformed::Until);
        }
        Ok(Self { target, reason: text("reason", LONGEST_REASON)?, until })
    }
}

/// A time as RFC 3339 writes it.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    text.parse::<jiff::Timestamp>().ok().map(|time| Timestamp::from_millis(time.as_millisecond()))
}
