//! What a token is minted for, and the name that Cosmos knows it by.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use crate::{
    access::{ContainerName, IssuerName, PermissionMode},
    policy::Permit,
};

/// Characters of each part of an id that are shown; the digest tells apart what this cuts.
const SHOWN: usize = 48;
/// Bytes of the digest in an id.
const DIGEST: usize = 16;
/// Bytes of the check digits at the end of an id.
const CHECK: usize = 4;
/// What an id begins with.
const MARK: &str = "stepgate";

/// For whom the token is: the OAuth client where the issuer names one, else the subject itself.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Holder {
    /// An OAuth client; all its subjects share the scope.
    Client(Arc<str>),
    /// A subject without a client.
    Subject(Arc<str>),
}

impl Holder {
    /// The client's or subject's own identifier.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Client(id) | Self::Subject(id) => id,
        }
    }
}

/// Issuer, holder, container, the grant's own partition key and mode: all from the policy and the identity, nothing from
/// values in the request, so that no caller can spend the account's small budget for minting.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TokenScope {
    issuer: IssuerName,
    holder: Holder,
    container: ContainerName,
    /// As the partition-key header writes it: one spelling for each key, and unlike the key itself it can be hashed.
    partition_key: Option<Arc<str>>,
    mode: PermissionMode,
}

impl TokenScope {
    /// The scope of `permit`.
    pub(super) fn of(permit: &Permit) -> Self {
        let holder = match permit.client() {
            Some(client) => Holder::Client(client.into()),
            None => Holder::Subject(Arc::clone(&permit.subject().id)),
        };
        let scope = permit.scope();
        Self {
            issuer: permit.subject().issuer.clone(),
            holder,
            container: scope.container.clone(),
            partition_key: scope.partition_key.as_ref().map(|key| key.to_string().into()),
            mode: scope.mode,
        }
    }

    /// The issuer of the holder.
    pub fn issuer(&self) -> &IssuerName {
        &self.issuer
    }

    /// For whom.
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// The container.
    pub fn container(&self) -> &ContainerName {
        &self.container
    }

    /// The partition key that the token is locked to, as a JSON array; `None` for the whole container.
    pub fn partition_key(&self) -> Option<&str> {
        self.partition_key.as_deref()
    }

    /// Reading only, or everything.
    pub fn mode(&self) -> PermissionMode {
        self.mode
    }

    /// The id of the Cosmos user and of its one permission: `stepgate.{issuer}.{holder}.{container}.{mode}.{digest}-{check}`.
    ///
    /// The same tuple has the same id in every process, so a restart finds what an earlier one made. The parts are there
    /// to be read in Azure's diagnostic log; the digest of the exact tuple is what makes the id its own, and the check digits
    /// are how a sweep knows an id from one that somebody made up in the same manner.
    pub fn id(&self) -> String {
        let mut id = String::from(MARK);
        for part in [self.issuer.as_str(), self.holder.as_str(), self.container.container()] {
            id.push('.');
            id.extend(part.chars().take(SHOWN).map(|c| if is_safe(c) { c } else { '_' }));
        }
        id.push('.');
        id.push_str(&self.mode.as_str().to_ascii_lowercase());
        id.push('.');
        id.push_str(&hex_digest(&self.canonical(), DIGEST));
        let check = hex_digest(id.as_bytes(), CHECK);
        id.push('-');
        id.push_str(&check);
        id
    }

    /// The tuple as bytes: every part with its length before it, so that no two tuples run together.
    fn canonical(&self) -> Vec<u8> {
        let holder = match self.holder {
            Holder::Client(_) => "client",
            Holder::Subject(_) => "subject",
        };
        let parts = [
            self.issuer.as_str(),
            holder,
            self.holder.as_str(),
            self.container.database(),
            self.container.container(),
            // A key is never empty, so the empty text stands for none.
            self.partition_key().unwrap_or_default(),
            self.mode.as_str(),
        ];
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

/// An id like no other `n` has.
#[cfg(test)]
#[cfg(feature = "dev")]
pub(super) fn an_id_for_test(n: usize) -> String {
    let container = ContainerName::new("shop", "orders").unwrap();
    let (issuer, holder) = (IssuerName::new("cognito"), Holder::Client(n.to_string().into()));
    TokenScope { issuer, holder, container, partition_key: None, mode: PermissionMode::All }.id()
}

#[cfg(test)]
impl TokenScope {
    /// The scope of `permit`, for tests of the rooms that demand a token.
    pub(crate) fn for_test(permit: &Permit) -> Self {
        Self::of(permit)
    }
}

/// Whether `id` is one that [`TokenScope::id`] makes, for whichever scope.
pub(super) fn is_an_id(id: &str) -> bool {
    let parts: Vec<&str> = id.split('.').collect();
    let [MARK, issuer, holder, container, mode, _] = parts.as_slice() else { return false };
    let are_safe = [issuer, holder, container].iter().all(|part| part.len() <= SHOWN && part.chars().all(is_safe));
    let is_mode = [PermissionMode::All, PermissionMode::Read].iter().any(|one| one.as_str().eq_ignore_ascii_case(mode));
    let is_checked = id.rsplit_once('-').is_some_and(|(checked, check)| hex_digest(checked.as_bytes(), CHECK) == check);
    are_safe && is_mode && is_checked
}

/// The first `bytes` of the SHA-256 of `text`, in hexadecimal digits.
fn hex_digest(text: &[u8], bytes: usize) -> String {
    let digest = digest(&SHA256, text);
    hex::encode(digest.as_ref().get(..bytes).unwrap_or_default())
}

/// Letters, digits, `-` and `_`: legal in a Cosmos id, plain in a path, and not the separator.
fn is_safe(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::access::PartitionKey;

    fn scope(issuer: &str, holder: Holder, container: ContainerName, key: Option<&str>, all: bool) -> TokenScope {
        TokenScope {
            issuer: IssuerName::new(issuer),
            holder,
            container,
            partition_key: key.map(Into::into),
            mode: if all { PermissionMode::All } else { PermissionMode::Read },
        }
    }

    #[test]
    fn an_id_names_the_workflow_and_stays_the_same() {
        let container = ContainerName::new("shop", "orders").unwrap();
        let holder = Holder::Client("arn:aws:iam::111122223333:role/Fulfil".into());
        let id = scope("cognito", holder, container, Some(r#"["t1"]"#), true).id();
        assert_eq!(
            id,
            "stepgate.cognito.arn_aws_iam__111122223333_role_Fulfil.orders.all.97927e2a6b591536e243d9a26e3dbd07-7cbb29dc"
        );
    }

    /// Short parts of few letters, so that neighbours are likely, and now and then a long one.
    fn any_scope() -> impl Strategy<Value = TokenScope> {
        let part = || prop_oneof![4 => "[ab.:é%]{1,2}", 1 => "\\PC{200,250}"];
        let holder = (any::<bool>(), part())
            .prop_map(|(client, id)| if client { Holder::Client(id.into()) } else { Holder::Subject(id.into()) });
        let container = (part(), part()).prop_filter_map("a name", |(d, c)| ContainerName::new(&d, &c).ok());
        let key = proptest::option::of("[ab\"]{0,2}");
        (part(), holder, container, key, any::<bool>()).prop_map(|(issuer, holder, container, key, all)| {
            let key = key.map(|text| serde_json::json!([text]).to_string().parse::<PartitionKey>().unwrap());
            scope(&issuer, holder, container, key.map(|key| key.to_string()).as_deref(), all)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn an_id_is_one_that_cosmos_takes(scope in any_scope()) {
            let id = scope.id();
            prop_assert!(id.len() <= 255);
            prop_assert!(is_an_id(&id), "{id}");
            prop_assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "{id}");
        }

        #[test]
        fn distinct_scopes_have_distinct_ids(scopes in proptest::collection::vec(any_scope(), 1..12)) {
            let mut owners: HashMap<String, TokenScope> = HashMap::new();
            for scope in scopes {
                let owner = owners.entry(scope.id()).or_insert_with(|| scope.clone());
                prop_assert_eq!(&*owner, &scope);
            }
        }
    }

    #[test]
    fn what_others_made_is_no_id() {
        let ours = "stepgate.cognito.app.orders.all.97927e2a6b591536e243d9a26e3dbd07-3be0d366";
        let checked = |id: &str| format!("{id}-{}", hex_digest(id.as_bytes(), CHECK));
        assert_eq!(checked(ours.split_once('-').unwrap().0), ours);
        assert!(is_an_id(ours));
        for id in [
            "",
            "stepgate",
            "tenant-7",
            "stepgate.cognito.app.orders.all.97927e2a6b591536e243d9a26e3dbd07",
            "stepgate.cognito.app.orders.all.97927e2a6b591536e243d9a26e3dbd08-3be0d366",
            "stepgate.cognito.app2.orders.all.97927e2a6b591536e243d9a26e3dbd07-3be0d366",
            &checked("other.cognito.app.orders.all.97927e2a6b591536e243d9a26e3dbd07"),
            &checked("stepgate.cognito.app.orders.write.97927e2a6b591536e243d9a26e3dbd07"),
            &checked("stepgate.cognito.app.orders.97927e2a6b591536e243d9a26e3dbd07"),
        ] {
            assert!(!is_an_id(id), "{id}");
        }
    }

    #[test]
    fn parts_do_not_run_together() {
        let c = |d, c| ContainerName::new(d, c).unwrap();
        let client = |id: &str| Holder::Client(id.into());
        // These two look alike as far as an id shows them.
        let long = "h".repeat(SHOWN);
        let longer = format!("{long}c");
        let ids = [
            scope("a", client(&longer), c("d", "e"), None, true),
            scope("a", client(&long), c("cd", "e"), None, true),
            scope("ab", client("c"), c("d", "e"), None, true),
            scope("a", client("b"), c("cd", "e"), None, true),
            scope("a", client("b"), c("c", "de"), None, true),
            scope("a", client("bc"), c("d", "e"), None, true),
            scope("a", Holder::Subject("bc".into()), c("d", "e"), None, true),
            scope("a", client("bc"), c("d", "e"), None, false),
            scope("a", client("bc"), c("d", "e"), Some("[\"\"]"), true),
        ]
        .map(|scope| scope.id());
        let distinct: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }
}
