//! The `Authorization` header: `type={master|resource|aad}&ver={..}&sig={..}`, URL-encoded.
//!
//! Split as the service splits it (Microsoft's `AuthorizationHelper.ParseAuthorizationToken`): at the first `&`, at the
//! next, and the rest is the signature up to a comma.

use http::HeaderMap;
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::refusal::Refusal;

/// Longest header of each kind that the service's parser takes, in bytes.
const LONGEST_MASTER: usize = 1024;
const LONGEST_RESOURCE: usize = 8 * 1024;
const LONGEST_AAD: usize = 16 * 1024;

/// What kind of authorization a request carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Authorization {
    /// A signature with the account key.
    Master,
    /// A resource token.
    Resource,
    /// An Entra-style JWT.
    Aad,
    /// None that could be read.
    None,
}

/// What the header holds, not verified yet.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential {
    Master { signature: String },
    Resource { signature: String },
    Aad { jwt: String },
}

impl Credential {
    pub(super) fn kind(&self) -> Authorization {
        match self {
            Self::Master { .. } => Authorization::Master,
            Self::Resource { .. } => Authorization::Resource,
            Self::Aad { .. } => Authorization::Aad,
        }
    }
}

/// Reads the header.
pub(super) fn parse(headers: &HeaderMap) -> Result<Credential, Refusal> {
    let header = headers.get(http::header::AUTHORIZATION).ok_or(Refusal::MissingAuthorization)?;
    if header.is_empty() {
        return Err(Refusal::MissingAuthorization);
    }
    split(header.to_str().map_err(|_| Refusal::MalformedAuthorization)?).ok_or(Refusal::MalformedAuthorization)
}

fn split(header: &str) -> Option<Credential> {
    // The service decodes forms, in which `+` is a space: a signature sent without encoding its `+` is lost.
    let spaced = header.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().ok()?;
    let (kind, rest) = decoded.split_once('&')?;
    let (version, rest) = rest.split_once('&')?;
    let signature = rest.split(',').next().unwrap_or(rest);
    let value = |part: &str, key: &str| {
        let (name, value) = part.split_once('=')?;
        (name == key && !value.is_empty()).then(|| value.to_owned())
    };
    let kind = value(kind, "type")?.to_ascii_lowercase();
    value(version, "ver")?;
    let signature = value(signature, "sig")?;
    match kind.as_str() {
        "master" if header.len() <= LONGEST_MASTER => Some(Credential::Master { signature }),
        "resource" if header.len() <= LONGEST_RESOURCE => Some(Credential::Resource { signature }),
        "aad" if header.len() <= LONGEST_AAD => Some(Credential::Aad { jwt: signature }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_spelling_of_the_encoding_is_read() {
        let master = Some(Credential::Master { signature: "a+b/c=".into() });
        for header in [
            "type%3dmaster%26ver%3d1.0%26sig%3da%2bb%2fc%3d",
            "type=master&ver=1.0&sig=a%2Bb/c=",
            "type=Master&ver=1.0&sig=a%2Bb%2Fc%3D,x",
        ] {
            assert!(split(header) == master, "{header}");
        }
        let resource = split("type=resource&ver=1&sig=a%3D%3D;b%3D;");
        assert!(resource == Some(Credential::Resource { signature: "a==;b=;".into() }));
    }

    #[test]
    fn what_is_built_otherwise_is_refused() {
        for header in [
            "Bearer ey.J.x",
            "type=master&ver=1.0",
            "type=master&ver=1.0&sig=",
            "type=&ver=1.0&sig=a",
            "type=master&ver=&sig=a",
            "Type=master&ver=1.0&sig=a",
            "ver=1.0&type=master&sig=a",
            "type=system&ver=1.0&sig=a",
            &format!("type=master&ver=1.0&sig={}", "a".repeat(1024)),
            &format!("type=resource&ver=1&sig={}", "a".repeat(8 * 1024)),
        ] {
            assert!(split(header).is_none(), "{header}");
        }
    }

    #[test]
    fn an_unencoded_plus_is_lost_as_the_service_loses_it() {
        assert!(split("type=master&ver=1.0&sig=a+b") == Some(Credential::Master { signature: "a b".into() }));
    }
}
