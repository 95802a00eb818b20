//! Keys come, go, and cannot be fetched.

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use futures_util::future::join_all;
use tokio::{sync::watch, time::timeout};

use super::*;
use crate::{
    dev::issuer::{Outage, Rotation},
    identity::FetchError,
};

const DROP_OLD: Rotation = Rotation { algorithm: None, drop_old: true };

#[tokio::test]
async fn a_new_key_is_found_by_one_fetch_for_all_who_wait() {
    let mut stage = Stage::open().await;
    let identity = stage.identity(vec![stage.trust()]);
    let old = stage.issuer.token("orders").unwrap();
    ask(&identity, &old).await.unwrap();
    assert_eq!(stage.issuer.stats().jwks, 1);

    stage.issuer.rotate(Rotation::default()).unwrap();
    let fresh = stage.issuer.token("orders").unwrap();
    let answers = join_all((0..50).map(|_| ask(&identity, &fresh))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(stage.issuer.stats().jwks, 2, "one fetch served all");
    ask(&identity, &old).await.unwrap();

    stage.issuer.rotate(Rotation::default()).unwrap();
    ask(&identity, &stage.issuer.token("orders").unwrap()).await.expect("a fetch that helped delays none");
}

/// The verdict on a token that names a key nobody has.
async fn unknown(identity: &Identity, stage: &Stage, kid: &str) -> Option<Reason> {
    let forged = stage.issuer.mint(Mint { header: members(json!({ "kid": kid })), ..Mint::default() });
    refusal(identity, &forged.unwrap()).await
}

#[tokio::test]
async fn unknown_keys_cause_one_fetch_in_vain_in_ten_seconds() {
    let mut stage = Stage::open().await;
    let identity = stage.identity(vec![stage.trust()]);
    ask(&identity, &stage.issuer.token("orders").unwrap()).await.unwrap();
    for (round, (advance, fetches)) in [(0, 2), (9, 2), (1, 3), (0, 3), (9, 3), (1, 4)].into_iter().enumerate() {
        stage.hand.advance(Duration::from_secs(advance));
        for kid in ["a", "b", "c"] {
            assert_eq!(unknown(&identity, &stage, &format!("{kid}{round}")).await, Some(Reason::UnknownKey));
        }
        assert_eq!(stage.issuer.stats().jwks, fetches, "round {round}");
    }
}

#[tokio::test]
async fn a_key_id_that_nobody_has_is_not_asked_for_again_for_half_a_minute() {
    let mut stage = Stage::open().await;
    let identity = stage.identity(vec![stage.trust()]);
    ask(&identity, &stage.issuer.token("orders").unwrap()).await.unwrap();
    for (advance, fetches) in [(0, 2), (15, 2), (14, 2), (1, 3)] {
        stage.hand.advance(Duration::from_secs(advance));
        assert_eq!(unknown(&identity, &stage, "nobody's").await, Some(Reason::UnknownKey));
        assert_eq!(stage.issuer.stats().jwks, fetches);
    }
}

#[tokio::test]
async fn a_thousand_unknown_keys_are_one_fetch() {
    let mut stage = Stage::open().await;
    let identity = stage.identity(vec![stage.trust()]);
    let good = stage.issuer.token("orders").unwrap();
    ask(&identity, &good).await.unwrap();
    let verdicts = join_all((0..1000).map(|i| {
        let (identity, stage) = (&identity, &stage);
        async move { unknown(identity, stage, &format!("k{i}")).await }
    }));
    assert!(verdicts.await.iter().all(|verdict| *verdict == Some(Reason::UnknownKey)));
    assert_eq!(stage.issuer.stats().jwks, 2, "the first fetch, and one for all of them");
    ask(&identity, &good).await.unwrap();
}

#[tokio::test]
async fn a_key_that_fits_nothing_causes_no_fetch() {
    let mut stage = Stage::open().await;
    let identity = stage.identity(vec![stage.trust()]);
    ask(&identity, &stage.issuer.token("orders").unwrap()).await.unwrap();
    stage.hand.advance(Duration::from_secs(60));
    let unfit = stage.issuer.mint(Mint { header: members(json!({"alg": "ES256"})), ..Mint::default() }).unwrap();
    assert_eq!(refusal(&identity, &unfit).await, Some(Reason::UnfitKey));
    assert_eq!(stage.issuer.stats().jwks, 1);
}

#[tokio::test]
async fn a_withdrawn_key_takes_its_remembered_tokens_with_it() {
    let mut stage = Stage::open().await;
    let identity = stage.identity(vec![stage.trust()]);
    let old = stage.issuer.token("orders").unwrap();
    ask(&identity, &old).await.unwrap();

    stage.issuer.rotate(DROP_OLD).unwrap();
    ask(&identity, &old).await.expect("the gateway has not heard yet");
    ask(&identity, &stage.issuer.token("orders").unwrap()).await.unwrap();
    assert_eq!(refusal(&identity, &old).await, Some(Reason::UnknownKey));
}

#[tokio::test]
async fn keys_are_fetched_again_at_the_interval() {
    let mut stage = Stage::open().await;
    let identity = stage.identity(vec![IssuerConfig { refresh: Duration::from_millis(20), ..stage.trust() }]);
    let old = stage.issuer.token("orders").unwrap();
    ask(&identity, &old).await.unwrap();
    stage.issuer.rotate(DROP_OLD).unwrap();
    let mut stats = stage.issuer.watch_stats();
    let seen = stats.borrow().jwks;
    // One fetch may have read the old set; when the second after it begins, the one between has been taken in.
    timeout(PATIENCE, stats.wait_for(|stats| stats.jwks >= seen + 3)).await.unwrap().unwrap();
    assert_eq!(refusal(&identity, &old).await, Some(Reason::UnknownKey));
}

#[tokio::test]
async fn an_outage_is_outlived_until_the_keys_are_too_old() {
    let mut stage = Stage::open().await;
    let identity = stage.identity(vec![stage.trust()]);
    let lasting = || stage.issuer.mint(Mint { ttl: Some(7 * 24 * 3600), ..Mint::default() }).unwrap();
    let remembered = lasting();
    ask(&identity, &remembered).await.unwrap();
    let unavailable = || Some(Reason::KeysUnavailable(IssuerName::new("local")));

    stage.issuer.set_outage(Outage::On);
    stage.hand.advance(Duration::from_secs(23 * 3600));
    assert_eq!(refusal(&identity, &lasting()).await, None, "old keys carry on");
    let unknown = stage.issuer.mint(Mint { header: members(json!({"kid": "new"})), ..Mint::default() }).unwrap();
    assert_eq!(refusal(&identity, &unknown).await, unavailable(), "it may be a key published since");
    let status = &identity.status()[0];
    assert!(status.usable);
    assert!(matches!(status.error.as_deref(), Some(FetchError::Status { .. })), "{:?}", status.error);

    stage.hand.advance(Duration::from_secs(3601));
    assert_eq!(refusal(&identity, &lasting()).await, unavailable());
    assert_eq!(refusal(&identity, &remembered).await, unavailable(), "a remembered token ends with the keys' trust");
    assert!(!identity.status()[0].usable);

    stage.issuer.set_outage(Outage::Off);
    stage.hand.advance(Duration::from_secs(10));
    assert_eq!(refusal(&identity, &lasting()).await, None);
    assert!(identity.status()[0].error.is_none());
}

#[tokio::test]
async fn without_keys_nothing_can_be_judged() {
    let mut stage = Stage::open().await;
    stage.issuer.set_outage(Outage::On);
    let identity = stage.identity(vec![stage.trust()]);
    let token = stage.issuer.token("orders").unwrap();
    assert_eq!(refusal(&identity, &token).await, Some(Reason::KeysUnavailable(IssuerName::new("local"))));
    stage.issuer.set_outage(Outage::Off);
    stage.hand.advance(Duration::from_secs(10));
    ask(&identity, &token).await.unwrap();
}

#[tokio::test]
async fn the_discovery_document_must_be_the_issuers_own() {
    let mut stage = Stage::open().await;
    let url = format!("{}/", stage.issuer.url());
    let identity = stage.identity(vec![IssuerConfig { url: url.clone(), ..stage.trust() }]);
    let token = stage.mint(json!({ "iss": url }));
    assert_eq!(refusal(&identity, &token).await, Some(Reason::KeysUnavailable(IssuerName::new("local"))));
    let status = &identity.status()[0];
    assert!(matches!(status.error.as_deref(), Some(FetchError::OtherIssuer { found }) if found == stage.issuer.url()));
}

#[tokio::test]
async fn a_key_set_that_does_not_parse_leaves_the_last_good_one() {
    let mut stage = Stage::open().await;
    let good = stage.issuer.keys().document().to_string();
    let (served, body) = watch::channel(good);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let keys = format!("http://{}/keys", listener.local_addr().unwrap());
    let read = |State(body): State<watch::Receiver<String>>| async move { body.borrow().clone() };
    let router = Router::new().route("/keys", get(read)).with_state(body);
    stage.tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });

    let trust = IssuerConfig { jwks_uri: Some(keys.parse().unwrap()), ..stage.trust() };
    let identity = stage.identity(vec![trust]);
    let token = || stage.issuer.token("orders").unwrap();
    let unknown = stage.issuer.mint(Mint { header: members(json!({"kid": "new"})), ..Mint::default() }).unwrap();
    ask(&identity, &token()).await.unwrap();
    for broken in ["", "{\"keys\":[", "{\"keys\":[]}", "<html>sign in</html>"] {
        served.send(broken.to_owned()).unwrap();
        stage.hand.advance(Duration::from_secs(10));
        // An unknown key makes the room fetch.
        assert!(refusal(&identity, &unknown).await.is_some());
        let status = &identity.status()[0];
        assert!(matches!(status.error.as_deref(), Some(FetchError::NoUsableKeys)), "{broken}: {:?}", status.error);
        ask(&identity, &token()).await.unwrap();
    }
    assert_eq!(stage.issuer.stats().discovery, 0, "a configured jwks_uri stands in for discovery");
}

#[tokio::test]
async fn status_tells_keys_with_their_ages() {
    let mut stage = Stage::open().await;
    let identity: Arc<Identity> = stage.identity(vec![stage.trust()]);
    let start = Clock::Manual(stage.hand.clone()).now();
    ask(&identity, &stage.issuer.token("orders").unwrap()).await.unwrap();
    stage.hand.advance(Duration::from_secs(60));
    let rotation = Rotation { algorithm: Some(SigningAlgorithm::ES256), drop_old: false };
    let fresh = stage.issuer.rotate(rotation).unwrap();
    ask(&identity, &stage.issuer.token("orders").unwrap()).await.unwrap();

    let status = identity.status().remove(0);
    let age = |kid: &str| status.keys.iter().find(|key| key.id.as_deref() == Some(kid)).unwrap().first_seen;
    assert_eq!(age(&fresh[0]), start.plus(Duration::from_secs(60)));
    assert_eq!(age(&stage.issuer.keys().signing(Some(SigningAlgorithm::RS256)).kid), start);
    assert_eq!((status.keys.len(), status.fetches, status.usable), (3, 2, true));
    assert_eq!(status.fetched, Some(start.plus(Duration::from_secs(60))));
}
