//! From what was written to what it means: names resolved, patterns parsed, every problem told with its place.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    num::NonZeroU32,
    sync::Arc,
};

use serde_json::Value;

use super::{
    KnownIssuer,
    decision::{BindingLimits, Clause, ClauseKind, Hours},
    document::{self, Document, LARGEST_LIMIT, MOST_POINTERS, operation_words},
    glob::{ContainerPattern, Glob},
    inclusion::{self, Grants, Role},
    model::{Binding, Deny, Grant, Operations},
    selector::{ClaimPattern, ClaimTest, ContextTest, Selector},
    template::KeyTemplate,
};
use crate::{
    access::{IssuerName, MalformedName, Operation},
    diagnostic::{Diagnostic, Places, Severity, Source},
    mask::{Mask, Pointer, Show},
};

/// Rows that an agent gets at once, unless its binding says otherwise.
const AGENT_ROWS: u32 = 100;
/// Request units that an agent may use in an hour, unless its binding says otherwise.
const AGENT_REQUEST_UNITS: u32 = 10_000;

/// Claims that a workload of anyone can show on a shared issuer (GitHub's, and those of every token): they pin no owner.
const PINS_NO_OWNER: [&str; 29] = [
    "actor",
    "actor_id",
    "aud",
    "base_ref",
    "check_run_id",
    "environment",
    "event_name",
    "exp",
    "head_ref",
    "iat",
    "iss",
    "job_workflow_ref",
    "job_workflow_sha",
    "jti",
    "nbf",
    "ref",
    "ref_protected",
    "ref_type",
    "repository_visibility",
    "run_attempt",
    "run_id",
    "run_number",
    "runner_environment",
    "scope",
    "sha",
    "token_kind",
    "token_use",
    "workflow",
    "workflow_sha",
];

/// A file of the policy, read.
pub(super) struct File {
    pub(super) source: Source,
    /// The path below the policy directory: how clauses are named.
    pub(super) name: String,
    pub(super) document: Document,
    pub(super) places: Places,
}

/// The policy, checked.
#[derive(Default)]
pub(super) struct Compiled {
    pub(super) grants: Vec<Arc<Grant>>,
    pub(super) bindings: Vec<Binding>,
    pub(super) denies: Vec<Arc<Deny>>,
}

/// Compiles `files`, in the order of their paths; problems go to `diagnostics`.
pub(super) fn compile(files: &[File], issuers: Option<&[KnownIssuer]>, diagnostics: &mut Vec<Diagnostic>) -> Compiled {
    let mut compiled = Compiled::default();
    let mut roles: BTreeMap<Arc<str>, Role<'_>> = BTreeMap::new();
    for file in files {
        let mut check = Check { file, issuers, diagnostics };
        for (name, written) in in_order_of_place(file) {
            let path = format!("roles/{}", escape(name));
            let own = check.grants(name, written, &path);
            compiled.grants.extend(own.iter().cloned());
            match roles.entry(name.into()) {
                Entry::Vacant(place) => {
                    place.insert(Role { file, path, own, include: &written.include });
                }
                Entry::Occupied(first) => {
                    let first = Check { file: first.get().file, issuers, diagnostics: check.diagnostics }
                        .place_of(&first.get().path);
                    let message = format!("the role `{name}` is already defined in {first}");
                    check.error(&path, message, "give one of them another name");
                }
            }
        }
    }
    let grants = inclusion::include(&roles, diagnostics);
    for file in files {
        let mut check = Check { file, issuers, diagnostics };
        for (i, binding) in file.document.bindings.iter().enumerate() {
            compiled.bindings.extend(check.binding(binding, &format!("bindings/{i}"), &grants));
        }
        for (i, deny) in file.document.deny.iter().enumerate() {
            compiled.denies.extend(check.deny(deny, &format!("deny/{i}")).map(Arc::new));
        }
    }
    compiled
}

/// The roles of a file as they stand in it: of equally narrow grants the first decides.
fn in_order_of_place(file: &File) -> Vec<(&str, &document::Role)> {
    let mut roles: Vec<_> = file.document.roles.iter().map(|(name, role)| (name.as_str(), role)).collect();
    roles.sort_by_cached_key(|(name, _)| file.places.of(&format!("roles/{}", escape(name))));
    roles
}

/// The first of these names, for a mend.
pub(super) fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const MOST: usize = 12;
    let more = names.len().saturating_sub(MOST);
    let listed: Vec<_> = names.take(MOST).collect();
    if more == 0 { listed.join(", ") } else { format!("{} and {more} more", listed.join(", ")) }
}

/// A member's name as [`Places`] writes it.
pub(super) fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

pub(super) struct Check<'a> {
    pub(super) file: &'a File,
    pub(super) issuers: Option<&'a [KnownIssuer]>,
    pub(super) diagnostics: &'a mut Vec<Diagnostic>,
}

impl Check<'_> {
    pub(super) fn error(&mut self, path: &str, message: impl Into<String>, mend: impl Into<String>) {
        let place = self.file.places.of(path);
        self.diagnostics.push(self.file.source.at(Severity::Error, place, message, Some(mend.into())));
    }

    fn place_of(&self, path: &str) -> String {
        format!("{}:{}", self.file.name, self.file.places.of(path).line)
    }

    fn not_empty<T>(&mut self, items: &[T], path: &str, mend: &str) {
        if items.is_empty() {
            self.error(path, "an empty list means nothing", mend);
        }
    }

    fn clause(&self, kind: ClauseKind, name: &str, index: usize, path: &str) -> Clause {
        Clause { kind, name: name.into(), index, place: self.place_of(path).into() }
    }

    fn grants(&mut self, role: &str, written: &document::Role, path: &str) -> Vec<Arc<Grant>> {
        if written.grants.is_empty() && written.include.is_empty() {
            let mend = "list what it allows under `grants`, or the roles it takes over under `include`; or remove it";
            self.error(&format!("{path}/grants"), format!("the role `{role}` grants nothing"), mend);
        }
        let grants = written.grants.iter().enumerate();
        grants
            .filter_map(|(i, grant)| self.grant(role, i, grant, &format!("{path}/grants/{i}")).map(Arc::new))
            .collect()
    }

    fn grant(&mut self, role: &str, index: usize, written: &document::Grant, path: &str) -> Option<Grant> {
        let container = self.container(&written.container, path);
        let partition = self.partition(written.partition_key.as_deref(), path);
        let operations = self.operations(&written.operations, path);
        let named = written.operations.iter().filter_map(|word| word.parse::<Operation>().ok()).collect();
        let mask = written.mask.as_ref().and_then(|mask| self.mask(mask, &format!("{path}/mask")));
        let idempotent = written.idempotency == document::Idempotency::On;
        if idempotent && !operations.iter().any(Operation::can_be_idempotent) {
            let mend = "grant an item write or `batch` here, or remove `idempotency`";
            self.error(&format!("{path}/idempotency"), "nothing that this grants could be done twice", mend);
        }
        let clause = self.clause(ClauseKind::Grant, role, index, path);
        Some(Grant { clause, container: container?, partition: partition?, operations, named, idempotent, mask })
    }

    fn mask(&mut self, written: &[Value], path: &str) -> Option<Mask> {
        self.not_empty(written, path, "name a member, or remove `mask`");
        if written.len() > MOST_POINTERS {
            let mend = "mask what holds them instead";
            self.error(path, format!("a mask has at most {MOST_POINTERS} pointers"), mend);
        }
        let pointers: Vec<Pointer> =
            written.iter().enumerate().filter_map(|(i, entry)| self.pointer(entry, &format!("{path}/{i}"))).collect();
        Mask::new(pointers)
    }

    fn pointer(&mut self, written: &Value, path: &str) -> Option<Pointer> {
        const MEND: &str = "write a JSON pointer such as /card/number, or { redact: POINTER }, or { partial: POINTER }";
        let single = written.as_object().filter(|members| members.len() == 1).and_then(|members| members.iter().next());
        let (text, show) = match (written, single.map(|(how, text)| (how.as_str(), text))) {
            (Value::String(text), _) | (_, Some(("redact", Value::String(text)))) => (text, Show::Nothing),
            (_, Some(("partial", Value::String(text)))) => (text, Show::End),
            _ => {
                self.error(path, "this says neither what is masked nor how", MEND);
                return None;
            }
        };
        let pointer = Pointer::parse(text, show);
        if let Err(error) = &pointer {
            self.error(path, format!("`{text}` cannot be masked: {error}"), MEND);
        }
        pointer.ok()
    }

    fn deny(&mut self, written: &document::Deny, path: &str) -> Option<Deny> {
        let container = self.container(&written.container, path);
        let partition = self.partition(written.partition_key.as_deref(), path);
        let operations = self.operations(&written.operations, path).with_what_falls_along();
        let workloads = match &written.workloads {
            document::Workloads::All => None,
            document::Workloads::These(list) => {
                let path = format!("{path}/workloads");
                self.not_empty(list, &path, "write `all`, or list who is denied");
                Some(list.iter().enumerate().map(|(i, w)| self.workload(w, &format!("{path}/{i}"))).collect())
            }
        };
        let context = ContextTest {
            state_machines: self.state_machines(written.state_machines.as_deref(), path),
            states: self.globs(written.states.as_deref(), path, "states"),
            assurance: None,
        };
        let clause = self.clause(ClauseKind::Deny, &written.name, 0, path);
        Some(Deny { clause, container: container?, partition: partition?, operations, workloads, context })
    }

    fn binding(&mut self, written: &document::Binding, path: &str, roles: &Grants) -> Option<Binding> {
        let workloads = format!("{path}/workloads");
        self.not_empty(&written.workloads, &workloads, "list who holds the role, or remove the binding");
        let mut holders = Vec::new();
        for (i, workload) in written.workloads.iter().enumerate() {
            let path = format!("{workloads}/{i}");
            let selector = self.workload(workload, &path);
            self.pinned(&selector, &path);
            holders.push(Arc::new(selector));
        }
        let grants = roles.get(written.role.as_str()).cloned();
        if grants.is_none() {
            let mend = match roles.len() {
                0 => "define it under `roles:`; no file that could be read has any".to_owned(),
                _ => format!("define it under `roles:`; the roles are {}", listed(roles.keys().map(|name| &**name))),
            };
            self.error(&format!("{path}/role"), format!("there is no role `{}`", written.role), mend);
        }
        let limits = written.limits.as_ref().map(|limits| self.limits(limits, &written.role, &holders, path));
        let place: Arc<str> = self.place_of(path).into();
        let mut binding = Binding { grants: grants?, holders, place, limits: limits.map(Arc::new) };
        if written.agent {
            self.bind_agent(&mut binding, &written.role, path);
        }
        Some(binding)
    }

    /// An agent gets a part of the role, and bounds on what it may take.
    fn bind_agent(&mut self, binding: &mut Binding, role: &str, path: &str) {
        binding.grants = binding.grants.iter().filter_map(|grant| grant.of_agent().map(Arc::new)).collect();
        if binding.grants.is_empty() {
            let mend = "grant what it may read, or name what it may write by its own word, such as items/patch";
            self.error(&format!("{path}/agent"), format!("`{role}` has nothing for an agent"), mend);
        }
        let written = format!("{role} {:?} agent", binding.holders);
        let none = || BindingLimits::none(role, &binding.place, &written);
        let limits = binding.limits.as_deref().cloned().unwrap_or_else(none);
        binding.limits = Some(Arc::new(BindingLimits {
            rows: limits.rows.or(NonZeroU32::new(AGENT_ROWS)),
            request_units_per_hour: limits.request_units_per_hour.or(NonZeroU32::new(AGENT_REQUEST_UNITS)),
            ..limits
        }));
    }

    fn limits(
        &mut self,
        written: &document::Limits,
        role: &str,
        holders: &[Arc<Selector>],
        path: &str,
    ) -> BindingLimits {
        let document::Limits { requests_per_second, request_units_per_second, concurrency, .. } = written;
        let document::Limits { request_units_per_hour, rows, hours, .. } = written;
        let numbers = [requests_per_second, request_units_per_second, request_units_per_hour, concurrency, rows];
        if numbers.iter().all(|number| number.is_none()) && hours.is_none() {
            let mend = "name one of requests_per_second, request_units_per_second, request_units_per_hour, concurrency, rows and \
                        hours, or remove `limits`";
            self.error(&format!("{path}/limits"), "limits without a number limit nothing", mend);
        }
        let hours = hours.as_ref().and_then(|hours| self.hours(hours, &format!("{path}/limits/hours")));
        let mut amount = |key: &str, written: &Option<f64>| self.amount(&format!("{path}/limits/{key}"), (*written)?);
        BindingLimits {
            requests_per_second: amount("requests_per_second", requests_per_second),
            request_units_per_second: amount("request_units_per_second", request_units_per_second),
            request_units_per_hour: amount("request_units_per_hour", request_units_per_hour),
            concurrency: amount("concurrency", concurrency),
            rows: amount("rows", rows),
            hours,
            role: role.into(),
            place: self.place_of(path).into(),
            written: format!("{role} {holders:?}").into(),
        }
    }

    fn hours(&mut self, written: &document::Hours, path: &str) -> Option<Hours> {
        let document::Hours { from, until, days } = written;
        if let Some(days) = days {
            self.not_empty(days, &format!("{path}/days"), "name a day, or remove `days` for all of them");
        }
        let days = days.iter().flatten().fold(0, |days, day| days | (1 << *day as u8));
        let hours = minute(from).zip(minute(until)).filter(|(from, until)| from < until);
        if hours.is_none() {
            let mend = "write two times of one day (UTC) as `\"08:00\"`; for a night, two bindings";
            self.error(path, format!("`{from}` until `{until}` is no part of a day"), mend);
        }
        hours.map(|(from, until)| Hours {
            from,
            until,
            days: if written.days.is_some() { days } else { Hours::EVERY_DAY },
        })
    }

    fn amount(&mut self, path: &str, written: f64) -> Option<NonZeroU32> {
        let whole = written.fract() == 0.0 && (1.0..=f64::from(LARGEST_LIMIT)).contains(&written);
        if !whole {
            let mend =
                format!("write a whole number from 1 to {LARGEST_LIMIT}; to stop a workload altogether, deny it");
            self.error(path, format!("{written} is no limit"), mend);
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number in the range, as just checked"
        )]
        if whole { NonZeroU32::new(written as u32) } else { None }
    }

    fn workload(&mut self, written: &document::Workload, path: &str) -> Selector {
        self.known_issuer(&written.issuer, path);
        let claims_path = format!("{path}/claims");
        if written.claims.as_ref().is_some_and(BTreeMap::is_empty) {
            self.error(
                &claims_path,
                "an empty list of claims means nothing",
                "name a claim; leave `claims` out for every workload of the issuer",
            );
        }
        let mut claims = Vec::new();
        for (name, value) in written.claims.iter().flatten() {
            let any_of = self.claim_patterns(value, &format!("{claims_path}/{}", escape(name)));
            claims.push(ClaimTest { name: name.as_str().into(), any_of: any_of.into() });
        }
        let context = ContextTest {
            state_machines: self.state_machines(written.state_machines.as_deref(), path),
            states: self.globs(written.states.as_deref(), path, "states"),
            assurance: written.assurance,
        };
        Selector { issuer: written.issuer.clone(), claims: claims.into(), context }
    }

    fn known_issuer(&mut self, issuer: &IssuerName, path: &str) {
        if let Some(issuers) = self.issuers
            && !issuers.iter().any(|known| known.name == *issuer)
        {
            let mend = format!(
                "the configuration has the issuers {}",
                listed(issuers.iter().map(|known| known.name.as_str()))
            );
            self.error(&format!("{path}/issuer"), format!("there is no issuer `{issuer}`"), mend);
        }
    }

    /// On a shared issuer anyone has an account, so a binding must say whose workloads it means.
    fn pinned(&mut self, selector: &Selector, path: &str) {
        let shared = match self.issuers {
            Some(issuers) => issuers.iter().any(|known| known.shared && known.name == selector.issuer),
            None => selector.issuer.as_str() == "github",
        };
        let pins = |test: &ClaimTest| {
            let names_owner = !PINS_NO_OWNER.contains(&&*test.name) && !test.name.starts_with("repo_property_");
            names_owner && test.exact().is_some()
        };
        if shared && !selector.claims.iter().any(pins) {
            self.error(
                path,
                format!("anyone can have a workload at the shared issuer `{}`, and no claim here pins one owner", selector.issuer),
                "name one owner exactly, without `*` and not in a list of several, such as `repository_owner_id: \"1234\"`",
            );
        }
    }

    fn claim_patterns(&mut self, value: &Value, path: &str) -> Vec<ClaimPattern> {
        let Value::Array(values) = value else { return self.claim_pattern(value, path).into_iter().collect() };
        self.not_empty(values, path, "name a value, or remove the claim");
        let each = values.iter().enumerate();
        each.filter_map(|(i, value)| self.claim_pattern(value, &format!("{path}/{i}"))).collect()
    }

    fn claim_pattern(&mut self, value: &Value, path: &str) -> Option<ClaimPattern> {
        match value {
            Value::String(text) => match text.find('*') {
                None => Some(ClaimPattern::Exact(value.clone())),
                Some(star) if star + 1 == text.len() => Some(ClaimPattern::Text(Glob::new(text))),
                Some(_) => {
                    self.error(
                        path,
                        format!("`*` may only end the value of a claim, and `{text}` has it elsewhere"),
                        "list the values, or shorten it to a beginning and `*`",
                    );
                    None
                }
            },
            Value::Number(_) | Value::Bool(_) => Some(ClaimPattern::Exact(value.clone())),
            _ => {
                self.error(
                    path,
                    "a claim is compared with a string, a number or a boolean",
                    "write such a value, or a list of them",
                );
                None
            }
        }
    }

    fn globs(&mut self, written: Option<&[String]>, path: &str, key: &str) -> Option<Box<[Glob]>> {
        let written = written?;
        self.not_empty(written, &format!("{path}/{key}"), "name one, or remove the key");
        Some(written.iter().map(|text| Glob::new(text)).collect())
    }

    fn state_machines(&mut self, written: Option<&[String]>, path: &str) -> Option<Box<[Glob]>> {
        for (i, text) in written.into_iter().flatten().enumerate() {
            let parts: Vec<_> = text.split(':').collect();
            if !matches!(parts.as_slice(), ["arn", _, "states", _, _, "stateMachine", _]) {
                self.error(
                    &format!("{path}/state_machines/{i}"),
                    format!("`{text}` is not the ARN of a state machine, so no execution would ever match"),
                    "write arn:aws:states:REGION:ACCOUNT:stateMachine:NAME, with `*` inside a part where it is open",
                );
            }
        }
        self.globs(written, path, "state_machines")
    }

    fn container(&mut self, written: &str, path: &str) -> Option<ContainerPattern> {
        let result = ContainerPattern::parse(written);
        if let Err(error) = &result {
            let mend = match error {
                MalformedName::NotAContainer => "such as shop/orders, shop/* or */*",
                _ => "write the names as Cosmos has them",
            };
            self.error(&format!("{path}/container"), format!("`{written}` is not a container: {error}"), mend);
        }
        result.ok()
    }

    /// `None` when it is wrong, `Some(None)` when it is left out.
    fn partition(&mut self, written: Option<&[Value]>, path: &str) -> Option<Option<KeyTemplate>> {
        let Some(written) = written else { return Some(None) };
        match KeyTemplate::parse(written) {
            Ok(template) => Some(Some(template)),
            Err((component, error)) => {
                self.error(&format!("{path}/partition_key/{component}"), error.to_string(), error.mend());
                None
            }
        }
    }

    fn operations(&mut self, written: &[String], path: &str) -> Operations {
        self.not_empty(written, &format!("{path}/operations"), "name an operation");
        let mut operations = Operations::default();
        for (i, word) in written.iter().enumerate() {
            match Operations::of_word(word) {
                Some(meant) => operations.extend([meant]),
                None => {
                    let mend = format!("the operations are {}", operation_words().join(", "));
                    self.error(&format!("{path}/operations/{i}"), format!("`{word}` is not an operation"), mend);
                }
            }
        }
        operations
    }
}

/// The minute of the day: `08:30`, up to `24:00`.
fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':').filter(|(hour, minute)| hour.len() == 2 && minute.len() == 2)?;
    let digits =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok()).flatten();
    let (hour, minute) = (digits(hour)?, digits(minute)?);
    (minute < 60 && hour * 60 + minute <= Hours::DAY).then_some(hour * 60 + minute)
}

#[cfg(test)]
mod tests {
    use super::super::findings::build;
    use crate::diagnostic::Severity;

    const EXAMPLE: &str = r#"
roles:
  order-writer:
    description: Fulfilment writes the orders of its own tenant.
    grants:
      - container: shop/orders
        partition_key: ["{claims.tenant}"]
        operations: [items/read, items/upsert, query]
  order-auditor:
    grants:
      - container: shop/orders
        operations: [items/read, query]
        mask: [/card/number]
bindings:
  - role: order-writer
    description: The nightly run and the daily one.
    workloads:
      - issuer: cognito
        claims: { client_id: 7h2kexample }
        state_machines: ["arn:aws:states:us-east-1:111122223333:stateMachine:Fulfil*"]
        states: [SaveOrder, LoadOrder]
        assurance: claimed
    limits: { requests_per_second: 100, request_units_per_second: 400, concurrency: 32 }
deny:
  - name: ledger-is-append-only
    container: finance/ledger
    operations: [items/upsert, items/replace, items/patch, items/delete]
    workloads: all
"#;

    fn errors(text: &str) -> Vec<String> {
        let Err(findings) = build(&[("p.yaml", text)], None) else { return Vec::new() };
        let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
        errors.map(|finding| format!("{}:{}: {}", finding.line, finding.column, finding.message)).collect()
    }

    #[test]
    fn the_whole_language_is_understood() {
        assert_eq!(errors(EXAMPLE), Vec::<String>::new());
        let agent = EXAMPLE.replacen("    workloads:\n", "    agent: true\n    workloads:\n", 1);
        assert_eq!(errors(&agent), Vec::<String>::new());
        let elsewhere =
            EXAMPLE.replacen("      - issuer: cognito\n", "      - issuer: cognito\n        agent: true\n", 1);
        assert!(errors(&elsewhere)[0].contains("agent"), "a binding is an agent's, not a workload");
    }

    #[test]
    fn a_mask_says_what_and_how() {
        let with = |mask: &str| errors(&EXAMPLE.replace("[/card/number]", mask));
        for good in ["[/a, { redact: /b }, { partial: /c/d }]", "[/lines/*/price]", "[/a, /a]"] {
            assert_eq!(with(good), Vec::<String>::new(), "{good}");
        }
        for bad in [
            "[]",
            "[card]",
            "[/id]",
            "[/*]",
            "[/_etag]",
            "['']",
            "[1]",
            "[{ hide: /a }]",
            "[{ redact: /a, partial: /b }]",
            "[{ partial: 1 }]",
            "[/a~2]",
        ] {
            let errors = with(bad);
            assert!(errors.len() == 1 && errors[0].starts_with("13:"), "{bad}: {errors:?}");
        }
        assert_eq!(with(&format!("[{}]", vec!["/a"; 101].join(", "))).len(), 1);
    }

    #[test]
    fn hours_are_a_part_of_a_day() {
        let with = |hours: &str| errors(&EXAMPLE.replace("concurrency: 32", &format!("hours: {{ {hours} }}")));
        for good in ["from: '08:00', until: '18:00'", "from: '00:00', until: '24:00', days: [mon, sun]"] {
            assert_eq!(with(good), Vec::<String>::new(), "{good}");
        }
        for bad in [
            "from: '18:00', until: '08:00'",
            "from: '8:00', until: '18:00'",
            "from: '08:00', until: '24:01'",
            "from: '08:60', until: '18:00'",
            "from: '+8:00', until: '18:00'",
            "from: '08:00', until: '18:00', days: []",
            "from: '08:00', until: '18:00', days: [monday]",
            "from: '08:00'",
        ] {
            assert_eq!(with(bad).len(), 1, "{bad}");
        }
    }

    #[test]
    fn an_agent_gets_what_reads_and_what_is_named() {
        let agent = |operations: &str| {
            let text = format!(
                "roles: {{ r: {{ grants: [{{ container: d/c, operations: {operations} }}] }} }}\n\
                 bindings: [{{ role: r, agent: true, workloads: [{{ issuer: i }}] }}]\n"
            );
            let set = build(&[("p.yaml", &text)], None)?;
            let held = set.entitlements().iter().flat_map(|held| held.grant.operations.iter());
            let limits = set.entitlements()[0].limits.clone().unwrap();
            assert_eq!((limits.rows.unwrap().get(), limits.request_units_per_hour.unwrap().get()), (100, 10_000));
            Ok::<_, Vec<crate::diagnostic::Diagnostic>>(held.map(|operation| operation.as_str()).collect::<Vec<_>>())
        };
        assert_eq!(agent("['*']").unwrap(), ["items/read", "query", "feed"]);
        assert_eq!(agent("['items/*']").unwrap(), ["items/read"]);
        assert_eq!(agent("['items/*', items/patch, batch]").unwrap(), ["items/read", "items/patch", "batch"]);
        assert_eq!(agent("[items/create]").unwrap(), ["items/create"]);
        assert!(agent("[execute]").is_ok());
        let nothing = build(
            &[(
                "p.yaml",
                "roles: { r: { include: [s] }, s: { grants: [{ container: d/c, operations: ['*'] }] } }\nbindings: [{ role: r, agent: true, limits: { rows: 5 }, workloads: [{ issuer: i }] }]\n",
            )],
            None,
        );
        let limits = nothing.unwrap().entitlements()[0].limits.clone().unwrap();
        assert_eq!((limits.rows.unwrap().get(), limits.request_units_per_hour.unwrap().get()), (5, 10_000));
    }

    #[test]
    fn idempotency_stands_on_a_grant_that_writes() {
        let example = EXAMPLE.replace("        mask: [/card/number]\n", "");
        let on = |operations: &str, line: &str| {
            errors(&example.replacen(operations, &format!("{operations}\n        {line}"), 1))
        };
        let writes = "operations: [items/read, items/upsert, query]";
        for line in ["idempotency: on", "idempotency: off"] {
            assert_eq!(on(writes, line), Vec::<String>::new());
        }
        assert_eq!(on("operations: [items/read, query]", "idempotency: off"), Vec::<String>::new());
        let nothing = ["13:22: nothing that this grants could be done twice"];
        assert_eq!(on("operations: [items/read, query]", "idempotency: on"), nothing);
        assert_eq!(on(writes, "idempotency: sometimes").len(), 1);
        let binding = example.replacen("    workloads:\n", "    idempotency: on\n    workloads:\n", 1);
        assert!(errors(&binding)[0].contains("idempotency"), "a binding knows no such key");
    }

    #[test]
    fn a_limit_is_a_whole_number_that_means_something() {
        for written in ["0", "-1", "0.5", "1e12", ".nan", ".inf"] {
            let text = EXAMPLE
                .replace("mask: [/card/number]", "")
                .replace("concurrency: 32", &format!("concurrency: {written}"));
            let errors = errors(&text);
            assert!(errors.len() == 1 && errors[0].starts_with("23:"), "{written}: {errors:?}");
        }
        let nothing = EXAMPLE
            .replace("mask: [/card/number]", "")
            .replace("{ requests_per_second: 100, request_units_per_second: 400, concurrency: 32 }", "{}");
        assert_eq!(errors(&nothing), ["23:13: limits without a number limit nothing"]);
    }

    #[test]
    fn limits_belong_to_the_binding_as_it_is_written() {
        let limits = |text: &str| {
            let set = build(&[("p.yaml", &text.replace("mask: [/card/number]", ""))], None).unwrap();
            set.entitlements().iter().find_map(|entitlement| entitlement.limits.clone()).unwrap()
        };
        let first = limits(EXAMPLE);
        assert_eq!((&*first.role, &*first.place), ("order-writer", "p.yaml:15"));
        assert_eq!(limits(&format!("# a line more\n{EXAMPLE}")), first);
        assert_ne!(limits(&EXAMPLE.replace("concurrency: 32", "concurrency: 33")), first);
        assert_ne!(limits(&EXAMPLE.replace("7h2kexample", "another")), first);
    }
}
