//! Which key fits: a verified subject and its permit are traded for a [`Warrant`], under which a request may leave for Cosmos.
//!
//! There are two kinds of account. One takes keys: then the warrant is a Cosmos resource token that opens no more than the
//! permit says ([`Broker`]). The other takes Entra tokens alone, which know no partitions: then the warrant is the gateway's own
//! token and the scope beside it, to which `upstream` holds each request (`entra`).
//!
//! **What this room decides.** Which scope a permit falls into, whether a token for it is at hand, and when another is
//! minted. Cosmos can enforce {Read, All} on a container or on one of its partitions; anything finer was enforced by
//! policy before a permit existed.
//!
//! **What it refuses to know.** The request. A scope is made of identity and policy alone, so a caller who varies ids,
//! queries or headers can never cause a mint: the account has a small fixed budget for them. Nor does the room know what
//! an answer looks like; it says why there is no token, and `answer` makes that a status.
//!
//! **Why this shape.** The account key can do everything, so it stays behind [`Broker`]: the key is read by `keyring` and used
//! by `signed` alone, which sends what `permission` (tokens) and `sweep` (what nobody uses any more) have to ask, within the
//! share of the account's `budget` that this gateway has. A [`Warrant`] has
//! no public maker, so what `upstream` sends has been here. One mint per scope at a time is kept by the cache itself
//! (moka computes one entry once), not by a lock of ours. An old token stays in use until the new one is there; a failure
//! is remembered for a moment, so that a crowd behind a closed door does not knock one by one.

mod account;
mod account_key;
mod broker;
mod budget;
mod desk;
mod entra;
mod error;
mod keyring;
mod permission;
mod scope;
#[cfg(test)]
pub(crate) mod scripted;
mod secrets_manager;
mod signature;
mod signed;
mod sweep;
mod token;
mod warrant;
mod watch;

pub use account::{AccountError, AccountStatus, ContainerFacts};
pub use account_key::{AccountKey, KeyError, KeySource, NotAKey, Position};
pub use broker::{Broker, BrokerStatus, Config as BrokerConfig, MintTrouble};
pub use budget::BudgetStatus;
pub use desk::{AccountDocument, Config, Exchange, ExchangeStatus, Released};
pub use entra::{
    AssertionError, AssertionSource, EntraConfig, EntraError, EntraIdentity, EntraStatus, EntraTrouble, SecretSource,
};
pub use error::ExchangeError;
pub use keyring::{KeyStatus, KeyTrouble};
pub use scope::{Holder, TokenScope};
pub use secrets_manager::{SecretsManagerError, Stage};
pub use signature::ToSign;
pub use sweep::SweepStatus;
pub use token::ResourceToken;
pub use warrant::Warrant;
