//! Random items under random masks; attacks by query, as a table that a person can read; and patches.

use std::{env, fmt::Write as _, fs, path::Path};

use serde_json::{Map, Value, json};

use super::*;
use crate::access::Operation;

/// Items under a mask: 100,000 where somebody wants to know, fewer each time.
const ITEMS: &str = "STEPGATE_MASKED_ITEMS";

fn mask(pointers: &[&str]) -> Mask {
    let pointer = |text: &&str| match text.strip_prefix("partial ") {
        Some(text) => Pointer::parse(text, Show::End).unwrap(),
        None => Pointer::parse(text, Show::Nothing).unwrap(),
    };
    Mask::new(pointers.iter().map(pointer)).unwrap()
}

fn covered(mask: &Mask, action: Operation, body: &Value) -> Value {
    let veil = mask.veil(Action::Operation(action), false, b"").unwrap();
    serde_json::from_slice(&veil.cover(body.to_string().as_bytes()).unwrap().body).unwrap()
}

fn given(name: &str, otherwise: u64) -> u64 {
    env::var_os(name).map_or(otherwise, |text| text.to_str().unwrap().parse().unwrap())
}

/// A generator that needs no crate: splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % sides as u64).unwrap()
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }
}

const NAMES: [&str; 9] = ["a", "b", "card", "number", "lines", "0", "*", "x/y", "~"];

/// A value whose leaves are all different and known by their text.
fn value(dice: &mut Dice, depth: usize, leaves: &mut usize) -> Value {
    let kind = if depth == 0 { 2 + dice.roll(2) } else { dice.roll(4) };
    match kind {
        0 => {
            let members = (0..=dice.roll(4)).map(|_| (dice.one(&NAMES).to_owned(), value(dice, depth - 1, leaves)));
            Value::Object(members.collect())
        }
        1 => (0..=dice.roll(3)).map(|_| value(dice, depth - 1, leaves)).collect(),
        2 => {
            *leaves += 1;
            // Of long texts a mask may show the last four characters: those are alike in all.
            match dice.roll(3) {
                0 => format!("s{leaves}é{}", "\u{1f600}\"\\".repeat(dice.roll(2))).into(),
                _ => format!("s{leaves}é<long text> tail").into(),
            }
        }
        _ => {
            *leaves += 1;
            json!(7_000_000_000_u64 + *leaves as u64)
        }
    }
}

fn pointers(dice: &mut Dice) -> Vec<String> {
    let pointer = |dice: &mut Dice| {
        let names: Vec<String> =
            (0..=dice.roll(3)).map(|_| dice.one(&NAMES).replace('~', "~0").replace('/', "~1")).collect();
        format!("{}/{}", dice.one(&["", "", "partial "]), names.join("/"))
    };
    let all = (0..=dice.roll(3)).map(|_| pointer(dice));
    all.filter(|text| !text.ends_with("/*") || text.matches('/').count() > 1).collect()
}

/// Every leaf with the way to it: names of members, `None` for elements.
fn leaves<'v>(value: &'v Value, way: &mut Vec<Option<&'v str>>, found: &mut Vec<(Vec<Option<&'v str>>, &'v Value)>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                way.push(Some(name));
                leaves(member, way, found);
                way.pop();
            }
        }
        Value::Array(elements) => {
            for element in elements {
                way.push(None);
                leaves(element, way, found);
                way.pop();
            }
        }
        leaf => found.push((way.clone(), leaf)),
    }
}

/// Whether a pointer leads to what is on the way: the rule again, in the plainest form.
fn leads(names: &[String], way: &[Option<&str>]) -> bool {
    let Some((name, names_after)) = names.split_first() else { return true };
    let Some((step, way_after)) = way.split_first() else { return false };
    match step {
        Some(member) => (name == "*" || name == member) && leads(names_after, way_after),
        None => {
            let is_position = name == "*" || name.chars().all(|c| c.is_ascii_digit());
            leads(if is_position { names_after } else { names }, way_after)
        }
    }
}

fn is_masked(pointers: &[String], way: &[Option<&str>]) -> bool {
    pointers.iter().any(|pointer| {
        let names = pointer.trim_start_matches("partial ").split('/').skip(1);
        let names: Vec<String> = names.map(|name| name.replace("~1", "/").replace("~0", "~")).collect();
        leads(&names, way)
    })
}

/// What of a leaf's text is its own.
fn mark(leaf: &Value) -> String {
    match leaf {
        Value::String(text) => text.split('é').next().unwrap().to_owned() + "é",
        other => other.to_string(),
    }
}

#[test]
fn no_masked_leaf_is_in_any_answer_and_every_other_is() {
    let count = usize::try_from(given(ITEMS, 3_000)).unwrap();
    let mut dice = Dice(given("STEPGATE_SEED", 26));
    let (mut hidden, mut shown) = (0_u64, 0_u64);
    for round in 0..count {
        let mut number = round * 1000;
        let mut item = Map::new();
        for name in NAMES.iter().take(3 + dice.roll(NAMES.len() - 3)) {
            item.insert((*name).to_owned(), value(&mut dice, 4, &mut number));
        }
        let item = Value::Object(item);
        let texts = pointers(&mut dice);
        if texts.is_empty() {
            continue;
        }
        let mask = mask(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let (operation, change_feed, answer) = match dice.roll(5) {
            0 => (Operation::ItemsRead, false, item.clone()),
            1 => (Operation::ItemsCreate, false, item.clone()),
            2 => (Operation::Feed, false, json!({ "_rid": "r", "Documents": [item.clone(), {}], "_count": 2 })),
            3 => (
                Operation::Feed,
                true,
                json!({ "Documents": [{ "current": item.clone(), "previous": null, "metadata": {} }] }),
            ),
            _ => (
                Operation::Batch,
                false,
                json!([{ "statusCode": 200, "eTag": "e", "resourceBody": item.clone() }, { "statusCode": 204 }]),
            ),
        };
        let veil = mask.veil(Action::Operation(operation), change_feed, b"[]").unwrap();
        let told = veil.cover(answer.to_string().as_bytes()).unwrap();
        let text = String::from_utf8(told.body).unwrap();
        let _: Value = serde_json::from_str(&text).unwrap();
        let mut found = Vec::new();
        leaves(&item, &mut Vec::new(), &mut found);
        let mut any = false;
        for (way, leaf) in found {
            let is_hidden = is_masked(&texts, &way);
            // What a change feed wraps is looked for in the row itself too, and there a pointer may meet the wrapping.
            let may_be_more = change_feed && texts.iter().any(|text| text.contains('*'));
            assert!(!is_hidden || !text.contains(&mark(leaf)), "{texts:?} shows {leaf} of {item} in {text}");
            assert!(
                is_hidden || may_be_more || text.contains(&mark(leaf)),
                "{texts:?} hides {leaf} of {item} in {text}"
            );
            any |= is_hidden;
            (hidden, shown) = if is_hidden { (hidden + 1, shown) } else { (hidden, shown + 1) };
        }
        assert!(!any || !told.masked.is_empty(), "what was masked is told");
    }
    println!("{count} items: {hidden} leaves masked, {shown} shown");
    assert!(hidden > 100 && shown > 100);
}

#[test]
fn what_is_masked_is_covered_and_the_rest_is_as_it_was() {
    let text = r#"{"id":"1","n":1.10,"big":123456789012345678901,"e":1e2,"card":{"number":"4111 1111 1111 1111","brand":"V"},"card":{"number":null},"lines":[{"price":5,"of":[[{"price":6}]]},7],"iban":"DE89370400440532013000","pin":"1234567","_etag":"\"1\""}"#;
    let mask = mask(&["/card/number", "/lines/price", "/lines/0/of/*/price", "partial /iban", "partial /pin", "/none"]);
    let veil = mask.veil(Action::Operation(Operation::ItemsRead), false, b"").unwrap();
    let told = veil.cover(text.as_bytes()).unwrap();
    assert_eq!(
        String::from_utf8(told.body).unwrap(),
        r#"{"id":"1","n":1.10,"big":123456789012345678901,"e":1e2,"card":{"number":"****","brand":"V"},"card":{"number":"****"},"lines":[{"price":"****","of":[[{"price":"****"}]]},7],"iban":"****3000","pin":"****","_etag":"\"1\""}"#
    );
    let masked: Vec<_> = told.masked.iter().map(ToString::to_string).collect();
    assert_eq!(masked, ["/card/number", "/iban", "/lines/0/of/*/price", "/lines/price", "/pin"]);
}

#[test]
fn an_answer_of_another_form_is_none() {
    let mask = mask(&["/a"]);
    let cover = |operation, body: &str| {
        let asked: &[u8] = match operation {
            Operation::Query => br#"{"query":"SELECT c AS it, c.b FROM c"}"#,
            _ => b"[]",
        };
        mask.veil(Action::Operation(operation), false, asked).unwrap().cover(body.as_bytes())
    };
    for body in ["[]", "7", "\"text\"", "{", "null", r#"{"a":1} x"#] {
        assert_eq!(cover(Operation::ItemsRead, body), Err(Unreadable), "{body}");
    }
    for body in ["{}", r#"{"Documents":{}}"#, r#"{"Documents":["item"]}"#, "[]"] {
        assert_eq!(cover(Operation::Feed, body), Err(Unreadable), "{body}");
    }
    assert_eq!(cover(Operation::Query, r#"{"Documents":[{"other":{"a":1}}]}"#), Err(Unreadable), "an item elsewhere");
    assert!(cover(Operation::Query, r#"{"Documents":[{"it":{"a":1},"b":2}]}"#).is_ok());
    assert_eq!(cover(Operation::ItemsPatch, "").unwrap_or_else(|_| panic!()).body, b"");
    let deep = format!("{{\"b\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000));
    let of_all = self::mask(&["/b/c"]);
    let veil = of_all.veil(Action::Operation(Operation::ItemsRead), false, b"").unwrap();
    assert_eq!(veil.cover(deep.as_bytes()), Err(Unreadable), "no stack is that deep");
}

#[test]
fn the_end_of_a_text_is_shown_by_characters() {
    let mask = mask(&["partial /t"]);
    let end = |text: &str| covered(&mask, Operation::ItemsRead, &json!({ "t": text }))["t"].clone();
    assert_eq!(end("abcdäöüä"), "****äöüä");
    assert_eq!((end("1234567"), end("")), (json!("****"), json!("****")));
    let number = covered(&mask, Operation::ItemsRead, &json!({ "t": 4_111_111_111_111_111_u64 }));
    assert_eq!(number, json!({ "t": "****" }), "a number has no end to show");
}

/// What is asked of a container whose items have these masked.
const MASKED: [&str; 3] = ["/card/number", "partial /customer/email", "/lines/*/price"];

/// Queries that are let through, and attacks.
const QUERIES: &str = include_str!("../../tests/mask/queries.txt");

#[test]
fn attacks_by_query_are_refused_for_the_reason_in_the_table() {
    let mask = mask(&MASKED);
    let mut table = format!("masked: {}\n", MASKED.join(", "));
    for query in QUERIES.lines().filter(|line| !line.is_empty()) {
        if let Some(heading) = query.strip_prefix("# ") {
            let _ = write!(table, "\n# {heading}\n");
            continue;
        }
        let body = json!({ "query": query, "parameters": [] }).to_string();
        let verdict = match mask.veil(Action::Operation(Operation::Query), false, body.as_bytes()) {
            Ok(_) => "let through".to_owned(),
            Err(exposed) => format!("refused: {exposed}"),
        };
        let _ = write!(table, "\n{query}\n    {verdict}\n");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/mask-attacks.txt");
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &table).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == table, "run the tests with UPDATE_GOLDEN=1 and read the diff; now:\n{table}");
    let mut headings = table.split("\n# ").skip(1);
    let good = headings.next().unwrap();
    assert!(!good.contains("\n    refused"), "{good}");
    assert!(headings.all(|attacks| !attacks.contains("\n    let through")));
}

#[test]
fn a_query_has_nothing_beside_its_text_and_parameters() {
    let mask = mask(&MASKED);
    let check = |action, body: &str| mask.veil(action, false, body.as_bytes()).map(drop);
    let query = Action::Operation(Operation::Query);
    for action in [query, Action::QueryPlan] {
        check(action, r#"{"query":"SELECT * FROM c"}"#).unwrap();
        check(action, r#"{"query":"SELECT * FROM c","parameters":[{"name":"@a","value":1}]}"#).unwrap();
        assert!(check(action, r#"{"query":"SELECT c.card FROM c"}"#).is_err());
        assert!(matches!(check(action, r#"{"query":"SELECT * FROM c","other":1}"#), Err(Exposed::Unread(_))));
        assert!(matches!(
            check(action, r#"{"query":"SELECT 1","query":"SELECT c.card FROM c"}"#),
            Err(Exposed::Unread(_))
        ));
        assert!(check(action, "SELECT * FROM c").is_err());
    }
}

#[test]
fn a_patch_touches_nothing_that_is_masked() {
    let mask = mask(&MASKED);
    let check = |body: &str| mask.veil(Action::Operation(Operation::ItemsPatch), false, body.as_bytes()).map(drop);
    for good in [
        r#"{"operations":[{"op":"set","path":"/status","value":"open"}]}"#,
        r#"[{"op":"incr","path":"/card/uses","value":1},{"op":"move","from":"/a","path":"/b"}]"#,
        r#"{"condition":"FROM c WHERE c.status = 'open' AND c.card.brand != 'V'","operations":[]}"#,
        r#"{"condition":"from o where o.n > 1","operations":[{"op":"remove","path":"/customer/name"}]}"#,
    ] {
        assert_eq!(check(good), Ok(()), "{good}");
    }
    for bad in [
        r#"[{"op":"copy","from":"/card/number","path":"/note"}]"#,
        r#"[{"op":"move","from":"/card","path":"/note"}]"#,
        r#"[{"op":"move","from":"/lines/0/price","path":"/note"}]"#,
        r#"[{"op":"copy","from":"/lines/-","path":"/note"}]"#,
        r#"[{"op":"copy","from":"/lines","path":"/note"}]"#,
        r#"[{"op":"copy","from":"","path":"/note"}]"#,
        r#"[{"op":"copy","from":"/customer/email/0","path":"/note"}]"#,
        r#"[{"op":"set","path":"/card/number","value":"1"}]"#,
        r#"[{"op":"set","path":"/card","value":{}}]"#,
        r#"[{"op":"incr","path":"/card/number","value":0}]"#,
        r#"[{"op":"remove","path":"/customer/email"}]"#,
        r#"[{"op":"move","from":"/note","path":"/card/number"}]"#,
        r#"[{"op":"add","path":"/lines/-","value":{}}]"#,
        r#"[{"op":"set","path":"/note","value":1,"path":"/card"}]"#,
        r#"[{"op":"set","path":"/note","value":1,"other":1}]"#,
        r#"{"condition":"FROM c WHERE c.card.number = '1'","operations":[]}"#,
        r#"{"condition":"FROM c WHERE STARTSWITH(c.customer.email, 'a')","operations":[]}"#,
        r#"{"condition":"FROM c WHERE EXISTS(SELECT VALUE l FROM l IN c.lines WHERE l.price > 1)","operations":[]}"#,
        r#"{"condition":"FROM c WHERE c[@p] = 1","operations":[]}"#,
        r#"{"condition":"","operations":[]}"#,
        r#"{"operations":[],"other":1}"#,
    ] {
        assert!(check(bad).is_err(), "{bad}");
    }
    let batch = |patch: &str| {
        let body = format!(
            r#"[{{"operationType":"Create","resourceBody":{{"id":"1","card":{{"number":1}}}}}},{{"operationType":"Patch","id":"2","resourceBody":{patch}}}]"#
        );
        mask.veil(Action::Operation(Operation::Batch), false, body.as_bytes()).map(drop)
    };
    assert_eq!(batch(r#"{"operations":[{"op":"set","path":"/a","value":1}]}"#), Ok(()));
    assert!(batch(r#"{"operations":[{"op":"copy","from":"/card/number","path":"/a"}]}"#).is_err());
    assert!(batch(r#"{"condition":"FROM c WHERE c.card.number = 1","operations":[]}"#).is_err());
}
