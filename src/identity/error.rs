//! Why a request has no `VerifiedSubject`.
//!
//! The sentences are shown to callers: they name claims and what the configuration expects of them, and never repeat
//! anything from a token.

use super::{
    config::{Algorithm, Expect},
    profile::Test,
};
use crate::access::{IssuerName, MalformedContext, Subject};

/// Where the workflow token was.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Carrier {
    /// Nowhere.
    None,
    /// `Authorization`, as a bearer token or as a Cosmos SDK's `type=aad`. An OAuth connection can refresh it on a 401.
    Authorization,
    /// `x-stepgate-token`. A 401 would de-authorize the connection that carries something else.
    WorkflowHeader,
}

/// A refusal by this room.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct IdentityError {
    /// Where the token was.
    pub carrier: Carrier,
    /// What was wrong.
    pub reason: Reason,
    /// Whose token it is, where its signature was good: a person who was refused is recorded by name.
    pub subject: Option<Box<Subject>>,
}

impl IdentityError {
    /// What kind of refusal it is.
    pub fn class(&self) -> Class {
        self.reason.class()
    }
}

/// The kinds of refusal; with the carrier, they decide the status.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// Malformed request: 400.
    Rejected,
    /// No token, or one that proves nothing: 401, or 498 where a 401 would harm the connection.
    InvalidToken,
    /// A good token of something that is not proven to be a workload: 403.
    Human,
    /// The issuer's keys cannot be had, so nothing can be said of the token: 503.
    Unavailable,
}

/// What was wrong; the text is one sentence that is safe to show to the caller.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Reason {
    /// No carrier had a workflow token.
    #[error("the request carries no workflow token; send `Authorization: Bearer` or `x-stepgate-token`")]
    NoToken,
    /// More than one did, or one header came twice.
    #[error("the request carries two tokens; send exactly one, in `Authorization` or in `x-stepgate-token`")]
    TwoTokens,
    /// Over the size cap.
    #[error("the token is longer than {0} bytes")]
    TooLong(usize),
    /// Not three base64url parts with JSON objects in the first two.
    #[error("the token is not a signed JWT in compact form")]
    NotAJwt,
    /// A JSON member occurs twice, so two readers could see two tokens.
    #[error("a member of the token's {0} occurs twice")]
    RepeatedMember(Part),
    /// RFC 7515, section 4.1.11: extensions that are not understood must be refused, and none is.
    #[error("the token's header has `crit`, and no extension is understood here")]
    CriticalExtension,
    /// RFC 8725, section 3.11: another kind of JWT than an access token.
    #[error("the token's `typ` is not that of an access token (JWT or at+jwt)")]
    WrongType,
    /// `iss` is absent or not exactly a configured issuer's.
    #[error("the token's `iss` is not exactly the url of a configured issuer")]
    UnknownIssuer,
    /// `none`, HMAC, unknown, or not in the issuer's list.
    #[error("the token's `alg` is not one that is accepted from this issuer ({})", list(.0))]
    AlgorithmNotAllowed(Vec<Algorithm>),
    /// No such key at this issuer.
    #[error("the token's `kid` names no key of its issuer")]
    UnknownKey,
    /// The key exists, but is of another type, or for another use or algorithm.
    #[error("the key that the token's `kid` names is not for the token's `alg`")]
    UnfitKey,
    /// More than one key would do.
    #[error("the token does not say which of its issuer's keys signed it")]
    AmbiguousKey,
    /// The signature does not verify.
    #[error("the token's signature does not verify")]
    BadSignature,
    /// A claim that must be there is not.
    #[error("the token has no claim `{0}`")]
    MissingClaim(String),
    /// A claim is not of the form it must have.
    #[error("the token's claim `{claim}` is not {expected}")]
    MalformedClaim {
        /// Its name.
        claim: String,
        /// The form it must have.
        expected: &'static str,
    },
    /// `exp` is past.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is yet to come.
    #[error("the token is not valid yet (`nbf`)")]
    NotYetValid,
    /// `iat` is yet to come.
    #[error("the token was issued in the future (`iat`); is the issuer's clock right?")]
    IssuedInTheFuture,
    /// `aud` names somebody else.
    #[error("the token's `aud` is none of those accepted from this issuer ({})", list(.0))]
    WrongAudience(Vec<String>),
    /// The client is not in the issuer's allow-list.
    #[error("the token's client is not in the `clients` list of this issuer")]
    WrongClient,
    /// A fact of the execution in a claim is malformed.
    #[error("the token's claim `{claim}` is no {fact}: {malformed}")]
    MalformedFact {
        /// Which fact.
        fact: &'static str,
        /// The claim that the issuer's `context` maps to it.
        claim: String,
        /// What it should be.
        malformed: MalformedContext,
    },
    /// A claim shows a human.
    #[error("the claim `{claim}` shows a human; only workloads may pass")]
    Human {
        /// The claim that decided.
        claim: String,
    },
    /// A claim that would prove a workload does not hold.
    #[error("nothing proves a workload: the claim `{claim}` must be {expected}")]
    NotProven {
        /// The claim that decided.
        claim: String,
        /// What it should be.
        expected: Proof,
    },
    /// The issuer has no rules to prove a workload by.
    #[error("nothing proves a workload: the issuer has no `workload` rules")]
    NoWorkloadRules,
    /// The issuer's keys cannot be had.
    #[error("the keys of issuer `{0}` cannot be fetched at the moment")]
    KeysUnavailable(IssuerName),
}

/// What a claim must be to prove a workload.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Proof {
    /// A rule of the configuration.
    #[error("{0}")]
    Rule(Expect),
    /// A rule of a built-in profile.
    #[error("{0}")]
    Profile(Test),
}

/// A part of a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The JOSE header.
    Header,
    /// The claims.
    Claims,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Claims => "claims",
        })
    }
}

impl Reason {
    /// What kind of refusal it is.
    pub fn class(&self) -> Class {
        match self {
            Self::TwoTokens => Class::Rejected,
            Self::Human { .. } | Self::NotProven { .. } | Self::NoWorkloadRules => Class::Human,
            Self::KeysUnavailable(_) => Class::Unavailable,
            _ => Class::InvalidToken,
        }
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}
