//! Where the audit log's checkpoints go, as the configuration names it.

use url::Url;

use super::{checked::Check, raw};
use crate::audit::AnchorConfig;

/// More anchors than anybody needs would each be asked every minute.
const MOST: usize = 8;

impl Check<'_> {
    /// The anchors; `account` is the Cosmos DB account behind the gateway.
    pub(super) fn anchors(&mut self, audit: &raw::Audit, account: Option<&Url>) -> Vec<AnchorConfig> {
        if audit.anchors.len() > MOST {
            self.refuse(
                "audit/anchors",
                format!("there are more than {MOST}"),
                "keep those that different people hold",
            );
        }
        let each = audit.anchors.iter().enumerate();
        each.filter_map(|(index, anchor)| self.anchor(&format!("audit/anchors/{index}"), audit, anchor, account))
            .collect()
    }

    fn anchor(
        &mut self,
        at: &str,
        audit: &raw::Audit,
        anchor: &raw::Anchor,
        account: Option<&Url>,
    ) -> Option<AnchorConfig> {
        Some(match anchor {
            raw::Anchor::File { path } => {
                let path = self.base.join(path);
                if path.starts_with(self.base.join(&audit.directory)) {
                    let mend = "name a directory of another disk or mount, which others than the log's owner hold";
                    self.refuse(&format!("{at}/path"), "an anchor inside the log goes where the log goes", mend);
                }
                AnchorConfig::File { path }
            }
            raw::Anchor::S3 { bucket, prefix, region, endpoint, retain } => {
                if bucket.is_empty() || bucket.contains('/') {
                    self.refuse(&format!("{at}/bucket"), format!("`{bucket}` is no bucket"), "write its name alone");
                }
                let endpoint = match endpoint {
                    Some(text) => Some(self.endpoint(&format!("{at}/endpoint"), text)?),
                    None => None,
                };
                let (bucket, prefix, region) = (bucket.clone(), prefix.clone(), region.clone());
                AnchorConfig::S3 { bucket, prefix, region, endpoint, retain: *retain }
            }
            raw::Anchor::Cosmos { endpoint, database, container } => {
                let endpoint = match endpoint {
                    Some(text) => self.endpoint(&format!("{at}/endpoint"), text)?,
                    None => account?.clone(),
                };
                let (database, container) = (database.clone(), container.clone());
                AnchorConfig::Cosmos { endpoint, database, container }
            }
            raw::Anchor::Webhook { url, authorization } => {
                let url = self.endpoint(&format!("{at}/url"), url)?;
                let authorization = match authorization {
                    Some(file) => Some(self.secret(&format!("{at}/authorization"), file)?),
                    None => None,
                };
                AnchorConfig::Webhook { url, authorization }
            }
        })
    }
}
