//! What loads but deserves a look.

use std::collections::HashSet;

use super::{
    compile::{Compiled, File, escape},
    document::Workloads,
    model::{Deny, Grant},
};
use crate::diagnostic::{Diagnostic, Severity};

/// The warnings of a policy that compiled.
pub(super) fn warnings(files: &[File], compiled: &Compiled) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    let used = used_roles(files);
    for file in files {
        let mut warn = |path: &str, message: String, mend: &str| {
            let place = file.places.of(path);
            warnings.push(file.source.at(Severity::Warning, place, message, Some(mend.to_owned())));
        };
        unused_roles(file, &used, &mut warn);
        chosen_facts(file, &mut warn);
    }
    warnings.extend(dead_grants(files, compiled));
    warnings.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    warnings
}

/// The roles that are bound, and those they include.
fn used_roles(files: &[File]) -> HashSet<&str> {
    let mut to_follow: Vec<&str> =
        files.iter().flat_map(|file| &file.document.bindings).map(|binding| binding.role.as_str()).collect();
    let mut used = HashSet::new();
    while let Some(role) = to_follow.pop() {
        if used.insert(role) {
            let written = files.iter().filter_map(|file| file.document.roles.get(role));
            to_follow.extend(written.flat_map(|role| &role.include).map(String::as_str));
        }
    }
    used
}

fn unused_roles(file: &File, used: &HashSet<&str>, warn: &mut impl FnMut(&str, String, &str)) {
    for name in file.document.roles.keys().filter(|name| !used.contains(name.as_str())) {
        let path = format!("roles/{}", escape(name));
        warn(&path, format!("nobody is bound to the role `{name}`"), "bind it, or remove it");
    }
}

/// Grants of which a deny leaves nothing.
fn dead_grants<'a>(files: &'a [File], compiled: &'a Compiled) -> impl Iterator<Item = Diagnostic> + 'a {
    let for_all: Vec<_> =
        compiled.denies.iter().filter(|deny| deny.workloads.is_none() && deny.context.is_empty()).collect();
    compiled.grants.iter().filter_map(move |grant| {
        let deny = for_all.iter().find(|deny| swallows(deny, grant))?;
        let (name, index) = (&grant.clause.name, grant.clause.index);
        let file = files
            .iter()
            .find(|file| grant.clause.place.strip_prefix(&*file.name).is_some_and(|rest| rest.starts_with(':')))?;
        let place = file.places.of(&format!("roles/{}/grants/{index}", escape(name)));
        let message = format!("everything that this grant of `{name}` allows is denied by `{}`", deny.clause.name);
        let mend = "remove the grant, or narrow the deny".to_owned();
        Some(file.source.at(Severity::Warning, place, message, Some(mend)))
    })
}

/// Whether the deny, which is for everyone, refuses all that the grant allows.
fn swallows(deny: &Deny, grant: &Grant) -> bool {
    deny.container.covers(&grant.container)
        && deny.operations.contains_all(grant.operations)
        && (deny.partition.is_none() || deny.partition == grant.partition)
}

fn chosen_facts(file: &File, warn: &mut impl FnMut(&str, String, &str)) {
    use crate::access::Assurance;
    let rests = |names_a_fact: bool, assurance: Option<Assurance>| {
        (names_a_fact || assurance.is_some()) && assurance != Some(Assurance::Proven)
    };
    let mut check = |workloads: &[super::document::Workload], path: &str| {
        for (i, workload) in workloads.iter().enumerate() {
            if rests(workload.state_machines.is_some() || workload.states.is_some(), workload.assurance) {
                warn(
                    &format!("{path}/workloads/{i}"),
                    "this rests on a fact that the caller can choose".to_owned(),
                    "demand `assurance: proven` where the issuer can prove it; else it guards against mistakes, not against the caller",
                );
            }
        }
    };
    for (i, binding) in file.document.bindings.iter().enumerate() {
        check(&binding.workloads, &format!("bindings/{i}"));
    }
    for (i, deny) in file.document.deny.iter().enumerate() {
        if let Workloads::These(workloads) = &deny.workloads {
            check(workloads, &format!("deny/{i}"));
        }
    }
    for (i, deny) in file.document.deny.iter().enumerate() {
        if rests(deny.state_machines.is_some() || deny.states.is_some(), None) {
            warn(
                &format!("deny/{i}"),
                format!("`{}` rests on a fact that the caller can choose", deny.name),
                "deny by claims, or for all states; a caller who wants around it names another state",
            );
        }
    }
}
