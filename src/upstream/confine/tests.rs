use bytes::Bytes;
use http::HeaderName;
use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::{
    access::{Action, Enforcer, IssuerName, Operation, Subject},
    policy::{Permit, Scope},
    secret::Secret,
    upstream::{RangeAddressing, RequestHeaders, Safety},
};

const DOCS: &str = "/dbs/shop/colls/orders/docs";

fn warrant_of(subject: &str, key: Option<&str>, mode: PermissionMode) -> Warrant {
    let subject = Subject { issuer: IssuerName::new("local"), id: subject.into() };
    let container = ContainerName::new("shop", "orders").unwrap();
    let partition_key = key.map(|key| key.parse().unwrap());
    let action = Action::Operation(Operation::Query);
    let permit = Permit::for_test(subject, None, action, Scope { container, partition_key, mode });
    Warrant::for_test(&permit, Enforcer::Stepgate)
}

fn locked(key: &str) -> Warrant {
    warrant_of("w1", Some(key), PermissionMode::All)
}

fn errand(method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Errand<'static> {
    let map: HeaderMap = headers.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap())).collect();
    Errand {
        method,
        path: path.into(),
        headers: RequestHeaders::allow(&map, RangeAddressing::Pass),
        body: Bytes::copy_from_slice(body.as_bytes()),
        safety: Safety::Read,
        session: None,
        activity_id: "request-1",
        deadline: Instant::now() + Duration::from_secs(20),
    }
}

const T1: (&str, &str) = ("x-ms-documentdb-partitionkey", r#"["t1"]"#);
const QUERY: (&str, &str) = ("x-ms-documentdb-isquery", "True");
const PLAN: (&str, &str) = ("x-ms-cosmos-is-query-plan-request", "True");
const BATCH: (&str, &str) = ("x-ms-cosmos-is-batch-request", "True");

#[test]
fn under_a_lock_only_its_partition_passes() {
    let lock = locked(r#"["t1"]"#);
    let item = "/dbs/shop/colls/orders/docs/o-1";
    let sproc = "/dbs/shop/colls/orders/sprocs/s";
    let ask = |method: Method, path: &str, headers: &[(&str, &str)]| check(&errand(method, path, headers, "{}"), &lock);
    for (method, path) in [
        (Method::GET, item),
        (Method::PUT, item),
        (Method::PATCH, item),
        (Method::DELETE, item),
        (Method::POST, DOCS),
        (Method::GET, DOCS),
        (Method::POST, sproc),
    ] {
        assert_eq!(ask(method.clone(), path, &[T1]), Ok(()), "{method} {path}");
        assert_eq!(ask(method.clone(), path, &[]), Err(Outside::NoPartition), "{method} {path}");
        let other = ("x-ms-documentdb-partitionkey", r#"["t2"]"#);
        assert_eq!(ask(method.clone(), path, &[other]), Err(Outside::Partition), "{method} {path}");
        for key in ["[1]", r#"["t1","x","y","z"]"#, "t1", r#"[["t1"]]"#, "[]", "[{}]"] {
            assert!(ask(method.clone(), path, &[("x-ms-documentdb-partitionkey", key)]).is_err(), "{key}");
        }
        for range in RANGE_ADDRESSING {
            assert_eq!(ask(method.clone(), path, &[T1, (range, "0")]), Err(Outside::Range), "{range}");
        }
    }
    assert_eq!(ask(Method::POST, DOCS, &[T1, QUERY]), Ok(()));
    assert_eq!(ask(Method::POST, DOCS, &[QUERY]), Err(Outside::NoPartition), "a query over all partitions");
    assert_eq!(ask(Method::POST, DOCS, &[PLAN, QUERY]), Ok(()), "a plan reads nothing");
    assert_eq!(ask(Method::GET, "/dbs/shop/colls/orders/pkranges", &[]), Ok(()));
    assert_eq!(ask(Method::GET, "/dbs/shop/colls/orders", &[]), Ok(()));
}

#[test]
fn nothing_outside_of_the_container_passes() {
    let all = warrant_of("w1", None, PermissionMode::All);
    for path in [
        "/dbs/shop/colls/orders2/docs",
        "/dbs/shop/colls/other/docs",
        "/dbs/finance/colls/orders/docs",
        "/dbs/shop/colls/orders/docs/a/b",
        "/dbs/shop/colls/orders/triggers",
        "/dbs/shop/colls/orders/",
        "/dbs/shop",
        "/",
        "/offers",
    ] {
        assert_eq!(check(&errand(Method::GET, path, &[], ""), &all), Err(Outside::Container), "{path}");
    }
    assert_eq!(check(&errand(Method::DELETE, "/dbs/shop/colls/orders", &[], ""), &all), Err(Outside::Container));
    assert_eq!(check(&errand(Method::POST, DOCS, &[QUERY], "{}"), &all), Ok(()), "the whole container may be queried");
}

#[test]
fn leave_to_read_is_none_to_write() {
    let reader = warrant_of("w1", Some(r#"["t1"]"#), PermissionMode::Read);
    let ask =
        |method: Method, path: &str, header: (&str, &str)| check(&errand(method, path, &[T1, header], "[]"), &reader);
    let item = "/dbs/shop/colls/orders/docs/o-1";
    assert_eq!(ask(Method::POST, DOCS, QUERY), Ok(()));
    assert_eq!(ask(Method::GET, item, QUERY), Ok(()));
    for (method, path, header) in [
        (Method::POST, DOCS, ("x-ms-documentdb-is-upsert", "True")),
        (Method::POST, DOCS, ("x-ms-documentdb-isquery", "False")),
        (Method::POST, DOCS, BATCH),
        (Method::PUT, item, T1),
        (Method::DELETE, item, T1),
        (Method::POST, "/dbs/shop/colls/orders/sprocs/s", QUERY),
    ] {
        assert_eq!(ask(method, path, header), Err(Outside::Mode), "{path} {header:?}");
    }
}

#[test]
fn a_batch_stays_in_one_partition() {
    let ask = |key: &str| {
        let body = format!(r#"[{{"operationType":"Read","id":"a"}},{{"operationType":"Read","id":"b"{key}}}]"#);
        check(&errand(Method::POST, DOCS, &[T1, BATCH], &body), &locked(r#"["t1"]"#))
    };
    for own in ["", r#","partitionKey":["t1"]"#, r#","partitionKey":"[\"t1\"]""#] {
        assert_eq!(ask(own), Ok(()), "{own}");
    }
    for other in [r#","partitionKey":["t2"]"#, r#","partitionKey":"[\"t2\"]""#, r#","partitionKey":7"#] {
        assert_eq!(ask(other), Err(Outside::Batch { index: 1 }), "{other}");
    }
}

#[tokio::test]
async fn the_outer_part_of_a_key_opens_items_and_no_query() {
    let lock = locked(r#"["t1"]"#);
    let deeper = ("x-ms-documentdb-partitionkey", r#"["t1","l1"]"#);
    assert_eq!(check(&errand(Method::GET, "/dbs/shop/colls/orders/docs/a", &[deeper], ""), &lock), Ok(()));
    assert_eq!(check(&errand(Method::POST, DOCS, &[deeper, QUERY], "{}"), &lock), Err(Outside::Partition));

    let confinement = Confinement::new(Seal::new(None));
    let query = errand(Method::POST, DOCS, &[T1, QUERY], "{}");
    let two_levels = async || Ok::<usize, Outside>(2);
    let refused = confinement.check_depth(&query, &lock, two_levels).await;
    assert_eq!(refused, Err(Outside::Prefix { levels: 1, depth: 2 }));
    let unread = async || Err::<usize, Outside>(Outside::Container);
    let remembered = confinement.check_depth(&query, &lock, unread).await;
    assert_eq!(remembered, Err(Outside::Prefix { levels: 1, depth: 2 }), "it is read once");
    let whole = locked(r#"["t1","l1"]"#);
    assert_eq!(confinement.check_depth(&query, &whole, unread).await, Ok(()));
    let fresh = Confinement::new(Seal::new(None));
    assert_eq!(fresh.check_depth(&query, &lock, unread).await, Err(Outside::Container), "not to know is to refuse");
}

fn handed_out(confinement: &Confinement, warrant: &Warrant, errand: &Errand<'_>) -> String {
    let mut headers =
        HeaderMap::from_iter([("x-ms-continuation".parse::<HeaderName>().unwrap(), "+RID:~1#RT:1".parse().unwrap())]);
    confinement.seal.close(errand, warrant, &mut headers);
    headers["x-ms-continuation"].to_str().unwrap().to_owned()
}

fn taken(
    confinement: &Confinement,
    warrant: &Warrant,
    errand: &Errand<'_>,
    continuation: &str,
) -> Result<String, Outside> {
    let mut errand = errand.clone();
    errand.headers.set("x-ms-continuation".parse().unwrap(), continuation.parse().unwrap());
    let held = confinement.hold(&errand, warrant)?;
    Ok(held.headers.as_map()["x-ms-continuation"].to_str().unwrap().to_owned())
}

#[test]
fn a_continuation_is_good_for_the_request_it_was_handed_out_for() {
    let confinement = Confinement::new(Seal::new(None));
    let warrant = locked(r#"["t1"]"#);
    let page = errand(Method::POST, DOCS, &[T1, QUERY], r#"{"query":"SELECT * FROM c"}"#);
    let sealed = handed_out(&confinement, &warrant, &page);
    assert!(!sealed.contains("RID"), "{sealed}");
    assert_eq!(taken(&confinement, &warrant, &page, &sealed).unwrap(), "+RID:~1#RT:1");

    let foreign = Err(Outside::Continuation(ForeignContinuation));
    for made_up in ["+RID:~1#RT:1", "", "stepgate1..", "stepgate1.AAAA.AAAA", &sealed.replace("stepgate1", "stepgate2")]
    {
        assert_eq!(taken(&confinement, &warrant, &page, made_up), foreign, "{made_up}");
    }
    let other_subject = warrant_of("w2", Some(r#"["t1"]"#), PermissionMode::All);
    assert_eq!(taken(&confinement, &other_subject, &page, &sealed), foreign);
    let other_mode = warrant_of("w1", Some(r#"["t1"]"#), PermissionMode::Read);
    assert_eq!(taken(&confinement, &other_mode, &page, &sealed), foreign);
    let whole = warrant_of("w1", None, PermissionMode::All);
    assert_eq!(taken(&confinement, &whole, &page, &sealed), foreign, "another scope");
    let other_query = errand(Method::POST, DOCS, &[T1, QUERY], r#"{"query":"SELECT * FROM d"}"#);
    assert_eq!(taken(&confinement, &warrant, &other_query, &sealed), foreign);
    let feed = errand(Method::GET, DOCS, &[T1], "");
    assert_eq!(taken(&confinement, &warrant, &feed, &sealed), foreign, "another kind of request");

    let other_process = Confinement::new(Seal::new(None));
    assert_eq!(taken(&other_process, &warrant, &page, &sealed), foreign);
    let secret = Secret::new("the same for the whole fleet of gateways".into());
    let (one, two) = (Confinement::new(Seal::new(Some(&secret))), Confinement::new(Seal::new(Some(&secret))));
    assert!(taken(&two, &warrant, &page, &handed_out(&one, &warrant, &page)).is_ok());
}

#[test]
fn a_change_feed_continues_from_its_own_etag_or_from_now() {
    let confinement = Confinement::new(Seal::new(None));
    let warrant = locked(r#"["t1"]"#);
    let feed =
        |more: &[(&str, &str)]| errand(Method::GET, DOCS, &[&[T1, ("a-im", "Incremental feed")], more].concat(), "");
    let mut answer = HeaderMap::from_iter([(http::header::ETAG, "\"42\"".parse().unwrap())]);
    confinement.seal.close(&feed(&[]), &warrant, &mut answer);
    let sealed = answer["etag"].to_str().unwrap();
    assert!(sealed.starts_with('"') && sealed.ends_with('"'), "{sealed}");
    let next = |etag: &str| {
        let held = confinement.hold(&feed(&[("if-none-match", etag)]), &warrant)?;
        Ok::<_, Outside>(held.headers.as_map()["if-none-match"].to_str().unwrap().to_owned())
    };
    assert_eq!(next(sealed).unwrap(), "\"42\"");
    assert_eq!(next("*").unwrap(), "*");
    assert_eq!(next("\"42\""), Err(Outside::Continuation(ForeignContinuation)));
    let mut read = HeaderMap::from_iter([(http::header::ETAG, "\"42\"".parse().unwrap())]);
    confinement.seal.close(&errand(Method::GET, DOCS, &[T1], ""), &warrant, &mut read);
    assert_eq!(read["etag"], "\"42\"", "the etag of anything else is the caller's to compare");
}

proptest! {
    #[test]
    fn no_changed_byte_of_a_continuation_passes(at in 0_usize..60, byte in 0x21_u8..0x7f) {
        let confinement = Confinement::new(Seal::new(None));
        let warrant = locked(r#"["t1"]"#);
        let page = errand(Method::POST, DOCS, &[T1, QUERY], "{}");
        let sealed = handed_out(&confinement, &warrant, &page);
        let mut changed = sealed.clone().into_bytes();
        let at = at % changed.len();
        changed[at] = byte;
        let changed = String::from_utf8(changed).unwrap();
        // Quotes around a continuation are taken off, so a changed end may only have lost its last character to one.
        if changed != sealed {
            prop_assert!(taken(&confinement, &warrant, &page, &changed).is_err(), "{changed}");
        }
    }
}
