//! The account document: the first thing every Cosmos SDK asks for. It names the gateway and nothing else, so that no SDK
//! goes round it to the account.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde_json::json;
use url::{Host, Url};

use crate::answer::{Condition, CosmosAnswer, Refusal};

/// The document that names `address`.
pub(super) fn document(address: Option<Url>) -> Result<CosmosAnswer, Refusal> {
    let endpoint = address.ok_or_else(|| {
        Refusal::new(Condition::Malformed, "Host names no loopback address, and the gateway has no public_url")
    })?;
    let region = json!([{"name": "stepgate", "databaseAccountEndpoint": endpoint.as_str()}]);
    let document = json!({
        "_self": "",
        "id": "stepgate",
        "_rid": "stepgate.sql.cosmos.azure.com",
        "media": "//media/",
        "addresses": "//addresses/",
        "_dbs": "//dbs/",
        "writableLocations": region,
        "readableLocations": region,
        "enableMultipleWriteLocations": false,
        "continuousBackupEnabled": false,
        "enableNRegionSynchronousCommit": false,
        "enablePerPartitionFailoverBehavior": false,
        "userReplicationPolicy": {"asyncReplication": false, "minReplicaSetSize": 3, "maxReplicasetSize": 4},
        "userConsistencyPolicy": {"defaultConsistencyLevel": "Session"},
        "systemReplicationPolicy": {"minReplicaSetSize": 3, "maxReplicasetSize": 4},
        "readPolicy": {"primaryReadCoefficient": 1, "secondaryReadCoefficient": 1},
        "queryEngineConfiguration": QUERY_ENGINE,
    });
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    Ok(CosmosAnswer { status: StatusCode::OK, headers, body: Bytes::from(document.to_string()) })
}

/// What the service tells SDKs of its query engine: a text that holds JSON.
const QUERY_ENGINE: &str = r#"{"allowNewKeywords":true,"maxJoinsPerSqlQuery":10,"maxSqlQueryInputLength":524288,"sqlAllowTop":true,"sqlAllowSubQuery":true,"sqlAllowAggregateFunctions":true,"sqlAllowGroupByClause":true,"sqlAllowLike":true}"#;

/// The configured address; without one, the loopback address that the request itself names.
pub(super) fn address(configured: Option<&Url>, uri: &Uri, headers: &HeaderMap, encrypted: bool) -> Option<Url> {
    if configured.is_some() {
        return configured.cloned();
    }
    let authority = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => headers.get(header::HOST)?.to_str().ok()?,
    };
    let scheme = if encrypted { "https" } else { "http" };
    let url = Url::parse(&format!("{scheme}://{authority}/")).ok()?;
    let loopback = match url.host()? {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    (loopback && url.path() == "/" && url.username().is_empty()).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(host: &str) -> Option<String> {
        let headers = HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]);
        address(None, &Uri::from_static("/"), &headers, false).map(String::from)
    }

    #[test]
    fn only_a_loopback_host_is_believed() {
        assert_eq!(named("127.0.0.1:8080").as_deref(), Some("http://127.0.0.1:8080/"));
        assert_eq!(named("localhost:8080").as_deref(), Some("http://localhost:8080/"));
        assert_eq!(named("[::1]:8080").as_deref(), Some("http://[::1]:8080/"));
        for host in ["evil.example", "127.0.0.1.evil.example", "a@localhost", "localhost/x", ""] {
            assert_eq!(named(host), None, "{host}");
        }
    }
}
