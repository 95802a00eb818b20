//! `/readyz`: each dependency, its state, since when, and the last error; `/startupz`: whether it has been ready once.

use std::sync::atomic::Ordering;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::admin::Desk;
use crate::{audit::Health, clock::Timestamp, exchange::ExchangeStatus, upstream::BreakerState};

/// How a dependency is. The order is the order of trouble.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Condition {
    /// It works.
    Ok,
    /// The gateway still serves, on what it has.
    Degraded,
    /// Without it the gateway must not be sent traffic.
    Down,
}

impl Condition {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

/// One dependency of `/readyz`.
pub(super) struct Dependency {
    pub(super) name: String,
    pub(super) condition: Condition,
    since: Option<String>,
    error: Option<String>,
}

impl Dependency {
    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "state": self.condition.as_str(),
            "since": self.since,
            "error": self.error,
        })
    }
}

impl Desk {
    pub(super) async fn dependencies(&self) -> Vec<Dependency> {
        let mut all = vec![
            self.audit(),
            self.policy(),
            self.credential().await,
            self.account(),
            self.revocations(),
            self.cosmos(),
        ];
        all.extend(self.anchors());
        all.extend(self.issuers());
        all
    }

    fn audit(&self) -> Dependency {
        let (condition, since, error) = match self.gateway.rooms.journal.status().health {
            Health::Ok => (Condition::Ok, None, None),
            Health::Failed { since, error } => (Condition::Down, Some(since.rfc3339()), Some(error.to_string())),
        };
        Dependency { name: "audit".into(), condition, since, error }
    }

    /// An anchor that cannot be reached costs no request; checkpoints wait for it.
    fn anchors(&self) -> impl Iterator<Item = Dependency> {
        self.gateway.rooms.journal.status().anchors.into_iter().map(|anchor| Dependency {
            name: format!("audit anchor {}", anchor.name),
            condition: if anchor.trouble.is_some() { Condition::Degraded } else { Condition::Ok },
            since: anchor.trouble.as_ref().map(|(since, _)| since.rfc3339()),
            error: anchor.trouble.map(|(_, error)| error.to_string()),
        })
    }

    fn policy(&self) -> Dependency {
        let status = self.gateway.rooms.policy.status();
        let (condition, since, error) = match &status.rejected {
            None => (Condition::Ok, status.running.since, None),
            Some(rejected) => (Condition::Degraded, rejected.since, Some(rejected.error.clone())),
        };
        Dependency { name: "policy".into(), condition, since: Some(since.rfc3339()), error }
    }

    /// Tokens that are at hand keep working while none can be minted, and a key that is at hand while its source is away.
    async fn credential(&self) -> Dependency {
        let trouble = match self.gateway.rooms.exchange.status().await {
            ExchangeStatus::ResourceToken(broker) => {
                // What one scope meets is no trouble of the gateway's.
                let mint = broker.last_error.filter(|trouble| trouble.error.concerns_all());
                let mint = mint.map(|trouble| (trouble.at, trouble.error.to_string()));
                mint.or_else(|| broker.key.last_error.map(|trouble| (trouble.at, trouble.error.to_string())))
            }
            ExchangeStatus::Entra(entra) => entra.last_error.map(|trouble| (trouble.at, trouble.error.to_string())),
        };
        Dependency {
            name: "credential".into(),
            condition: if trouble.is_some() { Condition::Degraded } else { Condition::Ok },
            since: trouble.as_ref().map(|(at, _)| at.rfc3339()),
            error: trouble.map(|(_, error)| error),
        }
    }

    /// What the account allows. It was asked on its own account, so this is known before the first request.
    fn account(&self) -> Dependency {
        let heard = self.gateway.rooms.exchange.account();
        let error = heard.as_ref().and_then(|heard| heard.error.as_ref());
        Dependency {
            name: "account".into(),
            condition: if error.is_some() { Condition::Degraded } else { Condition::Ok },
            since: heard.as_ref().map(|heard| heard.at.rfc3339()),
            error: error.map(ToString::to_string),
        }
    }

    /// A region that is left alone, or a topology that is not known, is worked round; callers hear of it when nothing is left.
    fn cosmos(&self) -> Dependency {
        let status = self.gateway.rooms.upstream.status();
        let trouble = status.topology.and_then(|topology| topology.trouble);
        let left_alone = status.regions.iter().find(|region| region.breaker != BreakerState::Closed);
        let error = trouble.as_ref().map(|(_, error)| error.to_string()).or_else(|| {
            let name = left_alone?.name.as_deref().unwrap_or("the account's endpoint");
            Some(format!("{name} answers badly and is left alone for a while"))
        });
        Dependency {
            name: "cosmos".into(),
            condition: if error.is_some() { Condition::Degraded } else { Condition::Ok },
            since: trouble.map(|(since, _)| since.rfc3339()),
            error,
        }
    }

    /// What is known stays revoked, so the gateway goes on; what other replicas revoke meanwhile is not known here. Where the
    /// store was never read, nobody can pass.
    fn revocations(&self) -> Dependency {
        let status = self.gateway.rooms.revocations.status();
        let trouble = status.trouble;
        Dependency {
            name: "revocations".into(),
            condition: match (status.synced, &trouble) {
                (None, _) => Condition::Down,
                (_, Some(_)) => Condition::Degraded,
                (_, None) => Condition::Ok,
            },
            since: trouble.as_ref().map(|(since, _)| since.rfc3339()),
            error: trouble.map(|(_, error)| error.to_string()),
        }
    }

    /// One issuer without keys concerns its own workflows only; when none has keys, nobody can pass.
    fn issuers(&self) -> impl Iterator<Item = Dependency> {
        let issuers = self.gateway.rooms.identity.status();
        let none_is_usable = issuers.iter().all(|issuer| !issuer.usable);
        issuers.into_iter().map(move |issuer| Dependency {
            name: format!("issuer {}", issuer.name),
            condition: match (issuer.usable, &issuer.error) {
                (true, None) => Condition::Ok,
                (false, _) if none_is_usable => Condition::Down,
                _ => Condition::Degraded,
            },
            since: issuer.fetched.map(Timestamp::rfc3339),
            error: issuer.error.map(|error| error.to_string()),
        })
    }
}

/// What `/readyz` says: 200 when ready or degraded, 503 when it must not be sent traffic.
pub(super) async fn ready(State(desk): State<Desk>) -> Response {
    let dependencies = desk.dependencies().await;
    let (code, status) = verdict(&dependencies);
    desk.note(code);
    let dependencies: Vec<Value> = dependencies.iter().map(Dependency::to_json).collect();
    (code, Json(json!({"status": status, "dependencies": dependencies}))).into_response()
}

/// What `/startupz` says: 503 until it has been ready once, then 200 for good. What happens later is for `/readyz`; a start
/// that takes its time (an issuer that is slow to give its keys) is no reason to be killed as if it hung.
pub(super) async fn started(State(desk): State<Desk>) -> Response {
    if !desk.was_ready.load(Ordering::Relaxed) {
        desk.note(verdict(&desk.dependencies().await).0);
    }
    match desk.was_ready.load(Ordering::Relaxed) {
        true => (StatusCode::OK, "started\n").into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "starting: /readyz says what is missing\n").into_response(),
    }
}

impl Desk {
    fn note(&self, code: StatusCode) {
        if code == StatusCode::OK {
            self.was_ready.store(true, Ordering::Relaxed);
        }
    }
}

fn verdict(dependencies: &[Dependency]) -> (StatusCode, &'static str) {
    match dependencies.iter().map(|dependency| dependency.condition).max() {
        None | Some(Condition::Ok) => (StatusCode::OK, "ready"),
        Some(Condition::Degraded) => (StatusCode::OK, "degraded"),
        Some(Condition::Down) => (StatusCode::SERVICE_UNAVAILABLE, "unready"),
    }
}
