//! Roles that take over the grants of other roles.
//!
//! A grant keeps the name of the role it is written in, whoever takes it over: that is where a reader finds it. A role that
//! reaches itself is an error at the inclusion that closes the circle, since nobody can have meant it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::{
    compile::{Check, File, listed},
    model::Grant,
};
use crate::diagnostic::Diagnostic;

/// A role as it was written.
pub(super) struct Role<'a> {
    /// Where it was written first.
    pub(super) file: &'a File,
    /// Its path in that file's document.
    pub(super) path: String,
    pub(super) own: Vec<Arc<Grant>>,
    pub(super) include: &'a [String],
}

/// The grants of each role, its own first; each once.
pub(super) type Grants = BTreeMap<Arc<str>, Arc<[Arc<Grant>]>>;

/// Adds to each role's grants those of the roles it includes.
pub(super) fn include(roles: &BTreeMap<Arc<str>, Role<'_>>, diagnostics: &mut Vec<Diagnostic>) -> Grants {
    let mut walk = Walk { roles, diagnostics, done: Grants::new(), way: Vec::new() };
    roles.keys().for_each(|name| walk.from(name));
    walk.done
}

struct Walk<'a, 'r> {
    roles: &'a BTreeMap<Arc<str>, Role<'r>>,
    diagnostics: &'a mut Vec<Diagnostic>,
    done: Grants,
    /// The roles on the way here, each with the position of the inclusion to follow next.
    way: Vec<(&'a Arc<str>, usize)>,
}

impl<'a> Walk<'a, '_> {
    /// Depth first, without recursion: files may nest roles deeper than a stack is.
    fn from(&mut self, name: &'a Arc<str>) {
        if !self.done.contains_key(name) {
            self.way.push((name, 0));
        }
        while let Some((name, next)) = self.way.last_mut() {
            let (name, position) = (*name, *next);
            *next += 1;
            let included = self.roles.get(name).and_then(|role| role.include.get(position));
            match included {
                Some(included) => self.follow(name, position, included),
                None => self.finish(name),
            }
        }
    }

    fn follow(&mut self, name: &str, position: usize, included: &str) {
        match self.roles.get_key_value(included) {
            None => {
                let mend = format!("the roles are {}", listed(self.roles.keys().map(|name| &**name)));
                self.error(name, position, format!("there is no role `{included}` to include"), mend);
            }
            Some((included, _)) if self.done.contains_key(included) => {}
            Some((included, _)) => match self.way.iter().position(|(on_the_way, _)| *on_the_way == included) {
                Some(start) => {
                    let circle: Vec<_> = self.way.iter().skip(start).map(|(name, _)| &***name).collect();
                    let message = format!("the role `{included}` includes itself: {} > {included}", circle.join(" > "));
                    self.error(name, position, message, "take one of the inclusions out".to_owned());
                }
                None => self.way.push((included, 0)),
            },
        }
    }

    fn finish(&mut self, name: &Arc<str>) {
        self.way.pop();
        let Some(role) = self.roles.get(name) else { return };
        let taken =
            role.include.iter().filter_map(|included| self.done.get(included.as_str())).flat_map(|all| all.iter());
        let mut seen = HashSet::new();
        let all = role.own.iter().chain(taken).filter(|grant| seen.insert(Arc::as_ptr(grant))).cloned();
        self.done.insert(name.clone(), all.collect());
    }

    fn error(&mut self, name: &str, position: usize, message: String, mend: String) {
        if let Some(role) = self.roles.get(name) {
            let mut check = Check { file: role.file, issuers: None, diagnostics: &mut *self.diagnostics };
            check.error(&format!("{}/include/{position}", role.path), message, mend);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::findings::build;
    use crate::{diagnostic::Severity, policy::PolicySet};

    const BIND: &str = "bindings: [{ role: top, workloads: [{ issuer: i }] }]\n";

    fn grant(container: &str) -> String {
        format!("{{ container: d/{container}, operations: [query] }}")
    }

    fn held(set: &PolicySet) -> Vec<String> {
        let held = set.entitlements().iter();
        held.map(|e| format!("{} {} {}", e.grant.clause.name, e.grant.container, e.grant.clause.place)).collect()
    }

    fn errors(text: &str) -> Vec<String> {
        let findings = build(&[("p.yaml", text)], None).unwrap_err();
        let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
        errors.map(|finding| format!("{}:{}: {}", finding.line, finding.column, finding.message)).collect()
    }

    #[test]
    fn grants_are_taken_over_once_and_keep_their_names() {
        let text = format!(
            "roles:\n  top: {{ include: [left, right], grants: [{}] }}\n  left: {{ include: [base] }}\n  right: {{ include: [base], grants: [{}] }}\n  base: {{ grants: [{}] }}\n{BIND}",
            grant("t"),
            grant("r"),
            grant("b"),
        );
        let set = build(&[("p.yaml", &text)], None).unwrap();
        assert_eq!(held(&set), ["top d/t p.yaml:2", "right d/r p.yaml:4", "base d/b p.yaml:5"]);
        assert!(set.warnings().is_empty(), "an included role is in use: {:?}", set.warnings());
    }

    #[test]
    fn roles_of_other_files_are_included() {
        let top = format!("roles: {{ top: {{ include: [base] }} }}\n{BIND}");
        let base = format!("roles: {{ base: {{ grants: [{}] }} }}\n", grant("b"));
        assert_eq!(held(&build(&[("a.yaml", &top), ("b.yaml", &base)], None).unwrap()), ["base d/b b.yaml:1"]);
    }

    #[test]
    fn circles_and_unknown_roles_are_told_with_their_places() {
        let text = format!(
            "roles:\n  top: {{ include: [a, absent] }}\n  a: {{ include: [b] }}\n  b: {{ include: [a, b] }}\n  c: {{}}\n{BIND}"
        );
        assert_eq!(
            errors(&text),
            [
                "2:23: there is no role `absent` to include",
                "4:18: the role `a` includes itself: a > b > a",
                "4:21: the role `b` includes itself: b > b",
                "5:6: the role `c` grants nothing",
            ]
        );
    }

    #[test]
    fn a_long_chain_of_roles_is_no_deep_stack() {
        let mut text = format!("{BIND}roles:\n  top: {{ include: [r0] }}\n");
        for i in 0..20_000 {
            text += &format!("  r{i}: {{ include: [r{}] }}\n", i + 1);
        }
        text += &format!("  r20000: {{ grants: [{}] }}\n", grant("b"));
        assert_eq!(held(&build(&[("p.yaml", &text)], None).unwrap()).len(), 1);
    }
}
