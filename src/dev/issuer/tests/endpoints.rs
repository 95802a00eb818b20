//! The issuer's endpoints, as EventBridge and people with curl use them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};

use super::*;

async fn send(stage: &Stage, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Response<Bytes> {
    let mut request = Request::builder().method(method).uri(format!("{}{path}", stage.issuer.url()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body.to_owned().into()).unwrap();
    Transport::new(None).unwrap().exchange(request, 1 << 20, PATIENCE).await.unwrap()
}

fn read(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap()
}

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

#[tokio::test]
async fn a_client_gets_its_token_in_three_ways() {
    let mut stage = Stage::open().await;
    let identity = stage.identity(vec![stage.trust()]);
    let basic = format!("Basic {}", STANDARD.encode("orders:orders%2Dsecret"));
    for (headers, body) in [
        (&[FORM][..], "grant_type=client_credentials&client_id=orders&client_secret=orders-secret&scope=x"),
        (&[JSON], r#"{"grant_type":"client_credentials","client_id":"orders","client_secret":"orders-secret","n":1}"#),
        (&[FORM, ("authorization", &basic)], "grant_type=client_credentials"),
        (&[FORM, ("authorization", &basic)], "grant_type=client_credentials&client_id=orders"),
    ] {
        let answer = send(&stage, Method::POST, "/token", headers, body).await;
        assert_eq!(answer.status(), StatusCode::OK, "{body}");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let answer = read(&answer);
        assert_eq!((&answer["token_type"], &answer["expires_in"]), (&json!("Bearer"), &json!(900)));
        let known = ask(&identity, answer["access_token"].as_str().unwrap()).await.unwrap();
        assert_eq!(known.client(), Some("orders"));
    }
    assert_eq!(stage.issuer.stats().token, 4);
}

#[tokio::test]
async fn what_is_wrong_with_a_token_request_is_said_by_its_code() {
    let stage = Stage::open().await;
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    let (right, wrong) = (basic("orders:orders-secret"), basic("orders:guess"));
    for (headers, body, status, code) in [
        (&[FORM][..], "grant_type=client_credentials&client_id=orders&client_secret=guess", 401, "invalid_client"),
        (&[FORM], "grant_type=client_credentials&client_id=nobody&client_secret=x", 401, "invalid_client"),
        (&[FORM, ("authorization", &wrong)], "grant_type=client_credentials", 401, "invalid_client"),
        (&[FORM, ("authorization", "Basic !")], "grant_type=client_credentials", 401, "invalid_client"),
        (&[FORM, ("authorization", "Bearer x")], "grant_type=client_credentials", 401, "invalid_client"),
        (&[FORM], "client_id=orders&client_secret=orders-secret", 400, "invalid_request"),
        (&[FORM], "grant_type=password&client_id=orders&client_secret=orders-secret", 400, "unsupported_grant_type"),
        (&[FORM], "grant_type=client_credentials", 400, "invalid_request"),
        (&[FORM], "grant_type=client_credentials&client_id=a&client_id=b&client_secret=c", 400, "invalid_request"),
        (&[FORM, ("authorization", &right)], "grant_type=client_credentials&client_secret=x", 400, "invalid_request"),
        (&[FORM, ("authorization", &right)], "grant_type=client_credentials&client_id=jo", 400, "invalid_request"),
        (&[JSON], "{", 400, "invalid_request"),
    ] {
        let answer = send(&stage, Method::POST, "/token", headers, body).await;
        assert_eq!((answer.status().as_u16(), &read(&answer)["error"]), (status, &json!(code)), "{body}");
        let challenged = answer.headers().contains_key("www-authenticate");
        assert_eq!(challenged, status == 401 && headers.len() == 2, "{body}");
    }
}

#[tokio::test]
async fn the_controls_do_what_they_say() {
    let mut stage = Stage::open().await;
    let identity = stage.identity(vec![stage.trust()]);
    let post = async |path: &str, body: &str| send(&stage, Method::POST, path, &[JSON], body).await;
    let get = async |path: &str| send(&stage, Method::GET, path, &[], "").await;

    let minted = read(&post("/_stepgate/mint", "").await);
    ask(&identity, minted["access_token"].as_str().unwrap()).await.unwrap();
    for (order, reason) in [
        (json!({"ttl": -60}), Reason::Expired),
        (json!({"key": "rogue"}), Reason::BadSignature),
        (json!({"key": "rogue", "alg": "ES256"}), Reason::BadSignature),
        (json!({"claims": {"exp": null}}), Reason::MissingClaim("exp".into())),
        (json!({"header": {"crit": ["x"]}}), Reason::CriticalExtension),
    ] {
        let minted = read(&post("/_stepgate/mint", &order.to_string()).await);
        assert_eq!(refusal(&identity, minted["access_token"].as_str().unwrap()).await, Some(reason), "{order}");
    }
    for alg in ["none", "HS256-with-public-key", "HS256-with-public-key-der"] {
        let minted = read(&post("/_stepgate/mint", &json!({ "alg": alg }).to_string()).await);
        let refused = refusal(&identity, minted["access_token"].as_str().unwrap()).await;
        assert!(matches!(refused, Some(Reason::AlgorithmNotAllowed(_))), "{alg}: {refused:?}");
    }

    assert_eq!(read(&get("/jwks").await)["keys"].as_array().unwrap().len(), 2);
    let rotated = read(&post("/_stepgate/rotate?alg=ES256", "").await);
    let keys = read(&get("/jwks").await);
    assert_eq!(keys["keys"].as_array().unwrap().len(), 3);
    assert!(keys["keys"].as_array().unwrap().iter().any(|key| key["kid"] == rotated["signing"][0]));
    post("/_stepgate/rotate?drop=old", "").await;
    assert_eq!(read(&get("/jwks").await)["keys"].as_array().unwrap().len(), 2);

    post("/_stepgate/outage", r#"{"ms": 5000}"#).await;
    for path in ["/jwks", "/.well-known/openid-configuration"] {
        assert_eq!(get(path).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    stage.hand.advance(Duration::from_secs(5));
    assert_eq!(get("/jwks").await.status(), StatusCode::OK);
    post("/_stepgate/outage", r#"{"on": true}"#).await;
    assert_eq!(get("/jwks").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    post("/_stepgate/outage", r#"{"on": false}"#).await;
    assert_eq!(get("/jwks").await.status(), StatusCode::OK);

    let stats = read(&get("/_stepgate/stats").await);
    assert_eq!((&stats["jwks"], &stats["discovery"]), (&json!(6), &json!(1)));
    for (path, body) in [
        ("/_stepgate/rotate?alg=none", ""),
        ("/_stepgate/mint", r#"{"clams": {}}"#),
        ("/_stepgate/outage", "{}"),
        ("/_stepgate/outage", r#"{"ms": 1, "on": true}"#),
    ] {
        assert_eq!(post(path, body).await.status(), StatusCode::BAD_REQUEST, "{path} {body}");
    }
}

#[tokio::test]
async fn the_issuer_stops_when_it_is_told() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let issuer = Issuer::new(config(), "http://127.0.0.1".to_owned(), Clock::System).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = serve(listener, issuer, async move { drop(stopped.await) });
    stop.send(()).unwrap();
    tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap();
}

#[test]
fn the_config_reads_as_documented_and_nothing_else() {
    let config: Config = serde_saphyr::from_str(
        "listen: 127.0.0.1:0\nlifetime: 5m\nclients:\n- client_id: orders\n  client_secret: s\n  kind: workload\n  \
         claims: {tenant: t1}\n  algorithm: ES256\n- {client_id: jo, client_secret: s, kind: human}\n",
    )
    .unwrap();
    assert_eq!((config.listen.port(), config.lifetime, &*config.audience), (0, Duration::from_secs(300), "stepgate"));
    assert_eq!(config.clients[0].algorithm, Some(SigningAlgorithm::ES256));
    assert_eq!(config.clients[1].kind, Kind::Human);
    assert!(!format!("{config:?}").contains("\"s\""), "a secret does not print");
    assert!(serde_saphyr::from_str::<Config>("audiences: [x]").is_err());
    assert!(serde_saphyr::from_str::<Config>("clients: [{client_id: x, client_secret: s, kind: robot}]").is_err());
    let schema = schemars::schema_for!(Config).to_value();
    for key in schema["properties"].as_object().unwrap().values() {
        assert!(key["description"].is_string(), "{key}");
    }
}
