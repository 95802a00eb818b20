//! Whether the tests of a policy would notice a mistake in it: each clause is dropped or widened in turn, and a case must fail.
//!
//! A mutant is made of the files as documents, never of their text, and is compiled and asked like any policy. One that does
//! not compile cannot be loaded, and so needs no case. One that answers every question as the policy does is no mistake:
//! [`diff`] decides that, since it asks all questions that the clauses of both name. What is left has survived, and the first
//! difference is the question that no case asks.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::{
    Config, PolicySet,
    cases::run_cases,
    compile::escape,
    decision::Revision,
    diff::diff,
    load::{self, Directory},
};
use crate::diagnostic::{self, Diagnostic, Places};

/// What came of changing a policy under its tests.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct MutationReport {
    /// Mutants whose answers differ from the policy's.
    pub mutants: usize,
    /// Those that made a case fail.
    pub noticed: usize,
    /// Those that no case noticed.
    pub survivors: Vec<Survivor>,
}

/// A change that no case noticed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Survivor {
    /// The change: `the grant of order-writer on shop/orders, without its partition key`.
    pub change: String,
    /// Where the clause stands: `shop.yaml:12`.
    pub place: String,
    /// The question that would notice.
    pub unasked: String,
}

/// A change of one file.
struct Mutant {
    change: String,
    place: String,
    document: Value,
}

/// Changes each clause of the policies in `directory` in turn, and runs the cases in `cases` against what comes of it. The
/// cases must pass on the policy as it is.
pub fn mutate(directory: &Path, cases: &Path) -> Result<MutationReport, Vec<Diagnostic>> {
    let files = Directory::read(directory)?;
    let texts: Vec<(String, String)> =
        files.policies().map(|text| (text.name.clone(), text.source.text.to_string())).collect();
    let config = Config { directory: directory.to_owned(), issuers: None };
    let build = |texts: Vec<(String, String)>| -> Result<PolicySet, Vec<Diagnostic>> {
        load::build(&Directory::of(directory, texts), Revision("mutant".into()), &config)
    };
    let policy = build(texts.clone())?;
    let mut report = MutationReport::default();
    for (index, file) in files.policies().enumerate() {
        let (document, places) = diagnostic::parse::<Value>(&file.source).map_err(|finding| vec![finding])?;
        for mutant in mutants(&file.name, &document, &places) {
            let mut texts = texts.clone();
            if let Some((_, text)) = texts.get_mut(index) {
                *text = mutant.document.to_string();
            }
            let Ok(set) = build(texts) else { continue };
            if run_cases(&set, cases)?.failed > 0 {
                (report.mutants, report.noticed) = (report.mutants + 1, report.noticed + 1);
                continue;
            }
            let difference = diff(&policy, &set);
            let gain = difference.gains.first().map(|change| (change, "may not"));
            let Some((change, may)) = gain.or_else(|| difference.losses.first().map(|change| (change, "may"))) else {
                continue;
            };
            report.mutants += 1;
            report.survivors.push(Survivor {
                unasked: format!(
                    "no case asks whether {} {may} do {} on {}, {}",
                    change.workload,
                    change.what(),
                    change.container,
                    change.partition
                ),
                change: mutant.change,
                place: mutant.place,
            });
        }
    }
    Ok(report)
}

/// Every change of a file, in the order of its clauses.
fn mutants(name: &str, document: &Value, places: &Places) -> Vec<Mutant> {
    let mut mutants = Mutants { name, document, places, made: Vec::new() };
    for (role, written) in members(document, "/roles") {
        let grants = format!("/roles/{}/grants", escape(role));
        for index in 0..length(written, "/grants") {
            mutants.of_grant(role, &format!("{grants}/{index}"));
        }
    }
    for index in 0..length(document, "/bindings") {
        mutants.of_binding(&format!("/bindings/{index}"));
    }
    for index in 0..length(document, "/deny") {
        mutants.of_deny(&format!("/deny/{index}"));
    }
    mutants.made
}

struct Mutants<'a> {
    name: &'a str,
    document: &'a Value,
    places: &'a Places,
    made: Vec<Mutant>,
}

impl Mutants<'_> {
    fn of_grant(&mut self, role: &str, at: &str) {
        let grant = format!("the grant of {role} on {}", self.text(&format!("{at}/container")));
        self.without(at, &format!("without {grant}"));
        self.without(&format!("{at}/partition_key"), &format!("{grant}, without its partition key"));
        self.with(&format!("{at}/container"), "*/*".into(), &format!("{grant}, on every container"));
        self.with(&format!("{at}/operations"), vec!["*"].into(), &format!("{grant}, for every operation"));
        let mask = format!("{at}/mask");
        match length(self.document, &mask) {
            0 | 1 => self.without(&mask, &format!("{grant}, without its mask")),
            many => (0..many).for_each(|index| {
                self.without(&format!("{mask}/{index}"), &format!("{grant}, without one pointer of its mask"));
            }),
        }
    }

    fn of_binding(&mut self, at: &str) {
        let binding = format!("the binding of {}", self.text(&format!("{at}/role")));
        self.without(at, &format!("without {binding}"));
        self.without(&format!("{at}/agent"), &format!("{binding}, not as an agent's"));
        self.of_workloads(&format!("{at}/workloads"), &binding);
    }

    fn of_deny(&mut self, at: &str) {
        let deny = format!("the deny {}", self.text(&format!("{at}/name")));
        self.without(at, &format!("without {deny}"));
        let operations = format!("{at}/operations");
        for index in 0..length(self.document, &operations) {
            let operation = self.text(&format!("{operations}/{index}"));
            self.without(&format!("{operations}/{index}"), &format!("{deny}, without {operation}"));
        }
        for index in 0..length(self.document, &format!("{at}/workloads")) {
            self.without(&format!("{at}/workloads/{index}"), &format!("{deny}, without one of its workloads"));
        }
    }

    /// Each entry of a binding is dropped, and each of its conditions.
    fn of_workloads(&mut self, at: &str, binding: &str) {
        for index in 0..length(self.document, at) {
            let workload = format!("{at}/{index}");
            self.without(&workload, &format!("{binding}, without one of its workloads"));
            let claims: Vec<String> =
                members(self.document, &format!("{workload}/claims")).map(|(claim, _)| claim.to_owned()).collect();
            for claim in &claims {
                // An empty list of claims is an error: without its last claim the entry has none.
                let whole = if claims.len() == 1 { "claims".to_owned() } else { format!("claims/{}", escape(claim)) };
                self.without(&format!("{workload}/{whole}"), &format!("{binding}, whatever the claim {claim}"));
            }
            for (key, words) in [("state_machines", "state machine"), ("states", "state"), ("assurance", "assurance")] {
                self.without(&format!("{workload}/{key}"), &format!("{binding}, whatever the {words}"));
            }
        }
    }

    /// The file without what stands at `pointer`, if anything does.
    fn without(&mut self, pointer: &str, change: &str) {
        let mut document = self.document.clone();
        let Some((parent, last)) = pointer.rsplit_once('/') else { return };
        let removed = match document.pointer_mut(parent) {
            Some(Value::Object(members)) => members.shift_remove(&last.replace("~1", "/").replace("~0", "~")),
            Some(Value::Array(items)) => {
                last.parse().ok().filter(|index| *index < items.len()).map(|index| items.remove(index))
            }
            _ => None,
        };
        if removed.is_some() {
            self.made(pointer, change, document);
        }
    }

    /// The file with `value` at `pointer`, if something else stands there.
    fn with(&mut self, pointer: &str, value: Value, change: &str) {
        let mut document = self.document.clone();
        if let Some(place) = document.pointer_mut(pointer).filter(|place| **place != value) {
            *place = value;
            self.made(pointer, change, document);
        }
    }

    fn made(&mut self, pointer: &str, change: &str, document: Value) {
        let line = self.places.of(pointer.trim_start_matches('/')).line;
        self.made.push(Mutant { change: change.to_owned(), place: format!("{}:{line}", self.name), document });
    }

    fn text(&self, pointer: &str) -> String {
        self.document.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}

fn members<'a>(document: &'a Value, pointer: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let members = document.pointer(pointer).and_then(Value::as_object);
    members.into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

fn length(document: &Value, pointer: &str) -> usize {
    document.pointer(pointer).and_then(Value::as_array).map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const POLICY: &str = "\
roles:
  reader:
    grants:
      - { container: a/b, partition_key: [\"{claims.tenant}\"], operations: [items/read] }
bindings:
  - { role: reader, workloads: [{ issuer: i, claims: { client_id: c, zone: z } }] }
deny:
  - { name: shut, container: a/b, operations: [items/read], workloads: [{ issuer: i, claims: { client_id: c }, states: [Bad] }] }
";

    fn survivors(cases: &str) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("p.yaml"), POLICY).unwrap();
        fs::write(directory.path().join("p.test.yaml"), format!("cases:\n{cases}")).unwrap();
        let report = mutate(directory.path(), directory.path()).unwrap();
        assert_eq!(report.mutants, report.noticed + report.survivors.len());
        report.survivors.into_iter().map(|survivor| survivor.change).collect()
    }

    fn case(claims: &str, key: &str, state: &str, then: &str) -> String {
        let when = format!("{{ operation: items/read, container: a/b, partition_key: [{key}] }}");
        format!(
            "- {{ name: n, given: {{ issuer: i, claims: {{ {claims} }}, state: {state} }}, when: {when}, then: {then} }}\n"
        )
    }

    #[test]
    fn what_no_case_notices_survives() {
        let mut cases = case("client_id: c, zone: z, tenant: t", "t", "Good", "allow");
        let left = survivors(&cases);
        let expected = [
            "the grant of reader on a/b, without its partition key",
            "the grant of reader on a/b, on every container",
            "the grant of reader on a/b, for every operation",
            "the binding of reader, whatever the claim client_id",
            "the binding of reader, whatever the claim zone",
            "without the deny shut",
        ];
        assert_eq!(left, expected);

        cases += &case("client_id: c, zone: z, tenant: t", "u", "Good", "deny");
        cases += &case("client_id: d, zone: z, tenant: t", "t", "Good", "deny");
        cases += &case("client_id: c, zone: y, tenant: t", "t", "Good", "deny");
        cases += &case("client_id: c, zone: z, tenant: t", "t", "Bad", "deny");
        assert_eq!(survivors(&cases), expected[1..3]);

        cases += "- { name: n, given: { issuer: i, claims: { client_id: c, zone: z, tenant: t } }, \
                  when: { operation: query, container: a/b, partition_key: [t] }, then: deny }\n";
        cases += "- { name: n, given: { issuer: i, claims: { client_id: c, zone: z, tenant: t } }, \
                  when: { operation: items/read, container: a/c, partition_key: [t] }, then: deny }\n";
        assert_eq!(survivors(&cases), Vec::<String>::new());
    }
}
