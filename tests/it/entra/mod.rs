//! The suite once more, before an account that takes Entra tokens alone; and what is stepgate's own to enforce there.

use stepgate::config::Raw;

use crate::rig::{Account, Rig};

#[path = "../answers.rs"]
mod answers;
mod enforcement;
#[path = "../limits.rs"]
mod limits;
#[path = "../log.rs"]
mod log;
#[path = "../policies.rs"]
mod policies;
#[path = "../preflight.rs"]
mod preflight;
#[path = "../revocation.rs"]
mod revocation;
#[path = "../walk.rs"]
mod walk;

async fn start() -> Rig {
    with(|_| {}).await
}

async fn with(change: impl FnOnce(&mut Raw)) -> Rig {
    Rig::on(Account::Entra, change).await
}
