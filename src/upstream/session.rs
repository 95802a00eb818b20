//! Session tokens: what a caller has seen, so that no replica behind it answers.
//!
//! Cosmos gives one with every answer and wants the latest back: `{range}:{version}#{global}#{region}={local}#...`, several
//! joined by commas. A caller may carry it itself. A workflow whose states each know only the answer before them asks the
//! gateway to keep it (`x-stepgate-session: execution`): per subject, execution and container, so that nobody is given
//! another's, merged per range as the SDKs merge it, for a while and within a bound.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue};
use moka::sync::Cache;

use crate::access::{ContainerName, Subject, headers::SESSION_TOKEN};

/// Most sessions kept.
const MOST_SESSIONS: u64 = 10_000;
/// How long one is kept after it was last used. Replicas are seconds behind, not hours.
const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Most ranges of a session. A container with more has grown beyond what one execution asks for.
const MOST_RANGES: usize = 256;
/// Longest token that is sent, in bytes.
const LONGEST: usize = 8 * 1024;

/// Whose session: a subject's execution, on one container.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SessionKey {
    /// Who asks.
    pub subject: Subject,
    /// Its execution's ARN.
    pub execution: Arc<str>,
    /// Where.
    pub container: ContainerName,
}

/// The sessions that are kept.
#[derive(Debug)]
pub(super) struct Sessions(Cache<SessionKey, Arc<Session>>);

impl Sessions {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(MOST_SESSIONS).time_to_idle(LIFETIME).build())
    }

    /// The token to send: what is kept, and what the caller brings along.
    pub(super) fn token(&self, key: &SessionKey, brought: Option<&HeaderValue>) -> Option<HeaderValue> {
        let mut session = self.0.get(key).map(|kept| Session::clone(&kept)).unwrap_or_default();
        if let Some(brought) = brought.and_then(|value| value.to_str().ok()) {
            session.merge(brought);
        }
        session.to_header()
    }

    /// Takes in the token of an answer.
    pub(super) fn learn(&self, key: &SessionKey, answer: &HeaderMap) {
        let Some(token) = answer.get(SESSION_TOKEN).and_then(|value| value.to_str().ok()) else { return };
        // Two answers at once must not undo each other: the entry is computed under its own lock.
        self.0.entry_by_ref(key).and_compute_with(|kept| {
            let mut session = kept.map(|kept| Session::clone(kept.value())).unwrap_or_default();
            session.merge(token);
            moka::ops::compute::Op::Put(Arc::new(session))
        });
    }

    pub(super) fn len(&self) -> u64 {
        self.0.entry_count()
    }
}

/// What was seen of each partition key range, by its id.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Session(BTreeMap<Arc<str>, Seen>);

/// What was seen of one range.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Seen {
    /// A vector: the topology's version, the global sequence number, and each region's own.
    Vector { version: i64, global: u64, regions: BTreeMap<u32, i64> },
    /// A single sequence number, as older accounts give it.
    Single { lsn: u64, written: Arc<str> },
}

impl Session {
    /// Takes in another token; parts that are no token are left out.
    fn merge(&mut self, token: &str) {
        for part in token.split(',') {
            let Some((range, seen)) = part.trim().split_once(':') else { continue };
            let Some(seen) = Seen::parse(seen) else { continue };
            let has_room = self.0.len() < MOST_RANGES && range.parse::<u32>().is_ok();
            match self.0.get_mut(range) {
                Some(before) => before.merge(seen),
                None if has_room => drop(self.0.insert(range.into(), seen)),
                None => {}
            }
        }
    }

    fn to_header(&self) -> Option<HeaderValue> {
        let mut token = String::new();
        for (range, seen) in &self.0 {
            if !token.is_empty() {
                token.push(',');
            }
            // Writing to a String does not fail.
            let _ = write!(token, "{range}:");
            seen.write(&mut token);
        }
        if token.is_empty() || token.len() > LONGEST { None } else { HeaderValue::try_from(token).ok() }
    }
}

impl Seen {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('#');
        let version: i64 = parts.next()?.parse().ok()?;
        let Some(global) = parts.next() else {
            return Some(Self::Single { lsn: version.try_into().ok()?, written: text.into() });
        };
        let global = global.parse().ok()?;
        if version < 0 {
            return parts.next().is_none().then(|| Self::Single { lsn: global, written: text.into() });
        }
        let region = |part: &str| {
            let (region, local) = part.split_once('=')?;
            Some((region.parse().ok()?, local.parse().ok()?))
        };
        Some(Self::Vector { version, global, regions: parts.map(region).collect::<Option<_>>()? })
    }

    /// The later of both, part by part. Of two versions of the topology the newer says which regions there are.
    fn merge(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Single { lsn, .. }, other @ Self::Single { lsn: later, .. }) if later > *lsn => *self = other,
            (Self::Single { .. }, Self::Single { .. }) => {}
            (
                Self::Vector { version, global, regions },
                Self::Vector { version: other_version, global: other_global, regions: mut others },
            ) => {
                if other_version > *version {
                    std::mem::swap(regions, &mut others);
                    *version = other_version;
                } else if other_version == *version {
                    for (region, local) in &others {
                        regions.entry(*region).or_insert(*local);
                    }
                }
                for (region, local) in regions {
                    *local = (*local).max(others.get(region).copied().unwrap_or(*local));
                }
                *global = (*global).max(other_global);
            }
            // The account changed how it counts; what came last holds.
            (_, other) => *self = other,
        }
    }

    fn write(&self, token: &mut String) {
        match self {
            Self::Single { written, .. } => token.push_str(written),
            Self::Vector { version, global, regions } => {
                let _ = write!(token, "{version}#{global}");
                for (region, local) in regions {
                    let _ = write!(token, "#{region}={local}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::access::IssuerName;

    fn merged(tokens: &[&str]) -> String {
        let mut session = Session::default();
        tokens.iter().for_each(|token| session.merge(token));
        session.to_header().map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    #[test]
    fn what_was_seen_later_counts_part_by_part() {
        for (tokens, expected) in [
            (&["0:1#5#0=5"][..], "0:1#5#0=5"),
            (&["0:1#5#0=5", "0:1#9#0=5#1=4"], "0:1#9#0=5#1=4"),
            (&["0:1#9#0=9", "0:1#5#0=3"], "0:1#9#0=9"),
            (&["0:1#5#0=5", "1:1#7#0=7"], "0:1#5#0=5,1:1#7#0=7"),
            (&["0:1#5#0=5,1:1#2#0=2", "1:1#7#0=7"], "0:1#5#0=5,1:1#7#0=7"),
            // A newer topology says which regions there are.
            (&["0:1#9#0=9#1=8", "0:2#5#0=3#2=1"], "0:2#9#0=9#2=1"),
            (&["0:2#5#0=3#2=1", "0:1#9#0=9#1=8"], "0:2#9#0=9#2=1"),
            (&["0:-1#5", "0:-1#7"], "0:-1#7"),
            (&["0:7", "0:5"], "0:7"),
            (&["0:7", "0:1#5#0=5"], "0:1#5#0=5"),
            (&["nothing", "0:", "0:x", "x:1#5", "0:1#5#0", ""], ""),
        ] {
            assert_eq!(merged(tokens), expected, "{tokens:?}");
        }
    }

    #[test]
    fn a_session_is_bounded() {
        let many: Vec<String> = (0..1_000).map(|range| format!("{range}:1#5#0=5")).collect();
        let mut session = Session::default();
        session.merge(&many.join(","));
        assert_eq!(session.0.len(), MOST_RANGES);
        assert!(session.to_header().unwrap().len() <= LONGEST);
    }

    fn key(subject: &str, execution: &str, container: &str) -> SessionKey {
        SessionKey {
            subject: Subject { issuer: IssuerName::new("local"), id: subject.into() },
            execution: execution.into(),
            container: ContainerName::new("shop", container).unwrap(),
        }
    }

    #[test]
    fn nobody_is_given_anothers_session() {
        let sessions = Sessions::new();
        let answer = |token: &str| HeaderMap::from_iter([(SESSION_TOKEN, token.parse().unwrap())]);
        sessions.learn(&key("w1", "run-1", "orders"), &answer("0:1#5#0=5"));
        sessions.learn(&key("w1", "run-1", "orders"), &answer("0:1#3#0=3,1:1#2#0=2"));
        sessions.learn(&key("w1", "run-1", "orders"), &HeaderMap::new());
        let token = |key: &SessionKey, brought: Option<&str>| {
            let brought = brought.map(|text| text.parse().unwrap());
            sessions.token(key, brought.as_ref()).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(token(&key("w1", "run-1", "orders"), None).as_deref(), Some("0:1#5#0=5,1:1#2#0=2"));
        let both = token(&key("w1", "run-1", "orders"), Some("1:1#9#0=9"));
        assert_eq!(both.as_deref(), Some("0:1#5#0=5,1:1#9#0=9"));
        for other in [key("w2", "run-1", "orders"), key("w1", "run-2", "orders"), key("w1", "run-1", "audit")] {
            assert_eq!(token(&other, None), None, "{other:?}");
            assert_eq!(token(&other, Some("0:1#2#0=2")).as_deref(), Some("0:1#2#0=2"));
        }
    }

    fn any_token() -> impl Strategy<Value = String> {
        let region = (0_u32..3, 0_i64..20).prop_map(|(region, local)| format!("#{region}={local}"));
        let regions = proptest::collection::vec(region, 0..3);
        let part = (0_u32..3, 0_i64..3, 0_u64..20, regions)
            .prop_map(|(range, version, global, regions)| format!("{range}:{version}#{global}{}", regions.concat()));
        proptest::collection::vec(part, 1..3).prop_map(|parts| parts.join(","))
    }

    proptest! {
        /// Answers arrive in any order, and some twice.
        #[test]
        fn the_order_of_tokens_of_one_topology_does_not_matter(
            mut tokens in proptest::collection::vec(any_token().prop_map(|t| t.replace(":0#", ":1#").replace(":2#", ":1#")), 1..6),
        ) {
            let list: Vec<&str> = tokens.iter().map(String::as_str).collect();
            let forward = merged(&list);
            prop_assert_eq!(&merged(&[&forward, list[0]]), &forward, "again changes nothing");
            tokens.reverse();
            let list: Vec<&str> = tokens.iter().map(String::as_str).collect();
            prop_assert_eq!(merged(&list), forward);
        }

        #[test]
        fn global_progress_never_goes_back(tokens in proptest::collection::vec(any_token(), 1..6)) {
            let mut session = Session::default();
            let mut before: BTreeMap<Arc<str>, u64> = BTreeMap::new();
            for token in &tokens {
                session.merge(token);
                for (range, seen) in &session.0 {
                    let Seen::Vector { global, .. } = seen else { unreachable!("only vectors are made") };
                    prop_assert!(before.insert(range.clone(), *global).unwrap_or(0) <= *global);
                }
            }
        }
    }
}
