//! The regions of the account, as `GET /` of the account tells them, read again every few minutes and whenever a region
//! behaves as if it had changed.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use url::{Host, Url};

use super::regions::Regions;
use crate::clock::{Clock, Timestamp};

/// How often the account is asked where nothing has changed, as the SDKs do it.
const EVERY: Duration = Duration::from_secs(5 * 60);
/// The least time between two readings, however many ask for one.
const APART: Duration = Duration::from_millis(500);
/// After how long a reading that failed is tried again; twice as long after each, up to `LONGEST`.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// How long one endpoint may take to tell.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why there is no document.
pub type ReadError = Box<dyn Error + Send + Sync>;
/// The document on its way.
pub type Reading = BoxFuture<'static, Result<Bytes, ReadError>>;

/// Reads the account's own document (`GET /`) at one of its endpoints. With whose credential this room does not know.
#[derive(Clone)]
pub struct AccountReader(Arc<dyn Fn(Url) -> Reading + Send + Sync>);

impl AccountReader {
    /// What reads.
    pub fn new(read: impl Fn(Url) -> Reading + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }
}

impl fmt::Debug for AccountReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccountReader")
    }
}

/// The regions could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// No endpoint gave the document.
    #[error("{0}")]
    Unread(ReadError),
    /// None gave it in time.
    #[error("the account gave no answer within {PATIENCE:?}")]
    Late,
    /// What it told is no account document.
    #[error("the account document cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It names no region where the gateway would send a credential.
    #[error("the account document names no region beside the configured endpoint's own domain")]
    NoRegion,
}

/// The part of the account document that is read.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Account {
    pub(super) writable_locations: Vec<Location>,
    pub(super) readable_locations: Vec<Location>,
    #[serde(default)]
    pub(super) enable_multiple_write_locations: bool,
}

/// A region in it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Location {
    pub(super) name: String,
    pub(super) database_account_endpoint: Url,
}

impl Account {
    /// Without the regions to which no credential shall go: an endpoint of another domain than the configured one's, or one that
    /// is less protected.
    fn trusted(mut self, configured: &Url) -> Result<Self, TopologyError> {
        for list in [&mut self.writable_locations, &mut self.readable_locations] {
            list.retain(|location| is_beside(configured, &location.database_account_endpoint));
            if list.is_empty() {
                return Err(TopologyError::NoRegion);
            }
        }
        Ok(self)
    }
}

/// Whether `endpoint` is of the account of `configured`: `account-westeurope.documents.azure.com` stands beside
/// `account.documents.azure.com`; on plain HTTP both are this machine.
fn is_beside(configured: &Url, endpoint: &Url) -> bool {
    let domain = |url: &Url| match url.host() {
        Some(Host::Domain(name)) => name.split_once('.').map(|(_, domain)| domain.to_ascii_lowercase()),
        _ => None,
    };
    let is_here = |url: &Url| match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    let both_here = is_here(configured) && is_here(endpoint);
    configured.scheme() == endpoint.scheme()
        && (both_here || domain(configured).is_some_and(|of| domain(endpoint).is_some_and(|other| of == other)))
}

/// Who reads the topology, and keeps it read.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) account: AccountReader,
    pub(super) clock: Clock,
}

impl Reader {
    /// Keeps `regions` as the account tells them.
    pub(super) async fn keep_fresh(&self, regions: &Regions) {
        let mut failed = FIRST;
        loop {
            let rest = match self.read(regions).await {
                Ok(account) => {
                    regions.learn(account, self.clock.now());
                    failed = FIRST;
                    EVERY
                }
                Err(error) => {
                    tracing::warn!(%error, "the account's regions could not be read");
                    regions.note(error, self.clock.now());
                    let rest = failed;
                    failed = (failed * 2).min(LONGEST);
                    rest
                }
            };
            tokio::time::sleep(APART.min(rest)).await;
            let asked = tokio::time::timeout(rest.saturating_sub(APART), regions.asked());
            // Whichever comes first; both mean to read again.
            let _ = asked.await;
        }
    }

    /// The document, from the first endpoint that gives it: the account's own follows its write region, and a region that is
    /// still there answers when that one does not.
    async fn read(&self, regions: &Regions) -> Result<Account, TopologyError> {
        let mut last = TopologyError::NoRegion;
        for endpoint in regions.endpoints() {
            match self.ask(&endpoint).await {
                Ok(account) => match account.trusted(regions.configured()) {
                    Ok(account) => return Ok(account),
                    Err(error) => last = error,
                },
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask(&self, endpoint: &Url) -> Result<Account, TopologyError> {
        let reading = tokio::time::timeout(PATIENCE, (self.account.0)(endpoint.clone()));
        let document = reading.await.map_err(|_| TopologyError::Late)?.map_err(TopologyError::Unread)?;
        Ok(serde_json::from_slice(&document)?)
    }
}

/// When the regions were read last, and what went wrong since.
#[derive(Clone, Debug, Default)]
pub struct TopologyStatus {
    /// The last reading that succeeded.
    pub read: Option<Timestamp>,
    /// The last one that failed, if none succeeded since.
    pub trouble: Option<(Timestamp, Arc<TopologyError>)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_goes_only_to_the_accounts_own_domain() {
        let beside = |configured: &str, endpoint: &str| {
            is_beside(&Url::parse(configured).unwrap(), &Url::parse(endpoint).unwrap())
        };
        let account = "https://account.documents.azure.com/";
        assert!(beside(account, "https://account-westeurope.documents.azure.com:443/"));
        for other in [
            "http://account-westeurope.documents.azure.com/",
            "https://account-westeurope.documents.azure.com.evil.example/",
            "https://evil.example/",
            "https://azure.com/",
            "https://127.0.0.1/",
            "https://documents.azure.com/",
        ] {
            assert!(!beside(account, other), "{other}");
        }
        assert!(beside("http://127.0.0.1:8081/", "http://127.0.0.1:8082/"));
        assert!(beside("http://localhost:8081/", "http://127.0.0.1:8082/"));
        assert!(!beside("http://127.0.0.1:8081/", "http://10.0.0.1:8082/"));
        assert!(!beside("http://127.0.0.1:8081/", "https://127.0.0.1:8082/"));
    }

    #[test]
    fn the_document_is_read_for_its_locations() {
        let document = r#"{"_self":"","id":"a","writableLocations":[{"name":"West Europe",
            "databaseAccountEndpoint":"https://a-westeurope.documents.azure.com:443/"}],
            "readableLocations":[{"name":"West Europe","databaseAccountEndpoint":"https://a-westeurope.documents.azure.com:443/"},
            {"name":"Elsewhere","databaseAccountEndpoint":"https://elsewhere.example/"}],"enableMultipleWriteLocations":true}"#;
        let account: Account = serde_json::from_str(document).unwrap();
        let configured = Url::parse("https://a.documents.azure.com/").unwrap();
        let account = account.trusted(&configured).unwrap();
        assert_eq!((account.writable_locations.len(), account.readable_locations.len()), (1, 1));
        assert!(account.enable_multiple_write_locations);
        let other = Url::parse("https://a.example.com/").unwrap();
        assert!(matches!(account.trusted(&other), Err(TopologyError::NoRegion)));
    }
}
