use super::*;

fn headers(list: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    headers
}

/// `None` for the account document.
fn ask(method: &str, uri: &str, list: &[(&str, &str)], body: &str) -> Result<Option<Question>, Rejection> {
    let headers = headers(list);
    match route(&method.parse().unwrap(), &uri.parse().unwrap(), &headers)? {
        Route::Account | Route::Preflight => Ok(None),
        Route::Container(route) => route.with_body(&headers, Bytes::copy_from_slice(body.as_bytes())).map(Some),
    }
}

fn container(method: &str, uri: &str, list: &[(&str, &str)], body: &str) -> Question {
    match ask(method, uri, list, body) {
        Ok(Some(question)) => question,
        other => panic!("{method} {uri}: {other:?}"),
    }
}

const DOCS: &str = "/dbs/shop/colls/orders/docs";
const ITEM: &str = "/dbs/shop/colls/orders/docs/o1";
const QUERY: (&str, &str) = ("x-ms-documentdb-isquery", "True");
const UPSERT: (&str, &str) = ("x-ms-documentdb-is-upsert", "true");
const BATCH: (&str, &str) = ("x-ms-cosmos-is-batch-request", "True");
const PLAN: (&str, &str) = ("x-ms-cosmos-is-query-plan-request", "True");
const QUERY_CONTENT: (&str, &str) = ("content-type", "application/query+json");
const SELECT: &str = r#"{"query":"SELECT * FROM c"}"#;

#[test]
fn every_operation_of_the_table_is_recognised() {
    let item = r#"{"id":"o1","tenant":"t1"}"#;
    let patch = r#"[{"op":"set","path":"/v","value":1}]"#;
    for (method, uri, list, body, action) in [
        ("POST", DOCS, vec![], item, "items/create"),
        ("POST", DOCS, vec![UPSERT], item, "items/upsert"),
        ("GET", ITEM, vec![], "", "items/read"),
        ("PUT", ITEM, vec![], item, "items/replace"),
        ("PATCH", ITEM, vec![], patch, "items/patch"),
        ("DELETE", ITEM, vec![], "", "items/delete"),
        ("POST", DOCS, vec![QUERY, QUERY_CONTENT], SELECT, "query"),
        ("POST", DOCS, vec![QUERY, ("content-type", "application/json; charset=UTF-8")], SELECT, "query"),
        ("POST", DOCS, vec![QUERY, PLAN, QUERY_CONTENT], SELECT, "query-plan"),
        ("GET", DOCS, vec![], "", "feed"),
        ("GET", DOCS, vec![("a-im", "Incremental Feed")], "", "feed"),
        ("POST", DOCS, vec![BATCH], r#"[{"operationType":"Delete","id":"o1"}]"#, "batch"),
        ("POST", "/dbs/shop/colls/orders/sprocs/total", vec![], "[1]", "execute"),
        ("GET", "/dbs/shop/colls/orders", vec![], "", "metadata"),
        ("GET", "/dbs/shop/colls/orders/pkranges", vec![], "", "metadata"),
    ] {
        let question = container(method, uri, &list, body);
        assert_eq!(question.action.as_str(), action, "{method} {uri}");
        assert_eq!(question.path, uri);
        let slash = container(method, &format!("{uri}/"), &list, body);
        assert_eq!(slash, question, "a trailing slash changes nothing");
    }
    assert_eq!(ask("GET", "/", &[], ""), Ok(None));
}

#[test]
fn what_is_no_operation_is_unknown() {
    for (method, uri) in [
        ("GET", "/dbs"),
        ("GET", "/dbs/shop"),
        ("POST", "/dbs/shop/colls"),
        ("DELETE", "/dbs/shop/colls/orders"),
        ("POST", "/dbs/shop/users"),
        ("GET", "/dbs/shop/users/u/permissions/p"),
        ("POST", "/dbs/shop/colls/orders/sprocs"),
        ("POST", "/dbs/shop/colls/orders/triggers"),
        ("GET", "/DBS/shop/colls/orders"),
        ("POST", ITEM),
        ("GET", "/offers"),
        ("POST", "/"),
    ] {
        let rejection = ask(method, uri, &[], "").unwrap_err();
        assert!(matches!(rejection, Rejection::UnknownOperation { .. }), "{method} {uri}: {rejection:?}");
    }
}

#[test]
fn paths_are_decoded_once_and_rebuilt() {
    let question = container("GET", "/dbs/shop/colls/orders/docs/caf%C3%A9%20(1)", &[], "");
    assert_eq!(question.item, ItemId::new("caf\u{e9} (1)").ok());
    assert_eq!(question.path, "/dbs/shop/colls/orders/docs/caf%C3%A9%20%281%29");
}

#[test]
fn no_path_can_leave_its_container() {
    for uri in [
        "/dbs/shop/colls/orders/docs/..",
        "/dbs/shop/colls/orders/docs/%2e%2e",
        "/dbs/shop/colls/orders/docs/a%2Fb",
        "/dbs/shop/colls/orders/docs/a%2fb",
        "/dbs/shop/colls/orders/docs/a%5Cb",
        "/dbs/shop/colls/orders/docs/a%00b",
        "/dbs/shop/colls/orders/docs/%zz",
        "/dbs/shop/colls/orders/docs/%c3",
        "/dbs/shop/colls//docs/o1",
        "//dbs/shop/colls/orders/docs/o1",
        "/dbs/shop/colls/orders/docs//",
        "/dbs/ruJjAA==/colls/orders/docs/o1",
        "/dbs/shop/colls/ruJjAM9UnAA=/docs/o1",
    ] {
        let rejection = ask("GET", uri, &[], "").unwrap_err();
        assert!(matches!(rejection, Rejection::Name(_) | Rejection::Path), "{uri}: {rejection:?}");
    }
    let twice = container("GET", "/dbs/shop/colls/orders/docs/a%252Fb", &[], "");
    assert_eq!((twice.item.unwrap().as_str(), twice.path.as_str()), ("a%2Fb", "/dbs/shop/colls/orders/docs/a%252Fb"));
}

#[test]
fn two_operations_at_once_are_refused() {
    for list in [
        vec![UPSERT, QUERY, QUERY_CONTENT],
        vec![QUERY, BATCH],
        vec![UPSERT, BATCH],
        vec![UPSERT, UPSERT],
        vec![("x-ms-documentdb-is-upsert", "yes")],
        vec![QUERY_CONTENT],
        vec![("x-http-method", "DELETE")],
        vec![("x-ms-documentdb-pre-trigger-include", "t")],
        vec![BATCH, ("x-ms-cosmos-batch-atomic", "False")],
        vec![BATCH, ("x-ms-cosmos-batch-continue-on-error", "true")],
    ] {
        assert!(ask("POST", DOCS, &list, SELECT).is_err(), "{list:?}");
    }
    assert!(ask("GET", ITEM, &[QUERY], "").is_err());
    assert!(ask("PUT", ITEM, &[UPSERT], "{}").is_err());
}

#[test]
fn the_partition_key_has_one_meaning() {
    let key = |uri: &str, list: &[(&str, &str)]| {
        ask("GET", uri, list, "").map(|question| question.unwrap().partition_key.map(|key| key.to_string()))
    };
    const HEADER: &str = "x-ms-documentdb-partitionkey";
    let with = |parameter: &str| format!("{ITEM}?partitionKey={parameter}");
    assert_eq!(key(ITEM, &[]), Ok(None));
    assert_eq!(key(ITEM, &[(HEADER, r#"["t1"]"#)]), Ok(Some(r#"["t1"]"#.into())));
    assert_eq!(key(&with("t1"), &[]), Ok(Some(r#"["t1"]"#.into())));
    assert_eq!(key(&with("123"), &[]), Ok(Some(r#"["123"]"#.into())), "a bare value is text");
    assert_eq!(key(&with("%5B123%5D"), &[]), Ok(Some("[123]".into())));
    assert_eq!(key(&with("t1"), &[(HEADER, r#"["t1"]"#)]), Ok(Some(r#"["t1"]"#.into())));
    assert_eq!(key(&with("t2"), &[(HEADER, r#"["t1"]"#)]), Err(Rejection::TwoPartitionKeys));
    assert_eq!(key(&with("t1&partitionKey=t1"), &[]), Err(Rejection::TwoPartitionKeys));
    for bad in ["t1", "[]", "[[1]]"] {
        assert!(key(ITEM, &[(HEADER, bad)]).is_err(), "{bad}");
    }
    assert!(key(ITEM, &[(HEADER, "[1]"), (HEADER, "[1]")]).is_err());
}

#[test]
fn bodies_are_read_strictly() {
    let create = |body: &str| ask("POST", DOCS, &[], body);
    assert_eq!(container("POST", DOCS, &[], r#"{"a":{"id":2},"id":"o1"}"#).item, ItemId::new("o1").ok());
    for bad in ["", "[]", r#"{"id":"a","id":"b"}"#, r#"{"id":1}"#, r#"{"id":"a/b"}"#, r#"{"id":"a"} x"#, "\u{80}"] {
        assert!(create(bad).is_err(), "{bad}");
    }
    let patch = |body: &str| ask("PATCH", ITEM, &[], body);
    assert!(patch(r#"{"condition":"from c where c.v = 1","operations":[]}"#).is_ok());
    for bad in ["{}", r#"{"operations":[],"operations":[]}"#, r#"{"operations":[],"x":1}"#] {
        assert!(patch(bad).is_err(), "{bad}");
    }
    let query = |body: &str| ask("POST", DOCS, &[QUERY, QUERY_CONTENT], body);
    assert!(query(r#"{"query":"SELECT 1","parameters":[{"name":"@a","value":1}]}"#).is_ok());
    for bad in ["", "{}", r#"{"query":1}"#, r#"{"query":"a","query":"b"}"#] {
        assert!(query(bad).is_err(), "{bad}");
    }
    assert!(ask("POST", DOCS, &[QUERY, ("content-type", "text/plain")], SELECT).is_err());
}

#[test]
fn each_operation_of_a_batch_is_read() {
    let body = r#"[{"operationType":"Create","resourceBody":{"id":"a"}},
        {"operationType":"Patch","id":"b","resourceBody":{"operations":[]},"partitionKey":"[\"t2\"]"},
        {"operationType":"Read","id":"c","partitionKey":["t1"]}]"#;
    let batch = container("POST", DOCS, &[BATCH], body).batch;
    let read: Vec<_> = batch
        .iter()
        .map(|o| {
            (o.operation.as_str(), o.item.as_ref().map(ItemId::as_str), o.partition_key.as_ref().map(|k| k.to_string()))
        })
        .collect();
    assert_eq!(
        read,
        [
            ("items/create", Some("a"), None),
            ("items/patch", Some("b"), Some(r#"["t2"]"#.into())),
            ("items/read", Some("c"), Some(r#"["t1"]"#.into())),
        ]
    );
    for bad in [
        "[]",
        r#"[{"operationType":"Drop","id":"a"}]"#,
        r#"[{"operationType":"Delete"}]"#,
        r#"[{"operationType":"Read","operationType":"Delete","id":"a"}]"#,
        r#"[{"operationType":"Create","resourceBody":{"id":"a","id":"b"}}]"#,
        r#"[{"operationType":"Create","id":"a","resourceBody":{"id":"b"}}]"#,
        r#"[{"operationType":"Read","id":"a","unknown":1}]"#,
    ] {
        assert!(ask("POST", DOCS, &[BATCH], bad).is_err(), "{bad}");
    }
}
