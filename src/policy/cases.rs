//! The tests of a policy: `*.test.yaml` beside it, each case a question and the answer it must get.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::Path,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Clause, Decision, PolicySet, decide, load::Directory};
use crate::{
    access::{
        AccessRequest, Action, Assurance, Claims, ContainerName, ExecutionContext, Fact, IssuerName, MalformedContext,
        MalformedName, MalformedPartitionKey, Operation, PartitionKey, Subject, UnknownOperation,
    },
    diagnostic::{self, Diagnostic, Severity, Source},
    mask::Mask,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    given: Given,
    when: When,
    then: Then,
    #[serde(default)]
    because: Vec<String>,
    /// What is masked of the answer, and nothing else is.
    masked: Option<Vec<String>>,
}

/// A case of which only the question matters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    given: Given,
    when: When,
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(rename = "then")]
    _then: Option<Then>,
    #[serde(rename = "because", default)]
    _because: Vec<String>,
    #[serde(rename = "masked")]
    _masked: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    issuer: IssuerName,
    #[serde(default)]
    claims: BTreeMap<String, Value>,
    execution: Option<String>,
    state: Option<String>,
    /// How sure execution and state are; `claimed` unless written.
    assurance: Option<Assurance>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct When {
    operation: String,
    container: String,
    partition_key: Option<Value>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Then {
    Allow,
    Deny,
}

impl Then {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// A question about a caller that a file describes: the `given` and `when` of a case.
#[derive(Clone, Debug)]
pub struct Question {
    subject: Subject,
    client: Option<String>,
    claims: Claims,
    context: ExecutionContext,
    operation: Operation,
    container: ContainerName,
    partition_key: Option<PartitionKey>,
}

/// Why a case asks nothing.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    /// No such operation.
    #[error(transparent)]
    Operation(#[from] UnknownOperation),
    /// Not a container.
    #[error("`{0}` is not a container: {1}")]
    Container(String, MalformedName),
    /// Not a partition key.
    #[error(transparent)]
    PartitionKey(#[from] MalformedPartitionKey),
    /// Not an execution, or not a state.
    #[error("{0}")]
    Context(#[from] MalformedContext),
}

impl QuestionError {
    /// The member of the case that is wrong.
    fn path(&self) -> &'static str {
        match self {
            Self::Operation(_) => "when/operation",
            Self::Container(..) => "when/container",
            Self::PartitionKey(_) => "when/partition_key",
            Self::Context(MalformedContext::Execution) => "given/execution",
            Self::Context(_) => "given/state",
        }
    }
}

impl Question {
    /// Reads the `given` and `when` of one case, in YAML or JSON.
    pub fn parse(source: &Source) -> Result<Self, Diagnostic> {
        let (ask, places) = diagnostic::parse::<Ask>(source).map_err(with_question_mend)?;
        Self::of(&ask.given, &ask.when).map_err(|error| {
            with_question_mend(source.at(Severity::Error, places.of(error.path()), error.to_string(), None))
        })
    }

    fn of(given: &Given, when: &When) -> Result<Self, QuestionError> {
        let claims = Claims::new(given.claims.clone().into_iter().collect());
        let client = claims.text("client_id").or_else(|| claims.text("azp")).map(str::to_owned);
        let id = claims.text("sub").or(client.as_deref()).unwrap_or("a workload").into();
        let assurance = given.assurance.unwrap_or(Assurance::Claimed);
        let execution = given.execution.as_deref().map(str::parse).transpose()?;
        let state = given.state.as_deref().map(str::parse).transpose()?;
        let partition_key = match &when.partition_key {
            None => None,
            Some(array @ Value::Array(_)) => Some(PartitionKey::from_json(array)?),
            Some(one) => Some(PartitionKey::from_json(&Value::Array(vec![one.clone()]))?),
        };
        Ok(Self {
            subject: Subject { issuer: given.issuer.clone(), id },
            client,
            context: ExecutionContext {
                execution: execution.map(|value| Fact { value, assurance }),
                state: state.map(|value| Fact { value, assurance }),
                ..ExecutionContext::default()
            },
            claims,
            operation: when.operation.parse()?,
            container: when
                .container
                .parse()
                .map_err(|error| QuestionError::Container(when.container.clone(), error))?,
            partition_key,
        })
    }

    /// The question as the evaluator takes it.
    pub fn request(&self) -> AccessRequest<'_> {
        AccessRequest {
            subject: &self.subject,
            client: self.client.as_deref(),
            claims: &self.claims,
            context: &self.context,
            action: Action::Operation(self.operation),
            container: &self.container,
            partition_key: self.partition_key.as_ref(),
        }
    }
}

fn with_question_mend(mut finding: Diagnostic) -> Diagnostic {
    finding.mend.get_or_insert_with(|| {
        "write given: {issuer, claims, execution?, state?, assurance?} and when: {operation, container, partition_key?}".to_owned()
    });
    finding
}

/// What came of a policy's tests.
#[derive(Clone, Debug, Serialize)]
pub struct TestReport {
    /// How many cases got the answer they expect.
    pub passed: usize,
    /// How many did not.
    pub failed: usize,
    /// Each case.
    pub cases: Vec<CaseResult>,
    /// Share of the grants and denies that decided at least one case, in percent.
    pub coverage: f64,
    /// The grants and denies that decided none: `name (place)`.
    pub uncovered: Vec<String>,
}

/// What came of one case.
#[derive(Clone, Debug, Serialize)]
pub struct CaseResult {
    /// The case's name.
    pub name: String,
    /// Where it stands: `orders.test.yaml:3`.
    pub place: String,
    /// Whether it got the answer it expects.
    pub passed: bool,
    /// The decision in a sentence.
    pub decision: String,
    /// What is not as expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Runs the `*.test.yaml` below `directory` against `set`.
pub fn run_cases(set: &PolicySet, directory: &Path) -> Result<TestReport, Vec<Diagnostic>> {
    let directory = Directory::read_tests(directory)?;
    let mut diagnostics = Vec::new();
    let mut cases = Vec::new();
    let mut covered: HashSet<Clause> = HashSet::new();
    for file in directory.tests() {
        let (written, places) = match diagnostic::parse::<Cases>(&file.source) {
            Ok(parsed) => parsed,
            Err(error) => {
                diagnostics.push(with_mend_of_a_case(error));
                continue;
            }
        };
        for (i, case) in written.cases.iter().enumerate() {
            match Question::of(&case.given, &case.when) {
                Ok(question) => {
                    let decision = decide(set, &question.request());
                    covered.extend(decision.clauses().iter().cloned());
                    let place = format!("{}:{}", file.name, places.of(&format!("cases/{i}")).line);
                    cases.push(case.judge(&decision, place));
                }
                Err(error) => {
                    let place = places.of(&format!("cases/{i}/{}", error.path()));
                    diagnostics.push(with_question_mend(file.source.at(
                        Severity::Error,
                        place,
                        error.to_string(),
                        None,
                    )));
                }
            }
        }
    }
    if diagnostics.is_empty() { Ok(TestReport::of(set, cases, &covered)) } else { Err(diagnostics) }
}

fn with_mend_of_a_case(mut finding: Diagnostic) -> Diagnostic {
    finding.mend.get_or_insert_with(|| {
        "write cases: [{name, given: {issuer, claims}, when: {operation, container}, then: allow|deny, because: [name], masked: [pointer]}]".to_owned()
    });
    finding
}

impl Case {
    fn judge(&self, decision: &Decision, place: String) -> CaseResult {
        let answer = if decision.is_allow() { Then::Allow } else { Then::Deny };
        let deciding: Vec<&str> = decision.clauses().iter().map(|clause| &*clause.name).collect();
        let missing: Vec<_> =
            self.because.iter().filter(|name| !deciding.contains(&name.as_str())).map(String::as_str).collect();
        let problem = if answer != self.then {
            Some(format!("expected {}, got {}", self.then.as_str(), answer.as_str()))
        } else if missing.is_empty() {
            self.unmasked(decision)
        } else {
            let deciding = if deciding.is_empty() { "no clause".to_owned() } else { deciding.join(", ") };
            Some(format!("expected {} to decide, and {deciding} did", missing.join(", ")))
        };
        CaseResult { name: self.name.clone(), place, passed: problem.is_none(), decision: decision.sentence(), problem }
    }

    /// What is masked otherwise than the case says.
    fn unmasked(&self, decision: &Decision) -> Option<String> {
        let mask = match decision {
            Decision::Allow(permit) => permit.mask(),
            Decision::Deny(_) | Decision::Ambiguous(_) => None,
        };
        let masked: BTreeSet<String> = mask.into_iter().flat_map(Mask::pointers).map(ToString::to_string).collect();
        let expected: BTreeSet<String> = self.masked.as_ref()?.iter().cloned().collect();
        let list = |pointers: &BTreeSet<String>| match pointers.len() {
            0 => "nothing".to_owned(),
            _ => pointers.iter().cloned().collect::<Vec<_>>().join(", "),
        };
        (masked != expected).then(|| format!("expected {} to be masked, and {} is", list(&expected), list(&masked)))
    }
}

impl TestReport {
    fn of(set: &PolicySet, cases: Vec<CaseResult>, covered: &HashSet<Clause>) -> Self {
        let passed = cases.iter().filter(|case| case.passed).count();
        let (all, uncovered): (Vec<_>, Vec<_>) =
            (set.clauses().collect(), set.clauses().filter(|clause| !covered.contains(clause)).collect());
        let share = (all.len() - uncovered.len()) as f64 / all.len().max(1) as f64;
        Self {
            passed,
            failed: cases.len() - passed,
            cases,
            coverage: if all.is_empty() { 100.0 } else { (share * 1000.0).round() / 10.0 },
            uncovered: uncovered.iter().map(ToString::to_string).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::policy::{Config, load};

    const POLICY: &str = "roles: { r: { grants: [{ container: a/b, operations: [query] }, { container: a/c, operations: [query] }] } }\n\
                          bindings: [{ role: r, workloads: [{ issuer: i }] }]\n\
                          deny: [{ name: no, container: a/b, operations: [feed], workloads: all }]\n";

    fn run(cases: &str) -> Result<TestReport, Vec<Diagnostic>> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("p.yaml"), POLICY).unwrap();
        fs::write(directory.path().join("p.test.yaml"), cases).unwrap();
        let set = load(&Config { directory: directory.path().to_owned(), issuers: None }).unwrap();
        run_cases(&set, directory.path())
    }

    fn case(operation: &str, then: &str) -> String {
        format!("- {{ name: n, given: {{ issuer: i }}, when: {{ operation: {operation}, container: a/b }}, {then} }}\n")
    }

    #[test]
    fn a_case_passes_by_its_answer_and_its_reason() {
        let cases = [
            case("query", "then: allow, because: [r]"),
            case("feed", "then: deny, because: [no]"),
            case("items/read", "then: deny"),
            case("query", "then: deny"),
            case("feed", "then: deny, because: [other]"),
            case("items/read", "then: deny, because: [no]"),
        ];
        let report = run(&format!("cases:\n{}", cases.concat())).unwrap();
        let passed: Vec<_> = report.cases.iter().map(|case| case.passed).collect();
        assert_eq!(passed, [true, true, true, false, false, false]);
        assert_eq!((report.passed, report.failed), (3, 3));
        assert_eq!(report.cases[4].problem.as_deref(), Some("expected other to decide, and no did"));
        assert_eq!((report.coverage, report.uncovered.as_slice()), (66.7, ["r (p.yaml:1)".to_owned()].as_slice()));
    }

    #[test]
    fn a_case_may_say_what_is_masked() {
        let policy = "roles: { r: { grants: [{ container: a/b, operations: [query], mask: [/x, { partial: /y }] }] } }\n\
                      bindings: [{ role: r, workloads: [{ issuer: i }] }]\n";
        let set = super::super::findings::build(&[("p.yaml", policy)], None).unwrap();
        let problem = |masked: &str| {
            let directory = tempfile::tempdir().unwrap();
            let text = format!("cases:\n{}", case("query", &format!("then: allow{masked}")));
            fs::write(directory.path().join("p.test.yaml"), text).unwrap();
            run_cases(&set, directory.path()).unwrap().cases[0].problem.clone()
        };
        assert_eq!(problem(""), None);
        assert_eq!(problem(", masked: [/y, /x]"), None);
        assert_eq!(problem(", masked: [/x]").as_deref(), Some("expected /x to be masked, and /x, /y is"));
        assert_eq!(problem(", masked: []").as_deref(), Some("expected nothing to be masked, and /x, /y is"));
    }

    #[test]
    fn a_case_that_asks_nothing_is_told_with_its_place() {
        let findings = run(&format!("cases:\n{}", case("items/red", "then: deny"))).unwrap_err();
        assert_eq!((findings[0].line, findings[0].mend.is_some()), (2, true));
        assert!(run("cases: [{ name: n }]").is_err());
        assert!(run(&format!("cases:\n{}", case("query", "then: maybe"))).is_err());
    }
}
