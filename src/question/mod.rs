//! What is asked: an HTTP request of the Cosmos DB REST API, parsed into one meaning.
//!
//! Parse, don't validate: what leaves this module is a [`Question`] whose path was decoded once, checked, and rebuilt from
//! its parts, so that the words policy decided on are the words Cosmos gets. Whatever could mean two things (a repeated
//! discriminator, a header and a parameter that disagree, a member given twice) is refused rather than interpreted.
//!
//! This module knows no identity and no policy. It refuses (400) and never denies.

mod batch;
mod body;
mod discriminator;
mod partition;
mod path;
mod preflight;
mod token;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Uri};

pub use self::{
    batch::BatchOperation,
    partition::{IF_MATCH, IF_NONE_MATCH, key_of},
    preflight::{MOST_NEEDS, Need, needs},
    token::{ISSUED_TYPE, TokenRejection, TokenRequest, token_request},
};
use crate::access::{
    Action, ContainerName, ItemId, MalformedName, MalformedPartitionKey, Operation, PartitionKey, RESERVED,
};

/// Headers that could change what is done, or how, past the policy: refused, never dropped in silence.
const FORBIDDEN: [&str; 7] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-ms-documentdb-pre-trigger-include",
    "x-ms-documentdb-post-trigger-include",
    "x-ms-documentdb-expiry-seconds",
    "x-ms-indexing-directive",
];

/// What a request asks about one container: for policy to decide and for Cosmos to answer.
#[derive(Clone, PartialEq, Debug)]
pub struct Question {
    /// What is wanted.
    pub action: Action,
    /// Where.
    pub container: ContainerName,
    /// In which partition, where the request names one.
    pub partition_key: Option<PartitionKey>,
    /// On which item (or stored procedure), where the request names one.
    pub item: Option<ItemId>,
    /// What a batch holds; empty otherwise.
    pub batch: Vec<BatchOperation>,
    /// The method for Cosmos.
    pub method: Method,
    /// The path for Cosmos, rebuilt from the checked parts.
    pub path: String,
    /// The body for Cosmos.
    pub body: Bytes,
}

/// Where the request goes, before its body is read.
#[derive(Clone, PartialEq, Debug)]
pub enum Route {
    /// `GET /`: the account document, which the gateway answers itself.
    Account,
    /// `POST /preflight`: whether what a workflow needs would be granted and carried out.
    Preflight,
    /// A request about one container.
    Container(Box<ContainerRoute>),
}

/// A request about one container, without its body.
#[derive(Clone, PartialEq, Debug)]
pub struct ContainerRoute {
    action: Action,
    container: ContainerName,
    partition_key: Option<PartitionKey>,
    item: Option<ItemId>,
    method: Method,
    path: String,
}

/// Why a request is no question.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Rejection {
    /// No such path, or not with this method: `request.unknown_operation`. Everything else is `request.malformed`.
    #[error("{method} on this path is no operation of the data plane")]
    UnknownOperation {
        /// The method.
        method: Method,
    },
    /// A path segment that is no name.
    #[error("a name in the path cannot be used: {0}")]
    Name(#[from] MalformedName),
    /// An id that the gateway keeps for documents of its own.
    #[error("ids that begin with {RESERVED} are the gateway's own")]
    Reserved,
    /// A path that is not percent-encoded UTF-8, or has an empty segment.
    #[error("the path has an empty segment or is not percent-encoded UTF-8")]
    Path,
    /// A header that could change what is done past the policy.
    #[error("the header {0} is not accepted: it would change the operation past the policy")]
    ForbiddenHeader(&'static str),
    /// A header given twice, or not as text.
    #[error("the header {0} must come once, as printable text")]
    NotOneText(HeaderName),
    /// A discriminator that is neither true nor false.
    #[error("the header {0} is neither True nor False")]
    NotABoolean(HeaderName),
    /// Two of upsert, query and batch, or one of them where it has no meaning.
    #[error("the headers say two operations at once: {0}")]
    Contradiction(&'static str),
    /// A partition key that is none.
    #[error("the partition key is malformed: {0}")]
    PartitionKey(#[from] MalformedPartitionKey),
    /// The partition key is given in the header and as a parameter, and they differ; or the parameter comes twice.
    #[error("the request names two partition keys")]
    TwoPartitionKeys,
    /// `If-Match` and `x-stepgate-if-match` (or the none-match pair) differ.
    #[error("the headers {0} and its x-stepgate- stand-in differ")]
    TwoConditions(&'static str),
    /// A body that is not what the operation needs.
    #[error("the body is not {0}")]
    Body(&'static str),
    /// An entry of a preflight that cannot be read, by its index.
    #[error("entry {index} of the preflight: {reason}")]
    Need {
        /// Its index, from 0.
        index: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// A batch operation that cannot be read, by its index.
    #[error("operation {index} of the batch: {reason}")]
    BatchOperation {
        /// Its index, from 0.
        index: usize,
        /// What is wrong.
        reason: &'static str,
    },
}

/// Reads the head of a request: everything but the body.
pub fn route(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Route, Rejection> {
    // By what is there and not by what could be: a request has few headers, and a lookup hashes the whole name.
    if let Some(name) = FORBIDDEN.into_iter().find(|name| headers.keys().any(|key| key == name)) {
        return Err(Rejection::ForbiddenHeader(name));
    }
    partition::check_conditions(headers)?;
    let discriminator = discriminator::read(headers)?;
    let path = path::parse(uri.path())?;
    let rebuilt = path.rebuild();
    let unknown = || Rejection::UnknownOperation { method: method.clone() };
    let (container, action, item) = match (path, method) {
        (path::Path::Root, &Method::GET) => return Ok(Route::Account),
        (path::Path::Preflight, &Method::POST) => return discriminator.none(Route::Preflight),
        (path::Path::Container(container) | path::Path::Ranges(container), &Method::GET) => {
            (container, discriminator.none(Action::Metadata)?, None)
        }
        (path::Path::Items(container), &Method::GET) => {
            (container, discriminator.none(Action::Operation(Operation::Feed))?, None)
        }
        (path::Path::Items(container), &Method::POST) => (container, discriminator.of_post(headers)?, None),
        (path::Path::Item(container, item), method) => {
            let operation = match *method {
                Method::GET => Operation::ItemsRead,
                Method::PUT => Operation::ItemsReplace,
                Method::PATCH => Operation::ItemsPatch,
                Method::DELETE => Operation::ItemsDelete,
                _ => return Err(unknown()),
            };
            (container, discriminator.none(Action::Operation(operation))?, Some(item))
        }
        (path::Path::Procedure(container, id), &Method::POST) => {
            (container, discriminator.none(Action::Operation(Operation::Execute))?, Some(id))
        }
        _ => return Err(unknown()),
    };
    let partition_key = partition::named(uri, headers)?;
    let method = method.clone();
    Ok(Route::Container(Box::new(ContainerRoute { action, container, partition_key, item, method, path: rebuilt })))
}

impl Question {
    /// The path of the container for Cosmos.
    pub fn container_path(&self) -> String {
        path::Path::Container(self.container.clone()).rebuild()
    }

    /// The path of all its items for Cosmos.
    pub fn items_path(&self) -> String {
        path::Path::Items(self.container.clone()).rebuild()
    }

    /// The path of one of its items for Cosmos.
    pub fn item_path(&self, id: ItemId) -> String {
        path::Path::Item(self.container.clone(), id).rebuild()
    }
}

impl ContainerRoute {
    /// What is wanted.
    pub fn action(&self) -> Action {
        self.action
    }

    /// Where.
    pub fn container(&self) -> &ContainerName {
        &self.container
    }

    /// Adds the body: checks that it is what the operation needs, and reads from it what policy and audit must know.
    pub fn with_body(self, headers: &HeaderMap, body: Bytes) -> Result<Question, Rejection> {
        let Self { action, container, partition_key, item, method, path } = self;
        let mut question = Question { action, container, partition_key, item, batch: Vec::new(), method, path, body };
        match action {
            Action::Operation(Operation::ItemsCreate | Operation::ItemsUpsert) => {
                question.item = body::item_id(&question.body)?;
            }
            Action::Operation(Operation::ItemsReplace) => {
                body::item_id(&question.body)?;
            }
            Action::Operation(Operation::ItemsPatch) => body::check_patch(&question.body)?,
            Action::Operation(Operation::Query) | Action::QueryPlan => body::check_query(headers, &question.body)?,
            Action::Operation(Operation::Batch) => question.batch = batch::parse_batch(headers, &question.body)?,
            Action::Operation(Operation::Execute) => body::check_arguments(&question.body)?,
            Action::Operation(Operation::ItemsRead | Operation::ItemsDelete | Operation::Feed) | Action::Metadata => {
                // A state machine's connection may add a body to any request; Cosmos reads none here, so none is sent.
                question.body = Bytes::new();
            }
        }
        Ok(question)
    }
}

/// The id of an item that a caller names.
fn item_named(id: &str) -> Result<ItemId, Rejection> {
    let id = ItemId::new(id)?;
    if id.is_reserved() { Err(Rejection::Reserved) } else { Ok(id) }
}

/// The one value of a header, as text. Most are not there, and a request has few: they are looked through, as above.
fn one_text(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Rejection> {
    let mut values = headers.iter().filter(|(key, _)| *key == name).map(|(_, value)| value);
    let Some(value) = values.next() else { return Ok(None) };
    match (value.to_str(), values.next()) {
        (Ok(text), None) => Ok(Some(text)),
        _ => Err(Rejection::NotOneText(name)),
    }
}

#[cfg(test)]
mod tests;
