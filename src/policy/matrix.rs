//! The example policies as one table: every workload, container and operation, as the evaluator answers. A change of meaning shows
//! as a diff a person can read.

use std::{collections::BTreeSet, fmt::Write as _, path::Path};

use super::{
    Config, Decision, PolicySet, decide,
    hypothesis::{callers, describe},
    load, run_cases,
};
use crate::access::{Action, ContainerName, Operation};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn example() -> (PolicySet, std::path::PathBuf) {
    let directory = Path::new(ROOT).join("policies");
    let set = load(&Config { directory: directory.clone(), issuers: None });
    (set.unwrap_or_else(|findings| panic!("{findings:#?}")), directory)
}

/// `own`: the partition that the grant fixes; `all`: the whole container; `-`: denied.
fn matrix(set: &PolicySet) -> String {
    let containers: BTreeSet<ContainerName> =
        set.containers().filter_map(|pattern| pattern.checked_example().ok()).collect();
    let mut workloads: Vec<_> = set.entitlements().iter().map(|entitlement| entitlement.holder.clone()).collect();
    workloads.sort_by_key(|holder| describe(holder));
    workloads.dedup();
    let mut table = String::from(
        "Made by the evaluator from policies/. own: the grant's own partition; all: the whole container.\n",
    );
    for holder in &workloads {
        // The values that a selector lists are alike to the policy, so the first stands for all.
        for caller in callers(holder).into_iter().take(1) {
            let caller = caller.furnished(&set.claim_names());
            writeln!(table, "\n{}\n{:16}{}", describe(holder), "", heading()).unwrap();
            for container in &containers {
                write!(table, "  {:14}", container.to_string()).unwrap();
                for operation in Operation::ALL {
                    let width = operation.as_str().len();
                    let cell = match decide(set, &caller.asks(Action::Operation(operation), container, None)) {
                        Decision::Allow(permit) if permit.partition_key().is_some() => "own",
                        Decision::Allow(_) => "all",
                        _ => "-",
                    };
                    write!(table, "  {cell:width$}").unwrap();
                }
                table.truncate(table.trim_end().len());
                table.push('\n');
            }
        }
    }
    table
}

fn heading() -> String {
    Operation::ALL.map(|operation| format!("  {operation}")).concat()
}

#[test]
fn the_example_policies_mean_what_the_golden_table_says() {
    let path = Path::new(ROOT).join("tests/golden/policy-matrix.txt");
    let table = matrix(&example().0);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(table == golden, "run the tests with UPDATE_GOLDEN=1 and read the diff; now:\n{table}");
}

#[test]
fn the_example_policies_pass_their_tests_with_every_clause_reached() {
    let (set, directory) = example();
    let report = run_cases(&set, &directory).unwrap();
    assert_eq!((report.failed, report.uncovered.as_slice()), (0, [].as_slice()), "{report:#?}");
    assert!(report.passed > 0);
}
