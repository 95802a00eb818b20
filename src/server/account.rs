//! What the account allows, found out beside the requests.

use std::time::Duration;

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
            let pause = match rooms.exchange.look(container.as_ref()).await {
                Ok(()) => CALM,
                Err(_) => TROUBLED,
            };
            tokio::time::sleep(pause).await;
        }
    }
}
