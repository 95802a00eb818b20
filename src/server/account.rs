//! What the account allows, found out beside the requests.

use std::time::Duration;

use tokio::time::Instant;

use super::Server;

/// How often the account is asked while it takes the credential, and while it does not.
const CALM: Duration = Duration::from_secs(600);
const TROUBLED: Duration = Duration::from_secs(30);

impl Server {
    /// Asks the account at once and then every so often, for as long as it is polled. Nothing waits for the answer: it stands in
    /// `/readyz`, in `/status` and in the log.
    pub(super) async fn watch_account(&self) {
        let rooms = &self.gateway.rooms;
        // Each workflow has a token of its own there, and the gateway none to ask with.
        if rooms.exchange.wants_workflow_token() {
            return;
        }
        loop {
            let container = rooms.policy.current().named_grants().next().map(|grant| grant.container);
            let _ = rooms.exchange.look(container.as_ref()).await;
            let calm = Instant::now() + CALM;
            tokio::time::sleep(TROUBLED).await;
            // A request may have heard of trouble meanwhile; whether it has passed is found out here.
            while Instant::now() < calm && rooms.exchange.account().is_none_or(|account| account.error.is_none()) {
                tokio::time::sleep(TROUBLED).await;
            }
        }
    }
}
