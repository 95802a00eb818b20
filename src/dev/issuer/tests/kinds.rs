//! What a good token proves, for each kind of issuer.

use super::*;
use crate::{
    access::{Assurance, Subject},
    identity::{ContextClaim, ContextMapping, IdentitySetup},
};

#[tokio::test]
async fn a_workload_is_known_by_issuer_subject_client_and_claims() {
    let mut stage = Stage::open().await;
    let identity = stage.identity(vec![stage.trust()]);
    let token = stage.issuer.token("orders").unwrap();
    for _ in 0..2 {
        let known = ask(&identity, &token).await.unwrap();
        assert_eq!(known.subject(), &Subject { issuer: IssuerName::new("local"), id: "orders".into() });
        assert_eq!((known.client(), known.kind()), (Some("orders"), WorkloadKind::Oidc));
        assert_eq!(known.claims().text("tenant"), Some("t1"));
        assert_eq!(known.expires(), Timestamp::from_secs(1_795_375_762 + 900));
    }
}

#[tokio::test]
async fn a_remembered_token_ends_with_its_time() {
    let mut stage = Stage::open().await;
    let identity = stage.identity(vec![stage.trust()]);
    let token = stage.issuer.mint(Mint { ttl: Some(60), ..Mint::default() }).unwrap();
    ask(&identity, &token).await.unwrap();
    stage.hand.advance(Duration::from_secs(89));
    ask(&identity, &token).await.unwrap();
    stage.hand.advance(Duration::from_secs(1));
    assert_eq!(refusal(&identity, &token).await, Some(Reason::Expired));
}

#[tokio::test]
async fn cognito_holds_a_token_without_audience_to_the_clients() {
    let mut stage = Stage::open().await;
    let url = stage.issuer.url().to_owned();
    let trust = |clients: &[&str], audiences: &[&str]| IssuerConfig {
        clients: clients.iter().map(|&client| client.to_owned()).collect(),
        audiences: audiences.iter().map(|&audience| audience.to_owned()).collect(),
        ..IssuerConfig::new(IssuerName::new("pool"), WorkloadKind::Cognito, url.clone())
    };
    let access = json!({"token_use": "access", "scope": "shop/write", "aud": null});
    let (token, bound) = (
        stage.mint(access.clone()),
        stage.mint(json!({"token_use": "access", "scope": "shop/write", "aud": "https://gate.test"})),
    );
    let person = stage.mint(json!({"token_use": "access", "aud": null, "username": "jo"}));
    let missing = || Some(Reason::MissingClaim("aud".into()));
    for (clients, audiences, unbound_refused, bound_refused) in [
        (&["minted"][..], &[][..], None, Some(Reason::WrongAudience(vec![]))),
        (&["minted"], &["https://gate.test"], None, None),
        (&["other"], &["https://gate.test"], Some(Reason::WrongClient), Some(Reason::WrongClient)),
        (&[], &["https://gate.test"], missing(), None),
        (&[], &[], missing(), Some(Reason::WrongAudience(vec![]))),
    ] {
        let trust = trust(clients, audiences);
        let identity = stage.identity(vec![trust]);
        assert_eq!(refusal(&identity, &token).await, unbound_refused, "{clients:?} {audiences:?}");
        assert_eq!(refusal(&identity, &bound).await, bound_refused, "{clients:?} {audiences:?}");
    }
    let identity = stage.identity(vec![trust(&["minted"], &[])]);
    assert_eq!(refusal(&identity, &person).await, Some(Reason::Human { claim: "username".into() }));
}

#[tokio::test]
async fn aws_sts_tells_role_and_execution() {
    let mut stage = Stage::open().await;
    let claim = "/https:~1~1sts.amazonaws.com~1/request_tags/execution".to_owned();
    let mapped = ContextClaim { claim: claim.clone().into(), assurance: Assurance::Signed };
    let trust = IssuerConfig {
        audiences: vec!["stepgate".to_owned()],
        context: ContextMapping { execution: Some(mapped), ..ContextMapping::default() },
        ..IssuerConfig::new(IssuerName::new("aws"), WorkloadKind::AwsSts, stage.issuer.url().to_owned())
    };
    let identity = stage.identity(vec![trust]);
    let (role, execution) =
        ("arn:aws:iam::111122223333:role/Fulfilment", "arn:aws:states:us-east-1:111122223333:execution:Fulfil:run-1");
    let token = |tags: Value| {
        stage.mint(json!({"sub": role, "client_id": null, "https://sts.amazonaws.com/": {"request_tags": tags}}))
    };
    let known = ask(&identity, &token(json!({ "execution": execution }))).await.unwrap();
    assert_eq!((&*known.subject().id, known.client()), (role, None));
    let said = known.context().execution.clone().unwrap();
    assert_eq!((said.value.as_str(), said.assurance), (execution, Assurance::Signed));
    let refused = refusal(&identity, &token(json!({"execution": "run-1"}))).await;
    assert!(matches!(&refused, Some(Reason::MalformedFact { claim: named, .. }) if *named == claim), "{refused:?}");
}

#[tokio::test]
async fn a_client_list_holds_for_every_kind() {
    let mut stage = Stage::open().await;
    let identity = stage.identity(vec![IssuerConfig { clients: vec!["orders".to_owned()], ..stage.trust() }]);
    ask(&identity, &stage.issuer.token("orders").unwrap()).await.unwrap();
    assert_eq!(refusal(&identity, &stage.issuer.token("elliptic").unwrap()).await, Some(Reason::WrongClient));
    assert_eq!(refusal(&identity, &stage.mint(json!({"client_id": null}))).await, Some(Reason::WrongClient));
}

#[tokio::test]
async fn issuers_must_differ_in_name_and_url() {
    let stage = Stage::open().await;
    let refused = |issuers| {
        let transport = Transport::new(None).unwrap();
        Identity::new(issuers, transport, Clock::Manual(stage.hand.clone())).map(|_| ()).unwrap_err()
    };
    let elsewhere = IssuerConfig { url: "https://elsewhere.test".to_owned(), ..stage.trust() };
    assert_eq!(refused(vec![stage.trust(), elsewhere]), IdentitySetup::SameName(IssuerName::new("local")));
    let renamed = IssuerConfig { name: IssuerName::new("again"), ..stage.trust() };
    let same = IdentitySetup::SameUrl(IssuerName::new("local"), IssuerName::new("again"));
    assert_eq!(refused(vec![stage.trust(), renamed]), same);
}
