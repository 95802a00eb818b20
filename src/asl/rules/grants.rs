//! What a definition needs of the policies.

use crate::{
    asl::check::{Check, Spot},
    policy::Verdict,
};

pub(super) fn not_granted(check: &Check<'_>) -> Vec<Spot> {
    of_answers(check, |operation, container, workload, verdict| {
        let Verdict::NotGranted = verdict else { return None };
        let message = match workload {
            Some(workload) => format!(
                "no grant allows {operation} on {container} to {workload}, the workload that may do the most of this"
            ),
            None => format!("no workload holds a grant that allows {operation} on {container}"),
        };
        let mend = "grant it (`stepgate asl grants` writes the least that is needed), and add a test case";
        Some((message, mend.to_owned()))
    })
}

pub(super) fn denied(check: &Check<'_>) -> Vec<Spot> {
    of_answers(check, |operation, container, workload, verdict| {
        let Verdict::Denied { by: clauses, .. } = verdict else { return None };
        let clauses: Vec<_> = clauses.iter().map(ToString::to_string).collect();
        let workload = workload.unwrap_or("the workload");
        let message =
            format!("{operation} on {container} is granted to {workload}, but {} denies it", clauses.join(", "));
        Some((message, "take the state out, or narrow the deny".to_owned()))
    })
}

fn of_answers(
    check: &Check<'_>,
    tell: impl Fn(&str, &str, Option<&str>, &Verdict) -> Option<(String, String)>,
) -> Vec<Spot> {
    let Some(permits) = &check.permits else { return Vec::new() };
    let told = permits.answers.iter().filter_map(|answer| {
        let task = check.tasks.iter().find(|task| task.state == answer.state)?;
        let container = &task.call()?.container;
        let (message, mend) = tell(answer.operation.as_str(), container, permits.workload.as_deref(), &answer.verdict)?;
        Some(Spot::new(task.endpoint_path(), message, mend))
    });
    told.collect()
}
