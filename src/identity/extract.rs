//! Finds the one workflow token of a request.
//!
//! A request has at most two places for credentials, and a connection may occupy `Authorization` with something of its own.
//! What is not a bearer token or a Cosmos SDK's `type=aad` there is the connection's and is not looked at; two tokens are
//! refused rather than ranked, since the caller and a proxy on the way could rank them differently.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, header::AUTHORIZATION};
use memchr::memchr;
use percent_encoding::percent_decode;

use super::error::{Carrier, IdentityError, Reason};

/// The header for a token that the workflow minted itself.
pub const WORKFLOW_HEADER: HeaderName = HeaderName::from_static("x-stepgate-token");

/// Longest token that is looked at, in bytes. AWS caps its tokens' payload and Entra's are about 2 KiB; hashing and
/// parsing what an unknown caller sends has to end somewhere.
pub(super) const LONGEST_TOKEN: usize = 16 * 1024;

/// The workflow token of a request and where it was. Nothing prints it.
pub(super) struct PresentedToken<'a> {
    pub(super) carrier: Carrier,
    pub(super) text: Cow<'a, str>,
}

/// Exactly one token, or why not.
pub(super) fn extract(headers: &HeaderMap) -> Result<PresentedToken<'_>, IdentityError> {
    let authorization = from_authorization(headers)?;
    let workflow = only(headers, &WORKFLOW_HEADER, Carrier::WorkflowHeader)?;
    let (carrier, bytes) = match (authorization, workflow) {
        (None, None) => return Err(IdentityError { carrier: Carrier::None, reason: Reason::NoToken, subject: None }),
        (Some(_), Some(_)) => {
            return Err(IdentityError { carrier: Carrier::Authorization, reason: Reason::TwoTokens, subject: None });
        }
        (Some(bytes), None) => (Carrier::Authorization, bytes),
        (None, Some(bytes)) => (Carrier::WorkflowHeader, bytes.into()),
    };
    let refuse = |reason| Err(IdentityError { carrier, reason, subject: None });
    if bytes.len() > LONGEST_TOKEN {
        return refuse(Reason::TooLong(LONGEST_TOKEN));
    }
    // Some proxies join a repeated header with a comma, which no JWT contains.
    if memchr(b',', &bytes).is_some() {
        return refuse(Reason::TwoTokens);
    }
    let text = match bytes {
        Cow::Borrowed(bytes) => str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    };
    match text {
        Some(text) if !text.is_empty() => Ok(PresentedToken { carrier, text }),
        _ => refuse(Reason::NotAJwt),
    }
}

/// A token that stood in a body.
pub(super) fn in_a_body(text: &str) -> Result<PresentedToken<'_>, IdentityError> {
    if text.len() > LONGEST_TOKEN {
        let reason = Reason::TooLong(LONGEST_TOKEN);
        return Err(IdentityError { carrier: Carrier::WorkflowHeader, reason, subject: None });
    }
    Ok(PresentedToken { carrier: Carrier::WorkflowHeader, text: text.into() })
}

/// The value of a header that may occur once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName, carrier: Carrier) -> Result<Option<&'a [u8]>, IdentityError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(IdentityError { carrier, reason: Reason::TwoTokens, subject: None }),
        (value, None) => Ok(value.map(|value| value.as_bytes().trim_ascii())),
    }
}

/// The workflow token in `Authorization`; `None` when there is none, or something that is the connection's.
fn from_authorization(headers: &HeaderMap) -> Result<Option<Cow<'_, [u8]>>, IdentityError> {
    let Some(value) = only(headers, &AUTHORIZATION, Carrier::Authorization)? else {
        return Ok(None);
    };
    let mut words = value.splitn(2, |byte| *byte == b' ');
    let scheme = words.next().unwrap_or_default();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Ok(Some(words.next().unwrap_or_default().trim_ascii().into()));
    }
    Ok(from_cosmos_sdk(value).map(Cow::Owned))
}

/// The `sig` of `type=aad&ver=1.0&sig=<jwt>`, percent-encoded as a whole or not: how Cosmos SDKs send an Entra token. A
/// repeated or missing member leaves an empty token, which is then refused as malformed.
fn from_cosmos_sdk(value: &[u8]) -> Option<Vec<u8>> {
    let decoded: Vec<u8> = percent_decode(value).collect();
    let members: Vec<(&[u8], &[u8])> = decoded.split(|byte| *byte == b'&').filter_map(split_member).collect();
    let is_aad =
        members.iter().any(|(name, value)| name.eq_ignore_ascii_case(b"type") && value.eq_ignore_ascii_case(b"aad"));
    is_aad.then(|| match members.as_slice() {
        [(b"type", _), (b"ver", b"1.0"), (b"sig", token)] => token.to_vec(),
        _ => Vec::new(),
    })
}

fn split_member(member: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut halves = member.splitn(2, |byte| *byte == b'=');
    Some((halves.next()?, halves.next()?))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn outcome(lines: &[(&'static str, &str)]) -> Result<(Carrier, String), (Carrier, Reason)> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        extract(&headers)
            .map(|token| (token.carrier, token.text.into_owned()))
            .map_err(|error| (error.carrier, error.reason))
    }

    #[test]
    fn one_token_is_found_in_each_place() {
        let own = "x-stepgate-token";
        let found = |carrier| Ok((carrier, "a.b.c".to_owned()));
        for value in [
            "Bearer a.b.c",
            "bearer a.b.c",
            "BEARER   a.b.c ",
            "type=aad&ver=1.0&sig=a.b.c",
            "type%3Daad%26ver%3D1.0%26sig%3Da.b.c",
            "type%3daad%26ver%3d1.0%26sig%3da.b.c",
            "type=AAD&ver=1.0&sig=a.b.c",
        ] {
            assert_eq!(outcome(&[("authorization", value)]), found(Carrier::Authorization), "{value}");
        }
        assert_eq!(outcome(&[(own, "a.b.c")]), found(Carrier::WorkflowHeader));
        for connection in ["Basic dTpw", "Bearerish x", "ApiKey k", "type=master&ver=1.0&sig=k", "\u{fc}", ""] {
            let lines = [("authorization", connection), (own, "a.b.c")];
            assert_eq!(outcome(&lines), found(Carrier::WorkflowHeader), "{connection}");
        }
    }

    #[test]
    fn no_token_is_said_so() {
        for lines in [
            &[][..],
            &[("authorization", "Basic dTpw")],
            &[("authorization", "type=master&ver=1.0&sig=abc")],
            &[("authorization", "type%3Dresource%26ver%3D1.0%26sig%3Dabc%3B")],
            &[("cookie", "a.b.c")],
        ] {
            assert_eq!(outcome(lines), Err((Carrier::None, Reason::NoToken)), "{lines:?}");
        }
    }

    #[test]
    fn two_tokens_are_refused_in_every_combination() {
        let (bearer, own) = (("authorization", "Bearer a.b.c"), ("x-stepgate-token", "a.b.c"));
        let (aad, basic) = (("authorization", "type=aad&ver=1.0&sig=a.b.c"), ("authorization", "Basic dTpw"));
        for lines in [
            &[bearer, bearer][..],
            &[bearer, basic],
            &[basic, basic],
            &[basic, bearer],
            &[aad, bearer],
            &[own, own],
            &[bearer, own],
            &[aad, own],
            &[("authorization", "Bearer "), own],
            &[("authorization", "Bearer opaque"), own],
            &[("authorization", "Bearer a.b.c, Bearer a.b.c")],
            &[("x-stepgate-token", "a.b.c,a.b.c")],
        ] {
            assert_eq!(outcome(lines).unwrap_err().1, Reason::TwoTokens, "{lines:?}");
        }
    }

    #[test]
    fn a_broken_token_belongs_to_its_carrier() {
        for value in [
            "Bearer",
            "Bearer ",
            "type=aad",
            "type=aad&ver=1.0",
            "type=aad&ver=1.0&sig=",
            "type=aad&ver=2.0&sig=a.b.c",
            "type=aad&ver=1.0&sig=a.b.c&sig=d.e.f",
            "type=master&type=aad&ver=1.0&sig=a.b.c",
        ] {
            let refused = Err((Carrier::Authorization, Reason::NotAJwt));
            assert_eq!(outcome(&[("authorization", value)]), refused, "{value}");
        }
        assert_eq!(outcome(&[("x-stepgate-token", "")]), Err((Carrier::WorkflowHeader, Reason::NotAJwt)));
        let huge = "a".repeat(LONGEST_TOKEN + 1);
        let refused = Err((Carrier::WorkflowHeader, Reason::TooLong(LONGEST_TOKEN)));
        assert_eq!(outcome(&[("x-stepgate-token", &huge)]), refused);
    }
}
