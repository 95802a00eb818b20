//! The stand-ins: a Cosmos DB and an OIDC issuer on a real wire, for `stepgate dev`, `stepgate demo` and the tests.
//!
//! They are programs of their own behind sockets: the gateway meets them as it meets the real ones, and no switch in the
//! gateway knows that they exist. The production image is built without this module.

pub mod bundle;
pub mod cosmos;
pub mod issuer;
pub mod stack;
