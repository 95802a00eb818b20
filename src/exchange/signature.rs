//! The master-key signature that Cosmos demands of whoever acts for the whole account.
//!
//! REST reference, "Access control on Azure Cosmos DB Resources": an HMAC-SHA256 over verb, resource type, resource link
//! and date. Only the broker signs; a data request carries a resource token.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, Method};

use super::{account_key::AccountKey, token::header_value};

/// What a signature covers.
#[derive(Clone, Copy, Debug)]
pub struct ToSign<'a> {
    /// The verb.
    pub method: &'a Method,
    /// `dbs`, `users`, `permissions`..; empty for the account itself.
    pub resource_type: &'a str,
    /// The link of the resource, or of its parent for a create or a list: names as they are, neither encoded nor with a
    /// slash at either end.
    pub link: &'a str,
    /// The value of `x-ms-date`, an HTTP date.
    pub date: &'a str,
}

impl ToSign<'_> {
    /// The base64 form of the signature under `key`.
    pub fn signature(&self, key: &AccountKey) -> String {
        let Self { method, resource_type, link, date } = self;
        // The last line is for `date`, which only counts where `x-ms-date` is absent.
        let text = format!("{method}\n{resource_type}\n").to_ascii_lowercase()
            + link
            + &format!("\n{date}\n\n").to_ascii_lowercase();
        STANDARD.encode(key.mac(text.as_bytes()))
    }

    /// The value of `Authorization`: `type=master&ver=1.0&sig=...`, percent-encoded and marked sensitive.
    pub fn authorization(&self, key: &AccountKey) -> HeaderValue {
        header_value(&format!("type=master&ver=1.0&sig={}", self.signature(key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHED: &str = "dsZQi3KtZmCv1ljt3VNWNm7sQUF1y5rJfC6kv5JiwvW0EndXdDku/dkKBp8/ufDToSxLzR4y+O/0H/t4bQtVNw==";
    const EMULATOR: &str = "C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw==";
    const EVENING: &str = "Sun, 22 Nov 2026 19:29:22 GMT";

    fn signature(key: &str, method: Method, resource_type: &str, link: &str, date: &str) -> String {
        ToSign { method: &method, resource_type, link, date }.signature(&AccountKey::from_base64(key).unwrap())
    }

    #[test]
    fn the_published_example_is_signed_as_published() {
        let date = "Thu, 27 Apr 2017 00:51:12 GMT";
        let sig = signature(PUBLISHED, Method::GET, "dbs", "dbs/ToDoList", date);
        assert_eq!(sig, "c09PEVJrgp2uQRkr934kFbTqhByc7TVr3OHyqlu+c+c=");
    }

    #[test]
    fn account_users_and_permissions_are_signed_as_other_clients_sign_them() {
        let account = signature(EMULATOR, Method::GET, "", "", EVENING);
        assert_eq!(account, "kGSxnBNeb1bmBaZJVb9PL0MWa1lRL5l9eijMDR7Pxoc=");
        let users = signature(EMULATOR, Method::POST, "users", "dbs/d", EVENING);
        assert_eq!(users, "mwZf+qQwh2xiVeNHoEEkPo+FYTsESr/lLwe+IvQqnyE=");
        let permissions = signature(EMULATOR, Method::POST, "permissions", "dbs/d/users/u", EVENING);
        assert_eq!(permissions, "cg0xN5EwaiBzHKz8BlA2dsM+SZikf0rf30809rrz5T4=");
    }

    #[test]
    fn the_header_is_encoded_and_does_not_print() {
        let key = AccountKey::from_base64(EMULATOR).unwrap();
        let header = ToSign { method: &Method::GET, resource_type: "", link: "", date: EVENING }.authorization(&key);
        assert_eq!(
            header.to_str().unwrap(),
            "type%3Dmaster%26ver%3D1.0%26sig%3DkGSxnBNeb1bmBaZJVb9PL0MWa1lRL5l9eijMDR7Pxoc%3D"
        );
        assert_eq!(format!("{header:?}"), "Sensitive");
    }
}
