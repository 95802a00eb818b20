//! The policy files as written. Descriptions here become the committed JSON Schema.

use std::{collections::BTreeMap, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor, value::SeqAccessDeserializer},
};
use serde_json::Value;

use crate::access::{Assurance, IssuerName, Operation};

/// One policy file of stepgate. A policy is a directory of them, read as one: a role of one file may be bound in another.
#[derive(Deserialize, JsonSchema, Default, Debug)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "stepgate policy")]
pub(super) struct Document {
    /// What may be done, under a name that bindings refer to. A role's name stands once in the whole directory.
    pub(super) roles: BTreeMap<String, Role>,
    /// Who holds which role.
    pub(super) bindings: Vec<Binding>,
    /// What is refused, whatever is granted.
    pub(super) deny: Vec<Deny>,
}

/// A named list of grants.
#[derive(Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Role {
    /// For the reader: who holds this role, and why.
    #[serde(default)]
    #[allow(dead_code, reason = "written for people")]
    pub(super) description: Option<String>,
    /// Other roles, by name, whose grants this one has too.
    #[serde(default)]
    pub(super) include: Vec<String>,
    /// What the role allows. May be left out where `include` says it all.
    #[serde(default)]
    pub(super) grants: Vec<Grant>,
}

/// Operations on a container, or on one partition of it.
#[derive(Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Grant {
    /// For the reader: why.
    #[serde(default)]
    #[allow(dead_code, reason = "written for people")]
    pub(super) description: Option<String>,
    /// `database/container`; `*` is allowed in either and does not cross `/`.
    pub(super) container: String,
    /// The partition the grant is locked to, one entry for each component of the partition key, outermost first: a literal
    /// string, number, boolean or null, or `"{claims.NAME}"` for the caller's own claim. Leave it out for the whole container.
    #[serde(default)]
    #[schemars(schema_with = "partition_key")]
    pub(super) partition_key: Option<Vec<Value>>,
    /// What is allowed.
    #[schemars(schema_with = "operations")]
    pub(super) operations: Vec<String>,
    /// `on`: a write under this grant is done once, however often it is sent with the same key (the header `idempotency-key`, else
    /// execution, state, entered and item of the context). Stored procedures run outside of it. Default `off`.
    #[serde(default)]
    pub(super) idempotency: Idempotency,
    /// What of an item is covered in every answer under this grant: JSON pointers, each by itself or under `redact` (nothing of it
    /// is shown) or `partial` (the last four characters of a text of at least eight). Through an array a pointer leads to every
    /// element. Under a mask whole items are not written, and queries and patches that could tell of what is masked are refused.
    #[serde(default)]
    #[schemars(schema_with = "mask")]
    pub(super) mask: Option<Vec<Value>>,
}

/// Whether a write is done once, however often it is sent.
#[derive(Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema, Debug)]
#[serde(rename_all = "lowercase")]
pub(super) enum Idempotency {
    /// Once.
    On,
    /// As often as it is sent.
    #[default]
    Off,
}

/// A role given to workloads.
#[derive(Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Binding {
    /// For the reader: why.
    #[serde(default)]
    #[allow(dead_code, reason = "written for people")]
    pub(super) description: Option<String>,
    /// The role's name.
    pub(super) role: String,
    /// `true` for a copilot or another program that decides by itself what it asks for: of the role it gets what reads
    /// (`items/read`, `query`, `feed`), and of what writes only the operations that a grant names by their own word, not those of
    /// `items/*` or `*`. Unless `limits` says otherwise, it gets 100 rows at once and 10,000 request units an hour.
    #[serde(default)]
    pub(super) agent: bool,
    /// Who holds it: any workload that one of these entries describes.
    #[schemars(length(min = 1))]
    pub(super) workloads: Vec<Workload>,
    /// How much all of them together may ask for; beyond it they are told to come back later (429).
    #[serde(default)]
    pub(super) limits: Option<Limits>,
}

/// How much all callers of a binding may ask for, together. What is left out is not limited.
#[derive(Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    /// Requests in a second; as many may come at once.
    #[serde(default)]
    #[schemars(schema_with = "amount")]
    pub(super) requests_per_second: Option<f64>,
    /// Request units in a second, as Cosmos charges them. A request that costs more is let through, and the next one waits until
    /// it is paid for.
    #[serde(default)]
    #[schemars(schema_with = "amount")]
    pub(super) request_units_per_second: Option<f64>,
    /// Request units in an hour. They come back evenly, and what one request costs too much is paid for as those of a second are.
    #[serde(default)]
    #[schemars(schema_with = "amount")]
    pub(super) request_units_per_hour: Option<f64>,
    /// Requests in flight.
    #[serde(default)]
    #[schemars(schema_with = "amount")]
    pub(super) concurrency: Option<f64>,
    /// Rows in one answer to a query or feed; the rest comes with its continuation.
    #[serde(default)]
    #[schemars(schema_with = "amount")]
    pub(super) rows: Option<f64>,
    /// When something may be asked for at all.
    #[serde(default)]
    pub(super) hours: Option<Hours>,
}

/// A part of the day, in UTC.
#[derive(Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Hours {
    /// From when: `08:00`.
    #[schemars(regex(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub(super) from: String,
    /// Until when, later on the same day: `18:00`, or `24:00` for its end.
    #[schemars(regex(pattern = "^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"))]
    pub(super) until: String,
    /// On which days; every day unless written.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub(super) days: Option<Vec<Day>>,
}

/// A day of the week.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema, Debug)]
#[serde(rename_all = "lowercase")]
pub(super) enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

/// Most pointers of a mask.
pub(super) const MOST_POINTERS: usize = 100;

/// The largest number that a limit may have.
pub(super) const LARGEST_LIMIT: u32 = 1_000_000;

/// Workloads of one issuer. Every member that is written must hold.
#[derive(Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Workload {
    /// The issuer, by its name in the configuration.
    pub(super) issuer: IssuerName,
    /// What the token must say, by claim name (or JSON pointer, when it begins with `/`): a value, or a list of which one must
    /// be met. A text that ends in `*` matches any ending without `:` or `/`. Left out: every workload of the issuer.
    #[serde(default)]
    #[schemars(schema_with = "claims")]
    pub(super) claims: Option<BTreeMap<String, Value>>,
    /// State machine ARNs, with `*`, that the request's execution must belong to.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub(super) state_machines: Option<Vec<String>>,
    /// State names, with `*`, that the request must come from.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub(super) states: Option<Vec<String>>,
    /// How sure the named facts must be: `claimed` (the caller says so), `signed` (the issuer signed what the caller chose) or
    /// `proven` (the issuer determined it). Where neither `state_machines` nor `states` is written, it is demanded of the execution.
    #[serde(default)]
    pub(super) assurance: Option<Assurance>,
}

/// Something refused, whatever is granted.
#[derive(Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Deny {
    /// The name that answers, audit records and test cases give as the reason.
    pub(super) name: String,
    /// For the reader: why.
    #[serde(default)]
    #[allow(dead_code, reason = "written for people")]
    pub(super) description: Option<String>,
    /// `database/container`; `*` is allowed in either and does not cross `/`.
    pub(super) container: String,
    /// The partition that is closed, written as in a grant. A request that is not confined to one partition is refused too, and
    /// so is every request of a caller without the claim. Leave it out for the whole container.
    #[serde(default)]
    #[schemars(schema_with = "partition_key")]
    pub(super) partition_key: Option<Vec<Value>>,
    /// What is refused. `items/replace` also refuses `items/upsert`, and any item write also refuses `execute`.
    #[schemars(schema_with = "operations")]
    pub(super) operations: Vec<String>,
    /// Who is refused: `all`, or entries as in a binding. An entry whose claim or fact the caller does not show applies.
    pub(super) workloads: Workloads,
    /// Only requests from these state machines (ARNs, with `*`), or from none that is named.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub(super) state_machines: Option<Vec<String>>,
    /// Only requests from these states (with `*`), or from none that is named.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub(super) states: Option<Vec<String>>,
}

/// `all`, or a list of workloads.
#[derive(Debug)]
pub(super) enum Workloads {
    All,
    These(Vec<Workload>),
}

impl<'de> Deserialize<'de> for Workloads {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WorkloadsVisitor;
        impl<'de> Visitor<'de> for WorkloadsVisitor {
            type Value = Workloads;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`all` or a list of workloads")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Workloads, E> {
                if text == "all" { Ok(Workloads::All) } else { Err(E::invalid_value(de::Unexpected::Str(text), &self)) }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Workloads, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(items)).map(Workloads::These)
            }
        }
        // `deserialize_any` keeps the error's place inside the list, which an untagged enum would lose.
        deserializer.deserialize_any(WorkloadsVisitor)
    }
}

impl JsonSchema for Workloads {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Workloads".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let workload = generator.subschema_for::<Workload>();
        json_schema!({
            "description": "`all`, or a list of workloads as in a binding.",
            "oneOf": [{ "const": "all" }, { "type": "array", "items": workload, "minItems": 1 }]
        })
    }
}

/// The words that `operations` may hold: every operation, `items/*` and `*`.
pub(super) fn operation_words() -> Vec<&'static str> {
    Operation::ALL.into_iter().map(Operation::as_str).chain(["items/*", "*"]).collect()
}

fn amount(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "minimum": 1, "maximum": LARGEST_LIMIT })
}

fn mask(_: &mut SchemaGenerator) -> Schema {
    let pointer = json_schema!({ "type": "string", "pattern": "^(/([^/~]|~[01])+)+$" });
    let one = |how: &str| {
        json_schema!({
            "type": "object", "properties": { how: pointer }, "required": [how], "additionalProperties": false
        })
    };
    json_schema!({
        "type": "array", "items": { "anyOf": [pointer, one("redact"), one("partial")] }, "minItems": 1, "maxItems": MOST_POINTERS
    })
}

fn operations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "string", "enum": operation_words() }, "minItems": 1 })
}

fn partition_key(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {
            "anyOf": [
                { "type": "string", "pattern": "^(\\{claims\\.[^{}]+\\}|[^{}]*)$" },
                { "type": ["number", "boolean", "null"] }
            ]
        },
        "minItems": 1,
        "maxItems": 3
    })
}

fn claims(_: &mut SchemaGenerator) -> Schema {
    let one = json_schema!({ "type": ["string", "number", "boolean"] });
    json_schema!({
        "type": "object",
        "minProperties": 1,
        "additionalProperties": { "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] }
    })
}

/// The JSON Schema of a policy file, as `stepgate policy schema` prints it.
pub fn schema() -> String {
    let schema = schemars::schema_for!(Document);
    serde_json::to_string_pretty(&schema).map(|text| text + "\n").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_schema_is_the_generated_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/policy.schema.json");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == schema(),
            "run `cargo run -- policy schema > config/policy.schema.json` and commit the result"
        );
    }
}
