//! The revocations as requests ask for them: by name, without a copy and without a lock.

use std::{collections::HashMap, sync::Arc};

use super::{
    list::{List, Revocation},
    target::Target,
};
use crate::{
    access::{IssuerName, Subject},
    clock::Timestamp,
};

type ByName = HashMap<String, Arc<Revocation>>;

#[derive(Debug, Default)]
pub(super) struct Index {
    all: Vec<Arc<Revocation>>,
    issuers: HashMap<IssuerName, OfIssuer>,
    executions: ByName,
}

#[derive(Debug, Default)]
struct OfIssuer {
    subjects: ByName,
    clients: ByName,
    tokens: ByName,
}

impl Index {
    pub(super) fn of(list: &List) -> Self {
        let mut index = Self::default();
        for revocation in list.iter() {
            let (place, name) = match &revocation.target {
                Target::Subject { issuer, subject } => (&mut index.at(issuer).subjects, subject),
                Target::Client { issuer, client } => (&mut index.at(issuer).clients, client),
                Target::Token { issuer, token_id } => (&mut index.at(issuer).tokens, token_id),
                Target::Execution { execution } => (&mut index.executions, execution),
            };
            place.insert(name.clone(), Arc::clone(revocation));
            index.all.push(Arc::clone(revocation));
        }
        index
    }

    fn at(&mut self, issuer: &IssuerName) -> &mut OfIssuer {
        self.issuers.entry(issuer.clone()).or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn caller(
        &self,
        subject: &Subject,
        client: Option<&str>,
        token_id: Option<&str>,
        now: Timestamp,
    ) -> Option<&Arc<Revocation>> {
        let issuer = self.issuers.get(&subject.issuer)?;
        let subject = issuer.subjects.get(&*subject.id);
        let client = client.and_then(|client| issuer.clients.get(client));
        let token = token_id.and_then(|id| issuer.tokens.get(id));
        [subject, client, token].into_iter().flatten().find(|revocation| revocation.holds(now))
    }

    pub(super) fn execution(&self, arn: &str, now: Timestamp) -> Option<&Arc<Revocation>> {
        self.executions.get(arn).filter(|revocation| revocation.holds(now))
    }

    pub(super) fn in_force(&self, now: Timestamp) -> Vec<Arc<Revocation>> {
        self.all.iter().filter(|revocation| revocation.holds(now)).cloned().collect()
    }
}
