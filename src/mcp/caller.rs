//! Who calls a tool, from the head of the message to the request that the tool makes of it.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION, request::Parts};

use crate::{
    context::{ATTEMPT, DEADLINE, ENTERED, EXECUTION, ITEM, REDRIVE, SESSION, STATE},
    identity::WORKFLOW_HEADER,
};

/// What a tool's request takes over from the message that called it: the credential, what is said of the execution, how long the
/// caller waits, and the trace. Everything else is the tool's to say.
const CARRIED: [HeaderName; 13] = [
    AUTHORIZATION,
    WORKFLOW_HEADER,
    EXECUTION,
    STATE,
    ENTERED,
    ATTEMPT,
    REDRIVE,
    ITEM,
    DEADLINE,
    SESSION,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("x-amzn-trace-id"),
];

/// The caller of a tool. It has no `Debug`, since it carries the caller's token.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) peer: SocketAddr,
    pub(super) encrypted: bool,
    pub(super) headers: HeaderMap,
    /// The id of the walk that was made for it.
    pub(super) walked: Arc<OnceLock<HeaderValue>>,
}

impl Caller {
    /// Takes what is the caller's out of the head, and leaves itself in the extensions: the protocol has no use for a token.
    /// Gives the place for the id of the walk.
    pub(super) fn step_aside(head: &mut Parts, peer: SocketAddr, encrypted: bool) -> Arc<OnceLock<HeaderValue>> {
        let mut headers = HeaderMap::new();
        for name in CARRIED {
            for value in head.headers.get_all(&name) {
                headers.append(name.clone(), value.clone());
            }
        }
        head.headers.remove(AUTHORIZATION);
        head.headers.remove(WORKFLOW_HEADER);
        let walked = Arc::<OnceLock<_>>::default();
        head.extensions.insert(Self { peer, encrypted, headers, walked: walked.clone() });
        walked
    }
}
