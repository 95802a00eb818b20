//! What a data request travels under.

use std::sync::Arc;

use http::HeaderValue;

use super::{entra::EntraToken, scope::TokenScope, token::ResourceToken};
use crate::access::{Enforcer, Subject};

/// Leave to act on Cosmos, within one scope: made by [`Exchange`](super::Exchange) alone, for a subject and its permit.
///
/// Whether the credential itself ends at the scope's edge depends on its kind, and [`Self::enforcer`] says it: a resource token
/// opens nothing else, an Entra token opens all that the gateway may touch. Whoever sends a request under the latter must hold
/// it to the scope himself.
#[derive(Clone, Debug)]
pub struct Warrant {
    pub(super) credential: Credential,
    pub(super) subject: Subject,
    pub(super) scope: TokenScope,
}

#[derive(Clone, Debug)]
pub(super) enum Credential {
    ResourceToken(Arc<ResourceToken>),
    Entra(Arc<EntraToken>),
}

impl Warrant {
    /// The value of `Authorization`, marked sensitive, so that it does not print.
    pub fn authorization(&self) -> &HeaderValue {
        match &self.credential {
            Credential::ResourceToken(token) => token.authorization(),
            Credential::Entra(token) => &token.authorization,
        }
    }

    /// The id of the Cosmos permission, where there is one, as Azure's diagnostic log shows it.
    pub fn permission_id(&self) -> Option<&Arc<str>> {
        match &self.credential {
            Credential::ResourceToken(token) => Some(token.permission_id()),
            Credential::Entra(_) => None,
        }
    }

    /// Who holds a request to the scope.
    pub fn enforcer(&self) -> Enforcer {
        match &self.credential {
            Credential::ResourceToken(_) => Enforcer::Cosmos,
            Credential::Entra(_) => Enforcer::Stepgate,
        }
    }

    /// Whose.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// What it is for.
    pub fn scope(&self) -> &TokenScope {
        &self.scope
    }
}

#[cfg(test)]
impl Warrant {
    /// A warrant as the exchange would make it, for tests of the rooms that demand one.
    pub(crate) fn for_test(permit: &crate::policy::Permit, enforcer: Enforcer) -> Self {
        let scope = TokenScope::for_test(permit);
        let credential = match enforcer {
            Enforcer::Cosmos => {
                let token = ResourceToken::for_test("type=resource&ver=1&sig=abc;payload;", scope.clone());
                Credential::ResourceToken(Arc::new(token))
            }
            Enforcer::Stepgate => Credential::Entra(Arc::new(EntraToken::for_test("jwt"))),
        };
        Self { credential, subject: permit.subject().clone(), scope }
    }
}
