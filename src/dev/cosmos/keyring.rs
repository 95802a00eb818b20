//! The account key: what it signs, what it mints, and its rotation.
//!
//! Resource tokens are self-contained, as Azure's are: `sig` is a MAC and a payload that says what may be done until when.
//! So a token goes on living when its permission is deleted, and a gateway that counts on the contrary is found out.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::refusal::Refusal;
use crate::{clock::Timestamp, secret::Secret};

/// What the service allows clocks to differ by, at both ends of a token's time.
const SKEW_SECS: i64 = 900;
/// How long a master signature lives from its date on.
const MASTER_SECS: i64 = 900;

/// `permissionMode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Mode {
    All,
    Read,
}

/// What a resource token says. `key` is the partition key as JSON, absent for all partitions.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Claim {
    pub(super) user: String,
    pub(super) permission: String,
    pub(super) permission_rid: String,
    pub(super) mode: Mode,
    pub(super) database: String,
    pub(super) container: String,
    pub(super) container_rid: String,
    /// The kind and the id of the one thing in the container that the permission is for: `("docs", "1")`.
    pub(super) child: Option<(String, String)>,
    pub(super) key: Option<Value>,
    /// Seconds since the Unix epoch.
    pub(super) start: i64,
    pub(super) expiry: i64,
}

#[derive(Serialize, Deserialize)]
struct Payload {
    claim: Claim,
    generation: u64,
    serial: u64,
}

/// The account key is not base64.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the account key is not base64; take the emulator's well-known key or 64 random bytes in base64")]
pub struct MalformedKey;

/// Which of the account's two keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// The one in the configuration, which signs resource tokens here. (Of Azure's tokens nobody says which does.)
    #[default]
    Primary,
    /// The other. Both sign requests.
    Secondary,
}

/// The account keys in force, and those before them.
pub(super) struct Keyring {
    generation: u64,
    current: hmac::Key,
    secondary: hmac::Key,
    /// Both in base64, for whoever lists them.
    texts: [Secret; 2],
    /// Kept only where tokens survive a rotation; the index is the generation.
    retired: Vec<hmac::Key>,
    tokens_survive: bool,
    minted: u64,
    /// Tokens up to this serial number have been declared expired.
    expired: u64,
}

impl Keyring {
    pub(super) fn new(key: &Secret, secondary: &Secret, tokens_survive: bool) -> Result<Self, MalformedKey> {
        Ok(Self {
            generation: 0,
            current: decode(key)?,
            secondary: decode(secondary)?,
            texts: [key.clone(), secondary.clone()],
            retired: Vec::new(),
            tokens_survive,
            minted: 0,
            expired: 0,
        })
    }

    /// Puts `key` in force at once; the one before it signs nothing any more.
    pub(super) fn rotate(&mut self, which: Which, key: &Secret) -> Result<(), MalformedKey> {
        let new = decode(key)?;
        let [primary, secondary] = &mut self.texts;
        match which {
            Which::Primary => {
                *primary = key.clone();
                let old = std::mem::replace(&mut self.current, new);
                self.generation += 1;
                if self.tokens_survive {
                    self.retired.push(old);
                }
            }
            Which::Secondary => {
                *secondary = key.clone();
                self.secondary = new;
            }
        }
        Ok(())
    }

    /// The primary and the secondary key, as Azure Resource Manager lists them.
    pub(super) fn texts(&self) -> [Secret; 2] {
        self.texts.clone()
    }

    /// Declares every token minted so far expired.
    pub(super) fn expire_tokens(&mut self) {
        self.expired = self.minted;
    }

    /// Checks a master signature over `string_to_sign`, dated `date`.
    pub(super) fn check_signature(
        &self,
        signature: &str,
        string_to_sign: String,
        date: Timestamp,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let mac = STANDARD.decode(signature).unwrap_or_default();
        let is_signed_with = |key| hmac::verify(key, string_to_sign.as_bytes(), &mac).is_ok();
        if !is_signed_with(&self.current) && !is_signed_with(&self.secondary) {
            return Err(Refusal::BadSignature { string_to_sign });
        }
        check_time(date.as_secs(), date.as_secs().saturating_add(MASTER_SECS), now)
    }

    /// Mints a token: the whole `_token`, with `type` and `ver`.
    pub(super) fn mint(&mut self, claim: Claim) -> String {
        self.minted += 1;
        let payload = Payload { claim, generation: self.generation, serial: self.minted };
        let payload = STANDARD.encode(serde_json::to_vec(&payload).unwrap_or_default());
        let mac = STANDARD.encode(hmac::sign(&self.current, payload.as_bytes()));
        format!("type=resource&ver=1&sig={mac};{payload};")
    }

    /// Reads a token's `sig` and checks its MAC and its time.
    pub(super) fn check_token(&self, signature: &str, now: Timestamp) -> Result<Claim, Refusal> {
        let parts: Vec<&str> = signature.split(';').collect();
        let [mac, encoded, ""] = parts.as_slice() else { return Err(Refusal::MalformedAuthorization) };
        let mac = STANDARD.decode(mac).map_err(|_| Refusal::MalformedAuthorization)?;
        let payload = STANDARD.decode(encoded).map_err(|_| Refusal::MalformedAuthorization)?;
        let payload: Payload = serde_json::from_slice(&payload).map_err(|_| Refusal::UnknownToken)?;
        let key = self.of_generation(payload.generation).ok_or(Refusal::UnknownToken)?;
        hmac::verify(key, encoded.as_bytes(), &mac).map_err(|_| Refusal::UnknownToken)?;
        let claim = payload.claim;
        if payload.serial <= self.expired {
            let start = Timestamp::from_secs(claim.start);
            return Err(Refusal::NotCurrent { start, expiry: start, now });
        }
        check_time(claim.start, claim.expiry, now)?;
        Ok(claim)
    }

    fn of_generation(&self, generation: u64) -> Option<&hmac::Key> {
        if generation == self.generation {
            return Some(&self.current);
        }
        self.retired.get(usize::try_from(generation).ok()?)
    }
}

fn decode(key: &Secret) -> Result<hmac::Key, MalformedKey> {
    let bytes = Zeroizing::new(STANDARD.decode(key.expose()).map_err(|_| MalformedKey)?);
    if bytes.is_empty() { Err(MalformedKey) } else { Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes)) }
}

fn check_time(start: i64, expiry: i64, now: Timestamp) -> Result<(), Refusal> {
    let at = now.as_secs();
    if at < start.saturating_sub(SKEW_SECS) || at > expiry.saturating_add(SKEW_SECS) {
        let (start, expiry) = (Timestamp::from_secs(start), Timestamp::from_secs(expiry));
        return Err(Refusal::NotCurrent { start, expiry, now });
    }
    Ok(())
}

/// The text that a master signature covers.
pub(super) fn string_to_sign(method: &str, kind: &str, link: &str, x_ms_date: Option<&str>, date: &str) -> String {
    let lower = |text: &str| text.to_ascii_lowercase();
    let date = if x_ms_date.is_some() { String::new() } else { lower(date) };
    format!("{}\n{}\n{link}\n{}\n{date}\n", lower(method), lower(kind), lower(x_ms_date.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::cosmos::WELL_KNOWN_KEY;

    const DOCUMENTED: &str = "dsZQi3KtZmCv1ljt3VNWNm7sQUF1y5rJfC6kv5JiwvW0EndXdDku/dkKBp8/ufDToSxLzR4y+O/0H/t4bQtVNw==";

    fn at(date: &str) -> Timestamp {
        let time = httpdate::parse_http_date(date).unwrap();
        Timestamp::from_secs(time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().try_into().unwrap())
    }

    fn ring(key: &str, survive: bool) -> Keyring {
        Keyring::new(&Secret::new(key.to_owned()), &Secret::new("b3RoZXI=".into()), survive).unwrap()
    }

    #[test]
    fn published_signatures_hold() {
        let november = "Sun, 22 Nov 2026 19:29:22 GMT";
        for (key, method, kind, link, date, signature) in [
            (
                DOCUMENTED,
                "GET",
                "dbs",
                "dbs/ToDoList",
                "Thu, 27 Apr 2017 00:51:12 GMT",
                "c09PEVJrgp2uQRkr934kFbTqhByc7TVr3OHyqlu+c+c=",
            ),
            (WELL_KNOWN_KEY, "GET", "", "", november, "kGSxnBNeb1bmBaZJVb9PL0MWa1lRL5l9eijMDR7Pxoc="),
            (WELL_KNOWN_KEY, "POST", "users", "dbs/d", november, "mwZf+qQwh2xiVeNHoEEkPo+FYTsESr/lLwe+IvQqnyE="),
            (
                WELL_KNOWN_KEY,
                "POST",
                "permissions",
                "dbs/d/users/u",
                november,
                "cg0xN5EwaiBzHKz8BlA2dsM+SZikf0rf30809rrz5T4=",
            ),
        ] {
            let text = string_to_sign(method, kind, link, Some(date), "");
            assert_eq!(ring(key, false).check_signature(signature, text.clone(), at(date), at(date)), Ok(()), "{text}");
            let other = format!("x{text}");
            let refused = ring(key, false).check_signature(signature, other.clone(), at(date), at(date));
            assert_eq!(refused, Err(Refusal::BadSignature { string_to_sign: other }));
        }
    }

    #[test]
    fn the_date_header_stands_in_for_x_ms_date() {
        assert_eq!(string_to_sign("GET", "dbs", "dbs/D", None, "Thu, 1"), "get\ndbs\ndbs/D\n\nthu, 1\n");
    }

    fn claim(start: i64) -> Claim {
        Claim {
            user: "u".into(),
            permission: "p".into(),
            permission_rid: "r".into(),
            mode: Mode::Read,
            database: "d".into(),
            container: "c".into(),
            container_rid: "cr".into(),
            child: None,
            key: None,
            start,
            expiry: start + 600,
        }
    }

    fn minted(ring: &mut Keyring) -> String {
        ring.mint(claim(1000)).strip_prefix("type=resource&ver=1&sig=").unwrap().to_owned()
    }

    #[test]
    fn a_token_lives_from_900_s_before_its_start_to_900_s_after_its_expiry() {
        let mut ring = ring(WELL_KNOWN_KEY, false);
        let token = minted(&mut ring);
        for (second, lives) in [(99, false), (100, true), (1000, true), (2500, true), (2501, false)] {
            let now = Timestamp::from_secs(second);
            let checked = ring.check_token(&token, now);
            assert_eq!(checked.is_ok(), lives, "{second}");
            if !lives {
                let (start, expiry) = (Timestamp::from_secs(1000), Timestamp::from_secs(1600));
                assert_eq!(checked, Err(Refusal::NotCurrent { start, expiry, now }));
            }
        }
    }

    #[test]
    fn a_changed_token_is_refused() {
        let mut ring = ring(WELL_KNOWN_KEY, false);
        let token = minted(&mut ring);
        let now = Timestamp::from_secs(1000);
        let (mac, payload) = token.split_once(';').unwrap();
        let mut forged: Value =
            serde_json::from_slice(&STANDARD.decode(payload.trim_end_matches(';')).unwrap()).unwrap();
        forged["claim"]["mode"] = "All".into();
        let forged = format!("{mac};{};", STANDARD.encode(forged.to_string()));
        assert_eq!(ring.check_token(&forged, now), Err(Refusal::UnknownToken));
        assert_eq!(ring.check_token(token.trim_end_matches(';'), now), Err(Refusal::MalformedAuthorization));
    }

    #[test]
    fn rotation_kills_tokens_unless_they_are_to_survive() {
        let now = Timestamp::from_secs(1000);
        for survive in [false, true] {
            let mut ring = ring(WELL_KNOWN_KEY, survive);
            let token = minted(&mut ring);
            ring.rotate(Which::Primary, &Secret::new(DOCUMENTED.into())).unwrap();
            assert_eq!(ring.check_token(&token, now).is_ok(), survive);
            let fresh = minted(&mut ring);
            assert!(ring.check_token(&fresh, now).is_ok());
        }
    }

    #[test]
    fn tokens_can_be_declared_expired() {
        let now = Timestamp::from_secs(1000);
        let mut ring = ring(WELL_KNOWN_KEY, false);
        let old = minted(&mut ring);
        ring.expire_tokens();
        assert!(matches!(ring.check_token(&old, now), Err(Refusal::NotCurrent { .. })));
        let fresh = minted(&mut ring);
        assert!(ring.check_token(&fresh, now).is_ok());
    }
}
