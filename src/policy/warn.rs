//! What loads but deserves a look.

use super::{
    compile::{Compiled, File, escape},
    document::Workloads,
    model::{Deny, Grant},
};
use crate::diagnostic::{Diagnostic, Severity};

/// The warnings of a policy that compiled.
pub(super) fn warnings(files: &[File], compiled: &Compiled) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    for file in files {
        let mut warn = |path: &str, message: String, mend: &str| {
            let place = file.places.of(path);
            warnings.push(file.source.at(Severity::Warning, place, message, Some(mend.to_owned())));
        };
        unused_roles(file, files, compiled, &mut warn);
        chosen_facts(file, &mut warn);
    }
    warnings
}

fn unused_roles(file: &File, files: &[File], compiled: &Compiled, warn: &mut impl FnMut(&str, String, &str)) {
    for name in file.document.roles.keys() {
        let path = format!("roles/{}", escape(name));
        if !files.iter().flat_map(|file| &file.document.bindings).any(|binding| binding.role == *name) {
            warn(&path, format!("nobody is bound to the role `{name}`"), "bind it, or remove it");
        }
        for (i, grant) in compiled.roles.get(name.as_str()).into_iter().flatten().enumerate() {
            if let Some(deny) = compiled.denies.iter().find(|deny| swallows(deny, grant)) {
                let message =
                    format!("everything that this grant of `{name}` allows is denied by `{}`", deny.clause.name);
                warn(&format!("{path}/grants/{i}"), message, "remove the grant, or narrow the deny");
            }
        }
    }
}

/// Whether the deny refuses to everyone all that the grant allows.
fn swallows(deny: &Deny, grant: &Grant) -> bool {
    deny.workloads.is_none()
        && deny.context.is_empty()
        && deny.container.covers(&grant.container)
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
