//! The proof that a token was checked.

use std::sync::Arc;

use crate::{
    access::{Claims, ExecutionContext, Subject, WorkloadKind},
    clock::Timestamp,
};

/// A workload whose token was verified: signature, issuer, audience, times, and positive proof that no human holds it.
/// Made by `authenticate` alone. Copies share what was proven.
#[derive(Clone, Debug)]
pub struct VerifiedSubject(pub(super) Arc<Proven>);

/// What a token proved.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) subject: Subject,
    pub(super) client: Option<Arc<str>>,
    pub(super) kind: WorkloadKind,
    pub(super) claims: Arc<Claims>,
    pub(super) context: ExecutionContext,
    pub(super) expires: Timestamp,
}

impl VerifiedSubject {
    /// Issuer and identifier.
    pub fn subject(&self) -> &Subject {
        &self.0.subject
    }

    /// The OAuth client, where the profile names one.
    pub fn client(&self) -> Option<&str> {
        self.0.client.as_deref()
    }

    /// The profile that proved it a workload.
    pub fn kind(&self) -> WorkloadKind {
        self.0.kind
    }

    /// All verified claims.
    pub fn claims(&self) -> &Claims {
        &self.0.claims
    }

    /// What the token itself says of the execution, by the issuer's `context` mapping; with its assurance.
    pub fn context(&self) -> &ExecutionContext {
        &self.0.context
    }

    /// When the token ends.
    pub fn expires(&self) -> Timestamp {
        self.0.expires
    }
}

#[cfg(test)]
impl VerifiedSubject {
    /// A subject as `authenticate` would make it, for tests of the rooms that demand one.
    pub(crate) fn for_test(subject: Subject, client: Option<&str>) -> Self {
        Self(Arc::new(Proven {
            subject,
            client: client.map(Into::into),
            kind: WorkloadKind::Oidc,
            claims: Arc::default(),
            context: ExecutionContext::default(),
            expires: Timestamp::from_millis(i64::MAX),
        }))
    }
}
