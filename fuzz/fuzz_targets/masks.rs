//! Masks: queries and patches of any bytes are let through or refused, answers of any bytes are covered or none, and nothing
//! panics. What is masked is in no answer; and a query that names a masked member by its name alone is not let through.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stepgate::{
    access::{Action, Operation},
    mask::{Mask, Pointer, Show},
};

/// No text has this by chance.
const CANARY: &str = "canary-4111";

fuzz_target!(|parts: (String, Vec<u8>, Vec<u8>, u8)| {
    let (text, body, answer, kind) = parts;
    let pointers = ["/card/number", "/lines/*/price", "/deep/a/b/c"];
    let pointers = pointers.iter().map(|text| Pointer::parse(text, Show::Nothing).expect("a pointer"));
    let mask = Mask::new(pointers).expect("a mask");

    // Whatever stands before it, a masked member by its name is not let through.
    let query = serde_json::json!({ "query": format!("SELECT {text}, c.card.number FROM c") }).to_string();
    assert!(mask.veil(Action::Operation(Operation::Query), false, query.as_bytes()).is_err(), "{text}");

    for action in [Operation::ItemsPatch, Operation::Batch, Operation::Query, Operation::Feed, Operation::ItemsRead] {
        if let Ok(veil) = mask.veil(Action::Operation(action), kind & 1 == 1, &body) {
            let _ = veil.cover(&answer);
        }
    }

    let Ok(value) = serde_json::from_slice::<serde_json::Value>(&answer) else { return };
    let item = serde_json::json!({ "more": value, "card": { "number": CANARY }, "lines": [[{ "price": CANARY }]] });
    let veil = mask.veil(Action::Operation(Operation::ItemsRead), false, b"").expect("a read");
    if let Ok(covered) = veil.cover(item.to_string().as_bytes()) {
        assert!(serde_json::from_slice::<serde_json::Value>(&covered.body).is_ok());
        let shown = String::from_utf8_lossy(&covered.body).matches(CANARY).count();
        assert_eq!(shown, answer_count(&item["more"]), "{item}");
    }
});

/// How often the canary is in what is not masked.
fn answer_count(value: &serde_json::Value) -> usize {
    value.to_string().matches(CANARY).count()
}
