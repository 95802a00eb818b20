//! Who gains and who loses: two policies, asked the same questions.
//!
//! The questions are made of what the clauses of both sides name: every selector (also where a deny's cuts through a binding's),
//! every operation, every container, and every partition key, beside a partition that no clause names. Two policies that answer
//! all of them alike differ only in words.

use std::{
    collections::{BTreeSet, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;
use serde_json::Value;

use super::{
    Config, Decision, Permit, PolicySet,
    decide::{decide, is_held},
    decision::Revision,
    hypothesis::{Caller, KeyClaims, callers, describe},
    load::{self, Directory},
    model::Operations,
    revision,
    selector::Selector,
    template::KeyTemplate,
};
use crate::{
    access::{Action, ContainerName, KeyComponent, Operation, PartitionKey},
    diagnostic::Diagnostic,
    mask::Mask,
};

/// The partition of a change: one that no clause names.
const ELSEWHERE: &str = "a partition that no clause names";
/// Before the key of a change: the partitions of a hierarchical key below it.
const BELOW: &str = "below ";

/// What differs between two policies.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Difference {
    /// Denied before, allowed now.
    pub gains: BTreeSet<Change>,
    /// Allowed before, denied now.
    pub losses: BTreeSet<Change>,
}

/// One thing that some workloads may do on one side only.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Change {
    /// The workloads, as a clause describes them.
    pub workload: String,
    /// The container, as a clause writes it.
    pub container: String,
    /// The partition: a key as a clause writes it, `a partition that no clause names`, or `the whole container`.
    pub partition: String,
    /// The operation.
    pub operation: &'static str,
    /// The masked member that only one side shows; `None` where it is the operation itself that one side has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
}

impl Change {
    /// What it is that one side has: `items/read`, or `items/read of /card/number`.
    pub fn what(&self) -> String {
        match &self.member {
            Some(member) => format!("{} of {member}", self.operation),
            None => self.operation.to_owned(),
        }
    }
}

/// Compares two policies.
pub fn diff(base: &PolicySet, head: &PolicySet) -> Difference {
    let questions = Questions::of(base, head);
    let mut difference = Difference::default();
    for (workload, caller) in all_callers(base, head) {
        for caller in questions.vary(caller) {
            questions.ask(&workload, &caller, &mut difference);
        }
    }
    [&mut difference.gains, &mut difference.losses].into_iter().for_each(drop_what_follows);
    difference
}

/// The questions that both sides are asked.
struct Questions<'a> {
    base: &'a PolicySet,
    head: &'a PolicySet,
    containers: Vec<(String, ContainerName)>,
    /// The claims in partition keys, which are tried with all that keys compare them with.
    key_claims: KeyClaims,
    /// The other claims that clauses ask for.
    claims: HashSet<Arc<str>>,
}

impl<'a> Questions<'a> {
    fn of(base: &'a PolicySet, head: &'a PolicySet) -> Self {
        let keys: Vec<&KeyTemplate> = base.templates().chain(head.templates()).collect();
        let in_keys: HashSet<&str> = keys.iter().flat_map(|key| key.claim_names()).collect();
        let claims = base.claim_names().into_iter().chain(head.claim_names());
        Self {
            base,
            head,
            containers: containers(base, head),
            key_claims: KeyClaims::of(&keys),
            claims: claims.filter(|name| !in_keys.contains(&**name)).collect(),
        }
    }

    /// The caller as it is and with a value for everything that clauses ask about; both no surer of the context than asked, and as
    /// sure as can be; and each of them with every key.
    fn vary(&self, caller: Caller) -> impl Iterator<Item = Caller> {
        let mut variants = vec![caller.clone().furnished(&self.claims), caller];
        for surer in variants.clone().into_iter().map(Caller::proven) {
            if !variants.contains(&surer) {
                variants.push(surer);
            }
        }
        variants.into_iter().flat_map(|caller| self.key_claims.vary(&caller))
    }

    fn ask(&self, workload: &str, caller: &Caller, difference: &mut Difference) {
        let partitions = partitions(self.base, self.head, caller);
        for (container, name) in &self.containers {
            for operation in self.held(caller, name).iter() {
                for (partition, key) in &partitions {
                    let change = |member| Change {
                        workload: workload.to_owned(),
                        container: container.clone(),
                        partition: partition.clone(),
                        operation: operation.as_str(),
                        member,
                    };
                    let [before, after] =
                        [self.base, self.head].map(|set| allowed(set, caller, operation, name, key.as_ref()));
                    match (before, after) {
                        (None, Some(_)) => drop(difference.gains.insert(change(None))),
                        (Some(_), None) => drop(difference.losses.insert(change(None))),
                        (Some(before), Some(after)) => {
                            difference.gains.extend(shown(&before, &after).map(|member| change(Some(member))));
                            difference.losses.extend(shown(&after, &before).map(|member| change(Some(member))));
                        }
                        (None, None) => {}
                    }
                }
            }
        }
    }

    /// The operations that either side grants the caller on the container, in whatever partition: no other can differ.
    fn held(&self, caller: &Caller, container: &ContainerName) -> Operations {
        let request = caller.asks(Action::Metadata, container, None);
        let granted = [self.base, self.head].into_iter().flat_map(|set| set.entitlements_on(&request));
        granted
            .filter(|entitlement| is_held(entitlement, &request))
            .flat_map(|entitlement| entitlement.grant.operations.iter())
            .collect()
    }
}

/// Below a partition the same is to be expected as in it, and as elsewhere; only what differs is news.
fn drop_what_follows(changes: &mut BTreeSet<Change>) {
    let all = changes.clone();
    changes.retain(|change| {
        let Some(above) = change.partition.strip_prefix(BELOW) else { return true };
        let told = |partition: &str| all.contains(&Change { partition: partition.to_owned(), ..change.clone() });
        !told(above) && !told(ELSEWHERE)
    });
}

/// A request without a key counts as allowed when it runs over the whole container: where a key is filled in, the question with
/// that key has told the rest.
fn allowed(
    set: &PolicySet,
    caller: &Caller,
    operation: Operation,
    container: &ContainerName,
    key: Option<&PartitionKey>,
) -> Option<Permit> {
    match decide(set, &caller.asks(Action::Operation(operation), container, key)) {
        Decision::Allow(permit) => (key.is_some() || permit.partition_key().is_none()).then_some(permit),
        Decision::Deny(_) | Decision::Ambiguous(_) => None,
    }
}

/// What `by` shows of that which `masking` masks.
fn shown(masking: &Permit, by: &Permit) -> impl Iterator<Item = String> {
    let pointers = masking.mask().into_iter().flat_map(Mask::pointers);
    pointers.filter(|pointer| !by.mask().is_some_and(|mask| mask.hides(pointer))).map(ToString::to_string)
}

fn all_callers(base: &PolicySet, head: &PolicySet) -> Vec<(String, Caller)> {
    let mut all: Vec<(String, Caller)> = Vec::new();
    let mut selectors: Vec<&Selector> = Vec::new();
    for set in [base, head] {
        for entitlement in set.entitlements() {
            if !selectors.contains(&&*entitlement.holder) {
                selectors.push(&entitlement.holder);
            }
        }
    }
    let denied: Vec<&Selector> = [base, head]
        .into_iter()
        .flat_map(|set| set.denies())
        .flat_map(|deny| deny.workloads.iter().flatten())
        .collect();
    let mut contexts: Vec<Selector> = Vec::new();
    for deny in [base, head].into_iter().flat_map(|set| set.denies()).filter(|deny| !deny.context.is_empty()) {
        let issuers: HashSet<_> = selectors.iter().map(|selector| &selector.issuer).collect();
        let of_issuer = |issuer| Selector { issuer, claims: [].into(), context: deny.context.clone() };
        contexts.extend(issuers.into_iter().cloned().map(of_issuer));
    }
    for selector in &selectors {
        all.extend(callers(selector).into_iter().map(|caller| (describe(&caller.chosen), caller)));
        for narrower in denied.iter().copied().chain(&contexts).filter(|deny| deny.may_meet(selector)) {
            all.extend(meeting(selector, narrower));
        }
    }
    all
}

/// Callers that both selectors describe.
fn meeting(selector: &Selector, narrower: &Selector) -> Vec<(String, Caller)> {
    let mut both = Vec::new();
    for caller in callers(selector) {
        for other in callers(narrower) {
            let text = format!("{} that are {}", describe(&caller.chosen), describe(&other.chosen));
            for replace in [false, true] {
                let mut merged = caller.clone().with_claims(other.claims.as_map().clone(), replace);
                merged.chosen.claims = caller.chosen.claims.iter().chain(&other.chosen.claims).cloned().collect();
                let context = &mut merged.context;
                let (mine, theirs) =
                    if replace { (&other.context, &caller.context) } else { (&caller.context, &other.context) };
                context.execution = mine.execution.clone().or_else(|| theirs.execution.clone());
                context.state = mine.state.clone().or_else(|| theirs.state.clone());
                both.push((text.clone(), merged));
            }
        }
    }
    both
}

fn containers(base: &PolicySet, head: &PolicySet) -> Vec<(String, ContainerName)> {
    let mut all: Vec<(String, ContainerName)> = Vec::new();
    for pattern in base.containers().chain(head.containers()) {
        if let Ok(name) = pattern.checked_example()
            && !all.iter().any(|(_, known)| *known == name)
        {
            all.push((pattern.to_string(), name));
        }
    }
    all
}

fn partitions(base: &PolicySet, head: &PolicySet, caller: &Caller) -> Vec<(String, Option<PartitionKey>)> {
    // Not the neutral value: a furnished caller's own key is made of that.
    let neutral = || KeyComponent::Text("~other".into());
    let mut all: Vec<(String, Option<PartitionKey>)> = vec![("the whole container".to_owned(), None)];
    let mut add = |text: String, key: PartitionKey| {
        if !all.iter().any(|(_, known)| known.as_ref() == Some(&key)) {
            all.push((text, Some(key)));
        }
    };
    let mut written: Vec<&KeyTemplate> = base.templates().chain(head.templates()).collect();
    written.sort_by_key(|template| template.len());
    for template in &written {
        for key in template.candidates(&caller.claims) {
            let deeper = [key.components(), &[neutral()]].concat();
            let text = template.to_json().to_string();
            if let Ok(deeper) = PartitionKey::new(deeper) {
                add(format!("{BELOW}{text}"), deeper);
            }
            add(text, key);
        }
    }
    let longest = written.last().map_or(1, |template| template.len());
    for length in 1..=longest {
        if let Ok(key) = PartitionKey::new(vec![neutral(); length]) {
            add(ELSEWHERE.to_owned(), key);
        }
    }
    all
}

/// Why one side of a comparison cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SideError {
    /// The policy is wrong.
    #[error("the policy has errors")]
    Policy(Vec<Diagnostic>),
    /// Neither a directory nor a revision.
    #[error("`{0}` is neither a directory nor a git revision that has {1}; name one of them")]
    Unknown(String, PathBuf),
}

/// Loads one side of a comparison: a directory, or the policy `directory` as it was at a git revision.
pub fn load_side(side: &str, directory: &Path) -> Result<PolicySet, SideError> {
    let config = |directory: &Path| Config { directory: directory.to_owned(), issuers: None };
    if Path::new(side).is_dir() {
        return load::load(&config(Path::new(side))).map_err(SideError::Policy);
    }
    let unknown = || SideError::Unknown(side.to_owned(), directory.to_owned());
    let commit = revision::commit(directory, side).ok_or_else(unknown)?;
    let files = files_at(directory, &commit).filter(|files| !files.is_empty()).ok_or_else(unknown)?;
    let directory = Directory::of(directory, files);
    load::build(&directory, Revision(commit.into()), &config(directory.path())).map_err(SideError::Policy)
}

/// The policy files below `directory` at a commit. Symbolic links are not followed there.
fn files_at(directory: &Path, commit: &str) -> Option<Vec<(String, String)>> {
    let listing = String::from_utf8(revision::git(directory, &["ls-tree", "-r", "-z", commit])?).ok()?;
    let mut files = Vec::new();
    for entry in listing.split_terminator('\0') {
        let (about, name) = entry.split_once('\t')?;
        let mut about = about.split(' ');
        let (mode, object) = (about.next()?, about.nth(1)?);
        let hidden = name.split('/').any(|part| part.starts_with('.'));
        if mode.starts_with("100") && name.ends_with(".yaml") && !hidden {
            let text = revision::git(directory, &["cat-file", "blob", object])?;
            files.push((name.to_owned(), String::from_utf8(text).ok()?));
        }
    }
    Some(files)
}

impl Difference {
    /// Whether anyone gains anything.
    pub fn widens(&self) -> bool {
        !self.gains.is_empty()
    }

    /// As `diff --format json` prints it.
    pub fn to_json(&self) -> Value {
        serde_json::json!({ "widens": self.widens(), "gains": self.gains, "losses": self.losses })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::findings::build, *};

    fn policy(grant: &str, workload: &str, deny: &str) -> PolicySet {
        let text = format!(
            "roles: {{ r: {{ grants: [{{ container: d/c, {grant} }}] }} }}\n\
             bindings: [{{ role: r, workloads: [{{ issuer: i, {workload} }}] }}]\ndeny: [{deny}]\n"
        );
        build(&[("p.yaml", &text)], None).unwrap()
    }

    fn lines(changes: &BTreeSet<Change>) -> Vec<String> {
        changes.iter().map(|c| format!("{} | {} | {} | {}", c.workload, c.container, c.partition, c.what())).collect()
    }

    const READ: &str = "operations: [items/read]";
    const CLIENT: &str = "claims: { c: w }";

    #[test]
    fn the_same_policy_in_other_words_is_no_difference() {
        let a = policy("operations: ['items/*']", CLIENT, "");
        let written = "operations: [items/create, items/upsert, items/read, items/replace, items/patch, items/delete]";
        assert_eq!(diff(&a, &policy(written, CLIENT, "")), Difference::default());
    }

    #[test]
    fn an_added_operation_is_a_gain_and_the_way_back_a_loss() {
        let (a, b) = (policy(READ, CLIENT, ""), policy("operations: [items/read, query]", CLIENT, ""));
        let there = diff(&a, &b);
        assert!(there.losses.is_empty() && there.widens());
        assert!(
            lines(&there.gains).contains(&r#"i c="w" | d/c | the whole container | query"#.to_owned()),
            "{there:#?}"
        );
        let back = diff(&b, &a);
        assert_eq!((back.gains.len(), &back.losses), (0, &there.gains));
    }

    #[test]
    fn every_kind_of_widening_is_seen() {
        let own = r#"partition_key: ["{claims.t}"], operations: [items/read]"#;
        let deny = |who: &str| format!("{{ name: d, container: d/c, operations: [items/read], workloads: {who} }}");
        let narrow_and_wide = [
            (policy(own, CLIENT, ""), policy(READ, CLIENT, "")),
            (
                policy(r#"partition_key: ["{claims.t}", x], operations: [items/read]"#, CLIENT, ""),
                policy(own, CLIENT, ""),
            ),
            (policy(READ, "claims: { c: w1* }", ""), policy(READ, "claims: { c: w* }", "")),
            (policy(READ, CLIENT, ""), policy(READ, "claims: { c: [w, v] }", "")),
            (policy(READ, "claims: { c: w, t: x }", ""), policy(READ, CLIENT, "")),
            (policy(READ, "claims: { c: w }, states: [S]", ""), policy(READ, CLIENT, "")),
            (policy(READ, "states: [S], assurance: signed", ""), policy(READ, "states: [S]", "")),
            (policy(READ, CLIENT, &deny("all")), policy(READ, CLIENT, "")),
            (
                policy(READ, "claims: { c: w* }", &deny("[{ issuer: i, claims: { c: w9 } }]")),
                policy(READ, "claims: { c: w* }", ""),
            ),
            (policy(READ, CLIENT, &deny("all, states: [P]")), policy(READ, CLIENT, "")),
            // Only who is surer of its state than the grant asks is told from those that the deny means.
            (
                policy(READ, "states: ['S*']", &deny("all")),
                policy(READ, "states: ['S*']", &deny("[{ issuer: i, states: [S], assurance: signed }]")),
            ),
            (policy(READ, CLIENT, &deny("all, partition_key: [z]")), policy(READ, CLIENT, "")),
        ];
        for (i, (narrow, wide)) in narrow_and_wide.iter().enumerate() {
            let difference = diff(narrow, wide);
            assert!(difference.widens() && difference.losses.is_empty(), "{i}: {difference:#?}");
        }
    }

    #[test]
    fn a_mask_that_is_removed_or_narrowed_widens() {
        let masked = |mask: &str| policy(&format!("{READ}, mask: [{mask}]"), CLIENT, "");
        let narrow_and_wide = [
            ("/card", None, "/card"),
            ("/card", Some("/card/number"), "/card"),
            ("/card, /email", Some("/email"), "/card"),
            ("/iban", Some("{ partial: /iban }"), "/iban"),
            ("{ partial: /iban }", None, "/iban"),
        ];
        for (narrow, wide, member) in narrow_and_wide {
            let wide = wide.map_or_else(|| policy(READ, CLIENT, ""), masked);
            let there = diff(&masked(narrow), &wide);
            let expected = format!(r#"i c="w" | d/c | the whole container | items/read of {member}"#);
            assert!(there.widens() && lines(&there.gains).contains(&expected), "{narrow}: {there:#?}");
            assert!(diff(&wide, &masked(narrow)).losses == there.gains, "{narrow}");
        }
        let same = diff(&masked("{ redact: /card }"), &masked("/card, /card/number"));
        assert!(same == Difference::default(), "{same:#?}");
    }

    #[test]
    fn an_agent_that_becomes_a_workload_gains_what_no_word_names() {
        let bound = |agent: &str| {
            let text = format!(
                "roles: {{ r: {{ grants: [{{ container: d/c, operations: ['*', items/patch] }}] }} }}\n\
                 bindings: [{{ role: r, {agent}workloads: [{{ issuer: i }}] }}]\n"
            );
            build(&[("p.yaml", &text)], None).unwrap()
        };
        let difference = diff(&bound("agent: true, "), &bound(""));
        let gained: BTreeSet<_> = difference.gains.iter().map(Change::what).collect();
        let words = ["batch", "execute", "items/create", "items/delete", "items/replace", "items/upsert"];
        assert_eq!(gained, words.map(str::to_owned).into());
    }

    #[test]
    fn a_git_revision_is_a_side() {
        let root = tempfile::tempdir().unwrap();
        let policies = root.path().join("policies");
        std::fs::create_dir(&policies).unwrap();
        std::fs::write(
            policies.join("p.yaml"),
            "deny: [{ name: d, container: d/c, operations: [query], workloads: all }]\n",
        )
        .unwrap();
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"];
        for arguments in [&["init", "--quiet"][..], &["add", "."], &["commit", "--quiet", "-m", "one"]] {
            revision::git(root.path(), &[&identity, arguments].concat()).unwrap();
        }
        std::fs::write(policies.join("p.yaml"), "deny: []\n").unwrap();
        let before = load_side("HEAD", &policies).unwrap();
        assert_eq!((before.clauses().count(), before.revision().as_str().len()), (1, 40));
        assert_eq!(load_side(policies.to_str().unwrap(), &policies).unwrap().clauses().count(), 0);
        assert!(matches!(load_side("no-such", &policies), Err(SideError::Unknown(..))));
        assert!(matches!(load_side("--help", &policies), Err(SideError::Unknown(..))));
    }
}
