//! `/status`: what is running, in full.

use serde_json::{Value, json};

use super::admin::Desk;
use crate::{
    access::Enforcer,
    audit,
    clock::Timestamp,
    exchange::{AccountStatus, BrokerStatus, ExchangeStatus, Stage},
    identity::IssuerStatus,
    overload::GateStatus,
    policy::PolicyStatus,
    revocation,
    upstream::{RegionStatus, UpstreamStatus},
};

impl Desk {
    /// Version, configuration, policies, issuers and credential.
    pub(super) async fn status(&self) -> Value {
        let rooms = &self.gateway.rooms;
        let (policy, now) = (rooms.policy.status(), rooms.clock.now());
        let issuers: Vec<Value> = rooms.identity.status().iter().map(|status| issuer(status, now)).collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "started": self.started.rfc3339(),
            "config_digest": self.config_digest,
            "policy": policies(&policy, now),
            "issuers": issuers,
            "audit": audit(&rooms.journal.status()),
            "revocations": revocations(&rooms.revocations.status()),
            "credential": credential(&rooms.exchange.status().await),
            "account": account(rooms.exchange.account().as_ref()),
            "cosmos": cosmos(&rooms.upstream.status()),
            "containers": rooms.overload.status().iter().map(gate).collect::<Vec<_>>(),
        })
    }
}

fn policies(status: &PolicyStatus, now: Timestamp) -> Value {
    let running = &status.running;
    json!({
        "running": {
            "revision": running.revision,
            "since": running.since.rfc3339(),
            "age_seconds": now.since(running.since).as_secs(),
        },
        "rejected": status.rejected.as_ref().map(|rejected| json!({
            "revision": rejected.revision,
            "error": rejected.error,
            "since": rejected.since.rfc3339(),
            "age_seconds": now.since(rejected.since).as_secs(),
        })),
    })
}

fn issuer(status: &IssuerStatus, now: Timestamp) -> Value {
    let age = |key: &crate::identity::KeyStatus| now.since(key.first_seen).as_secs();
    let keys: Vec<Value> = status.keys.iter().map(|key| json!({"kid": key.id, "age_seconds": age(key)})).collect();
    json!({
        "name": status.name,
        "kind": status.kind,
        "url": status.url,
        "usable": status.usable,
        "keys": keys,
        "fetched": status.fetched.map(Timestamp::rfc3339),
        "age_seconds": status.fetched.map(|fetched| now.since(fetched).as_secs()),
        "attempted": status.attempted.map(Timestamp::rfc3339),
        "error": status.error.as_ref().map(ToString::to_string),
    })
}

fn audit(status: &audit::Status) -> Value {
    let anchor = |anchor: &audit::AnchorStatus| {
        json!({
            "name": anchor.name,
            "signed_records": anchor.size,
            "anchored": anchor.anchored,
            "waiting": anchor.waiting,
            "failures": anchor.failures,
            "error": anchor.trouble.as_ref().map(|(_, error)| error.to_string()),
        })
    };
    let error = match &status.health {
        audit::Health::Ok => None,
        audit::Health::Failed { error, .. } => Some(error.to_string()),
    };
    json!({ "error": error, "anchors": status.anchors.iter().map(anchor).collect::<Vec<_>>() })
}

fn revocations(status: &revocation::Status) -> Value {
    json!({
        "store": status.store,
        "in_force": status.revocations,
        "unsaved": status.unsaved,
        "synced": status.synced.map(Timestamp::rfc3339),
        "error": status.trouble.as_ref().map(|(_, error)| error.to_string()),
    })
}

fn account(status: Option<&AccountStatus>) -> Value {
    json!({
        "asked": status.map(|status| status.at.rfc3339()),
        "error": status.and_then(|status| status.error.as_ref()).map(ToString::to_string),
    })
}

/// `regions` in the order of preference. A region without a name is the account's own endpoint, which chooses by itself.
fn cosmos(upstream: &UpstreamStatus) -> Value {
    let region = |region: &RegionStatus| {
        json!({
            "name": region.name,
            "endpoint": region.endpoint.as_str(),
            "reads": region.reads,
            "writes": region.writes,
            "breaker": region.breaker.as_str(),
        })
    };
    let topology = upstream.topology.as_ref();
    json!({
        "regions": upstream.regions.iter().map(region).collect::<Vec<_>>(),
        "regions_read": topology.and_then(|topology| topology.read).map(Timestamp::rfc3339),
        "error": topology.and_then(|topology| topology.trouble.as_ref()).map(|(_, error)| error.to_string()),
        "sessions": upstream.sessions,
    })
}

/// How much a container takes at once, as found out.
fn gate(gate: &GateStatus) -> Value {
    json!({
        "container": gate.container.as_str(),
        "limit": gate.limit,
        "in_flight": gate.in_flight,
        "waiting": gate.waiting,
        "shed": gate.shed,
    })
}

fn credential(status: &ExchangeStatus) -> Value {
    match status {
        ExchangeStatus::ResourceToken(broker) => resource_tokens(broker),
        ExchangeStatus::Entra(entra) => json!({
            "kind": "entra",
            "enforced_by": Enforcer::Stepgate.as_str(),
            "identity": entra.identity,
            "expires": entra.expires.map(Timestamp::rfc3339),
            "fetches": entra.fetches,
            "error": entra.last_error.as_ref().map(|trouble| trouble.error.to_string()),
        }),
    }
}

fn resource_tokens(broker: &BrokerStatus) -> Value {
    let position = broker.key.position.as_ref();
    json!({
        "kind": "resource_token",
        "enforced_by": Enforcer::Cosmos.as_str(),
        "account_key": {
            "source": broker.key.source,
            "stage": position.and_then(|position| position.stage).map(Stage::as_str),
            "version": position.and_then(|position| position.version.as_deref()),
            "field": position.and_then(|position| position.field.as_deref()),
            "refused": broker.key.exhausted,
            "read": broker.key.read.map(Timestamp::rfc3339),
            "since": broker.key.since.map(Timestamp::rfc3339),
            "error": broker.key.last_error.as_ref().map(|trouble| trouble.error.to_string()),
        },
        "cached_tokens": broker.cached_tokens,
        "mints": broker.mints,
        "metadata_budget": {
            "request_units_per_second": broker.budget.per_second,
            "request_units_spent": broker.budget.spent,
            "throttled": broker.budget.throttled,
        },
        "sweep": broker.sweep.as_ref().map(|sweep| json!({
            "ended": sweep.at.rfc3339(),
            "scopes": sweep.scopes,
            "removed": sweep.removed,
            "error": sweep.error.as_ref().map(ToString::to_string),
        })),
        "error": broker.last_error.as_ref().map(|trouble| trouble.error.to_string()),
    })
}
