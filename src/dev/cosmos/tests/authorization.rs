use super::*;
use crate::dev::cosmos::Authorization;

#[tokio::test]
async fn a_signature_with_the_account_key_opens_everything() {
    let stand = Stand::new().await;
    for path in
        ["/", "/dbs", "/dbs/shop", "/dbs/shop/colls", "/dbs/shop/colls/orders/", "/dbs/shop/colls/orders/pkranges"]
    {
        stand.get(path).await.expect(200);
    }
    let account = stand.get("/").await.expect(200);
    let here = format!("http://{}/", stand.address);
    assert_eq!(account.body["writableLocations"][0]["databaseAccountEndpoint"], here);
    assert_eq!(account.body["readableLocations"][0]["databaseAccountEndpoint"], here);
}

#[tokio::test]
async fn no_authorization_is_refused() {
    let stand = Stand::new().await;
    for path in ["/", "/dbs/shop/colls/orders/docs/1", "/nowhere"] {
        let answer = stand.ask(By::Nothing, "GET", path, &[], Value::Null).await.expect(401);
        assert_eq!(answer.substatus(), 5000);
        let text = "Required Header authorization is missing. Ensure a valid Authorization token is passed.";
        assert_eq!(answer.body, json!({ "code": "Unauthorized", "message": text }));
    }
}

#[tokio::test]
async fn a_header_built_otherwise_is_refused() {
    let stand = Stand::new().await;
    for header in ["Bearer abc", "type=master&sig=abc", "type=resource&ver=1&sig=abc"] {
        let answer = stand.ask(By::Header(header), "GET", "/", &[], Value::Null).await.expect(401);
        assert_eq!(answer.substatus(), 5001, "{header}");
        let text = "Authorization header doesn't confirm to the required format. Please verify and try again.";
        assert_eq!(answer.message(), text);
    }
}

#[tokio::test]
async fn a_wrong_signature_is_answered_with_what_should_have_been_signed() {
    let stand = Stand::new().await;
    let other = signed(WELL_KNOWN_KEY, "GET", "/dbs/other", &stand.date());
    let answer = stand.ask(By::Header(&other), "GET", "/dbs/shop", &[], Value::Null).await.expect(401);
    let should = "'get\ndbs\ndbs/shop\nsun, 22 nov 2026 19:29:22 gmt\n\n'";
    assert!(answer.message().starts_with("The input authorization token can't serve the request."), "{}", answer.body);
    assert!(answer.message().contains(should), "{}", answer.body);
}

#[tokio::test]
async fn a_signature_needs_a_date_of_now() {
    let stand = Stand::new().await;
    let undated = signed(WELL_KNOWN_KEY, "GET", "/", "");
    stand.ask(By::Header(&undated), "GET", "/", &[(header::DATE, "")], Value::Null).await.expect(401);
    for (seconds, lives) in [(-1801, false), (-1800, true), (900, true), (901, false)] {
        let date = Timestamp::from_secs(NOW.as_secs() + seconds).http_date();
        let header = signed(WELL_KNOWN_KEY, "GET", "/", &date);
        let answer = stand.ask(By::Header(&header), "GET", "/", &[(header::DATE, &date)], Value::Null).await;
        let answer = answer.expect(if lives { 200 } else { 403 });
        if !lives {
            let text = "The authorization token is not valid at the current time. Please create another token and retry (token start time: ";
            assert!(answer.message().starts_with(text), "{}", answer.body);
            assert_eq!(answer.substatus(), 0);
        }
    }
    let header = signed(WELL_KNOWN_KEY, "GET", "/", "yesterday");
    stand.ask(By::Header(&header), "GET", "/", &[(header::DATE, "yesterday")], Value::Null).await.expect(401);
}

#[tokio::test]
async fn without_an_issuer_no_entra_token_is_taken() {
    let stand = Stand::new().await;
    let answer = stand.ask(By::Header("type=aad&ver=1.0&sig=a.b.c"), "GET", "/", &[], Value::Null).await.expect(401);
    assert_eq!(answer.substatus(), 5003);
}

#[tokio::test]
async fn a_rotated_key_is_refused_at_once() {
    let stand = Stand::new().await;
    let token = stand.token(json!({ "permissionMode": "All", "resource": "dbs/shop/colls/orders" })).await;
    let key = stand.cosmos.rotate_key().unwrap();
    stand.get("/").await.expect(401);
    stand.ask(By::Header(&token), "GET", "/dbs/shop/colls/orders", &[], Value::Null).await.expect(401);
    let header = signed(key.expose(), "GET", "/", &stand.date());
    stand.ask(By::Header(&header), "GET", "/", &[], Value::Null).await.expect(200);
}

#[tokio::test]
async fn the_record_says_what_was_sent_and_never_the_credential() {
    let stand = Stand::new().await;
    let read = json!({ "permissionMode": "Read", "resource": "dbs/shop/colls/orders", "resourcePartitionKey": ["a"] });
    let token = stand.token(read).await;
    let headers = [partition(r#"["a"]"#), (header::ACTIVITY_ID, "an-id")];
    let answer = stand.ask(By::Header(&token), "GET", "/dbs/shop/colls/orders/docs/1", &headers, Value::Null).await;
    assert_eq!(answer.header(header::ACTIVITY_ID), Some("an-id"));
    stand.ask(By::Nothing, "GET", "/dbs/shop", &[], Value::Null).await.expect(401);
    let recorded = stand.cosmos.recorded();
    let [.., read, refused] = recorded.as_slice() else { panic!("{recorded:?}") };
    assert_eq!((read.authorization, read.status), (Authorization::Resource, 200));
    assert_eq!(read.permission.as_deref(), Some("u0/p"));
    assert_eq!(read.partition_key.as_deref(), Some(r#"["a"]"#));
    assert_eq!((read.resource_type.as_str(), read.activity_id.as_str()), ("docs", "an-id"));
    assert_eq!((refused.authorization, refused.status, refused.substatus), (Authorization::None, 401, Some(5000)));
    let secret = token.split("sig=").nth(1).unwrap();
    assert!(!serde_json::to_string(&recorded).unwrap().contains(secret));
    assert_eq!(stand.cosmos.mints()[&("u0".to_owned(), "p".to_owned())], 1);
}
