//! Cosmos' refusals: every status, substatus and text that the stand-in itself answers with, in one place.
//!
//! Texts are the service's where users or Microsoft's sources have reported them; they are for people, and a gateway that
//! matches on them is wrong.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use serde_json::json;

use super::request::header;
use crate::clock::Timestamp;

/// A request that Cosmos turns down.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("Required Header authorization is missing. Ensure a valid Authorization token is passed.")]
    MissingAuthorization,
    #[error("Authorization header doesn't confirm to the required format. Please verify and try again.")]
    MalformedAuthorization,
    #[error(
        "The input authorization token can't serve the request. The wrong key is being used or the expected payload is \
         not built as per the protocol. For more info: https://aka.ms/cosmosdb-tsg-unauthorized. Server used the \
         following payload to sign: '{string_to_sign}'"
    )]
    BadSignature { string_to_sign: String },
    #[error(
        "The input authorization token can't serve the request. The wrong key is being used or the expected payload is \
         not built as per the protocol. For more info: https://aka.ms/cosmosdb-tsg-unauthorized."
    )]
    UnknownToken,
    #[error("The authorization needs a date: neither the 'x-ms-date' nor the 'date' header is there.")]
    MissingDate,
    #[error("The input date header is invalid format. Please pass in RFC 1123 style date format.")]
    InvalidDate,
    #[error(
        "The authorization token is not valid at the current time. Please create another token and retry (token start \
         time: {}, token expiry time: {}, current server time: {}).", start.http_date(), expiry.http_date(), now.http_date()
    )]
    NotCurrent { start: Timestamp, expiry: Timestamp, now: Timestamp },
    #[error(
        "Insufficient permissions provided in the authorization header for the corresponding request. Please retry with \
         another authorization header."
    )]
    InsufficientPermissions,
    #[error(
        "Request blocked by Auth {ACCOUNT} : The given request [{request}] cannot be authorized by AAD token in data \
         plane. Learn more: https://aka.ms/cosmos-native-rbac."
    )]
    NotByEntra { request: String },
    #[error(
        "Local Authorization is disabled. Use an AAD token to authorize all requests. Learn more: \
         https://aka.ms/cosmos-native-rbac."
    )]
    LocalAuthDisabled,
    #[error("The AAD token cannot be taken: {0}.")]
    EntraToken(EntraFault),

    #[error("Partition key supplied is not valid.")]
    InvalidPartitionKey,
    #[error("PartitionKey value must be supplied for this operation.")]
    MissingPartitionKey,
    #[error(
        "PartitionKey extracted from document doesn't match the one specified in the header. Learn more: \
         https://aka.ms/CosmosDB/sql/errors/wrong-pk-value"
    )]
    PartitionKeyMismatch,
    #[error(
        "Partition key provided either doesn't correspond to definition in the collection or doesn't match partition key \
         field values specified in the document. Learn more: https://aka.ms/CosmosDB/sql/errors/wrong-pk-value"
    )]
    PartitionKeyDepth,
    #[error(
        "Cross partition query is required but disabled. Please set x-ms-documentdb-query-enablecrosspartition to true, \
         specify x-ms-documentdb-partitionkey, or revise your query to avoid this exception."
    )]
    CrossPartitionDisabled,
    #[error("The content type of this request must be {0}.")]
    ContentType(&'static str),
    #[error("The request path is not valid.")]
    InvalidPath,
    #[error("The header '{0}' is there more than once.")]
    RepeatedHeader(String),
    #[error("The request body is not valid JSON.")]
    InvalidBody,
    #[error("The input content is invalid because the required properties - '{0}; ' - are missing")]
    MissingProperties(String),
    #[error(
        "The input id is invalid. Ensure it has 1 to 255 characters and none of the illegal characters ['/', '\\', '?', '#']."
    )]
    InvalidId,
    #[error("The input permissionMode '{0}' is invalid. Ensure to provide 'All' or 'Read'.")]
    InvalidPermissionMode(String),
    #[error(
        "The input Resource link '{0}' is invalid. Ensure to provide a valid resource link of size lesser than '256' \
         characters."
    )]
    InvalidResourceLink(String),
    #[error("{{\"Errors\":[\"One of the specified inputs is invalid\"]}}")]
    ExpiryTooSmall,
    #[error("Value '{0}' specified for the header 'x-ms-documentdb-expiry-seconds' is invalid.")]
    InvalidExpiry(String),
    #[error("Queries over users and permissions are not served here.")]
    QueryNotServed,

    #[error("Resource Not Found. Learn more: https://aka.ms/cosmosdb-tsg-not-found")]
    NotFound,
    #[error("Owner resource does not exist")]
    OwnerNotFound,
    #[error("Resource with specified id or name already exists.")]
    Conflict,
    #[error("One of the specified pre-condition is not met.")]
    ConditionNotMet,
    #[error("The requested operation cannot be performed at this region")]
    WriteForbidden,
    #[error("Request size is too large")]
    TooLarge,
    #[error("The request is not served here: {0}")]
    NotServed(String),
}

/// The account's name in texts.
pub(super) const ACCOUNT: &str = "stepgate-dev";

/// What is wrong with an Entra-style token.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum EntraFault {
    #[error("no issuer is configured")]
    NoIssuer,
    #[error("it is no JWT, or its signature or issuer does not hold")]
    Invalid,
    #[error("the issuer's keys cannot be read")]
    KeysUnavailable,
    #[error("it has expired or is not valid yet")]
    Expired,
    #[error("its audience is another")]
    Audience,
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::MissingAuthorization
            | Self::MalformedAuthorization
            | Self::BadSignature { .. }
            | Self::UnknownToken
            | Self::MissingDate
            | Self::InvalidDate
            | Self::LocalAuthDisabled
            | Self::EntraToken(_) => StatusCode::UNAUTHORIZED,
            Self::NotCurrent { .. }
            | Self::InsufficientPermissions
            | Self::NotByEntra { .. }
            | Self::WriteForbidden => StatusCode::FORBIDDEN,
            Self::NotFound | Self::OwnerNotFound => StatusCode::NOT_FOUND,
            Self::Conflict => StatusCode::CONFLICT,
            Self::ConditionNotMet => StatusCode::PRECONDITION_FAILED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotServed(_) => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    fn substatus(&self) -> Option<u32> {
        Some(match self {
            Self::MissingAuthorization => 5000,
            Self::MalformedAuthorization => 5001,
            Self::EntraToken(EntraFault::Expired) => 5006,
            Self::EntraToken(EntraFault::Audience) => 5008,
            Self::EntraToken(_) => 5003,
            Self::LocalAuthDisabled => 5202,
            Self::WriteForbidden => 3,
            Self::NotByEntra { .. } => 5300,
            Self::PartitionKeyMismatch | Self::PartitionKeyDepth => 1001,
            Self::OwnerNotFound => 1003,
            Self::ConditionNotMet => 1110,
            _ => return None,
        })
    }

    /// The answer that tells the caller.
    pub(super) fn answer(&self) -> Response<Bytes> {
        error_answer(self.status(), self.substatus(), &self.to_string())
    }
}

/// An error as Cosmos words one: `{"code", "message"}` and the substatus in a header.
pub(super) fn error_answer(status: StatusCode, substatus: Option<u32>, message: &str) -> Response<Bytes> {
    let code = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "RequestEntityTooLarge".to_owned(),
        StatusCode::TOO_MANY_REQUESTS => "429".to_owned(),
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable".to_owned(),
        status if status.as_u16() == 449 => "RetryWith".to_owned(),
        status => status.canonical_reason().unwrap_or("Unknown").replace(' ', ""),
    };
    let mut response = Response::new(Bytes::from(json!({ "code": code, "message": message }).to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(substatus) = substatus {
        response.headers_mut().insert(header::SUBSTATUS, HeaderValue::from(substatus));
    }
    response
}
