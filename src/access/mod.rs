//! The vocabulary of access, pure: who asks, in which execution, to do what, to which data.
//!
//! Values here are plain and complete; making one is parsing, and a value that exists is well formed. Nothing in this
//! module reads a clock, a socket or a file, and nothing here says whether a request is allowed: that is `policy`.

mod claims;
mod execution;
pub mod headers;
mod operation;
mod request;
mod resource;
mod subject;

pub use claims::Claims;
pub use execution::{
    Assurance, Attempt, Execution, ExecutionContext, Fact, MalformedContext, RunId, StateMachine, StateName,
};
pub use operation::{Action, Operation, UnknownOperation};
pub use request::AccessRequest;
pub use resource::{
    ContainerName, Enforcer, ItemId, KeyComponent, MalformedName, MalformedPartitionKey, PartitionKey, PermissionMode,
    RESERVED,
};
pub use subject::{IssuerName, Subject, WorkloadKind};
