//! What is asked for: the operations a policy names.

use std::{fmt, str::FromStr};

use super::PermissionMode;

/// An operation as policy files name it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Operation {
    /// `POST C/docs`
    ItemsCreate,
    /// `POST C/docs` with `x-ms-documentdb-is-upsert`
    ItemsUpsert,
    /// `GET C/docs/{id}`
    ItemsRead,
    /// `PUT C/docs/{id}`
    ItemsReplace,
    /// `PATCH C/docs/{id}`
    ItemsPatch,
    /// `DELETE C/docs/{id}`
    ItemsDelete,
    /// `POST C/docs` with `x-ms-documentdb-isquery`
    Query,
    /// `GET C/docs`: the read feed, and the change feed with `A-IM`
    Feed,
    /// `POST C/docs` with `x-ms-cosmos-is-batch-request`
    Batch,
    /// `POST C/sprocs/{id}`
    Execute,
}

impl Operation {
    /// Every operation, in the order of the contract's table.
    pub const ALL: [Self; 10] = [
        Self::ItemsCreate,
        Self::ItemsUpsert,
        Self::ItemsRead,
        Self::ItemsReplace,
        Self::ItemsPatch,
        Self::ItemsDelete,
        Self::Query,
        Self::Feed,
        Self::Batch,
        Self::Execute,
    ];

    /// The word used in policy files, metrics and audit records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ItemsCreate => "items/create",
            Self::ItemsUpsert => "items/upsert",
            Self::ItemsRead => "items/read",
            Self::ItemsReplace => "items/replace",
            Self::ItemsPatch => "items/patch",
            Self::ItemsDelete => "items/delete",
            Self::Query => "query",
            Self::Feed => "feed",
            Self::Batch => "batch",
            Self::Execute => "execute",
        }
    }

    /// The narrowest mode of a Cosmos permission that can carry the operation.
    pub const fn mode(self) -> PermissionMode {
        match self {
            Self::ItemsRead | Self::Query | Self::Feed => PermissionMode::Read,
            _ => PermissionMode::All,
        }
    }

    /// Whether the operation can change data: then its intent is on disk before it leaves for Cosmos.
    pub const fn is_write(self) -> bool {
        matches!(self.mode(), PermissionMode::All)
    }

    /// Whether the gateway can see to it that a repeated request is done once. What a stored procedure does is not its to know.
    pub const fn can_be_idempotent(self) -> bool {
        self.is_item_write() || matches!(self, Self::Batch)
    }

    /// Whether the operation writes one item by itself (the `items/*` writes).
    pub const fn is_item_write(self) -> bool {
        matches!(
            self,
            Self::ItemsCreate | Self::ItemsUpsert | Self::ItemsReplace | Self::ItemsPatch | Self::ItemsDelete
        )
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no operation.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is not an operation; the operations are {known}", known = Operation::ALL.map(Operation::as_str).join(", "))]
pub struct UnknownOperation(pub String);

impl FromStr for Operation {
    type Err = UnknownOperation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|operation| operation.as_str() == text)
            .ok_or_else(|| UnknownOperation(text.to_owned()))
    }
}

/// What a request wants, with the two requests that SDKs send around a query and that have no policy word of their own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// An operation that a grant must name.
    Operation(Operation),
    /// A query-plan request: needs any `query` grant on the container, and reads no data.
    QueryPlan,
    /// `GET C` or `GET C/pkranges`: needs any grant on the container, and reads no data.
    Metadata,
}

impl Action {
    /// The word used in metrics and audit records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operation(operation) => operation.as_str(),
            Self::QueryPlan => "query-plan",
            Self::Metadata => "metadata",
        }
    }

    /// The narrowest mode of a Cosmos permission that can carry the action.
    pub const fn mode(self) -> PermissionMode {
        match self {
            Self::Operation(operation) => operation.mode(),
            Self::QueryPlan | Self::Metadata => PermissionMode::Read,
        }
    }

    /// Whether the action can change data.
    pub const fn is_write(self) -> bool {
        matches!(self.mode(), PermissionMode::All)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
