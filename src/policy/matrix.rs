//! A policy as one table: every workload, container and operation, as the evaluator answers. A change of meaning shows as a
//! diff a person can read.

use std::{collections::BTreeSet, fmt};

use serde::Serialize;

use super::{
    Decision, PolicySet, decide,
    hypothesis::{callers, describe},
};
use crate::access::{Action, ContainerName, Operation};

/// Who may do what, where no partition is named.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Matrix {
    /// One for each workload that a binding describes.
    pub workloads: Vec<Reaches>,
}

/// What a workload may do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Reaches {
    /// The workload, as the binding describes it. The values that it lists are alike to the policy, so the first stands for all.
    pub workload: String,
    /// One row for each container that a clause names.
    pub rows: Vec<Row>,
}

/// What a workload may do on a container.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Row {
    /// The container.
    pub container: String,
    /// One cell for each operation, in the order of [`Operation::ALL`].
    pub cells: Vec<Cell>,
}

/// What a workload may do on a container with one operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cell {
    /// Nothing.
    #[serde(rename = "-")]
    Nothing,
    /// In the partition that the grant fixes.
    Own,
    /// In the partition that the grant fixes, with members masked.
    #[serde(rename = "own*")]
    OwnMasked,
    /// In the whole container.
    All,
    /// In the whole container, with members masked.
    #[serde(rename = "all*")]
    AllMasked,
}

impl Cell {
    /// The word in the table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "-",
            Self::Own => "own",
            Self::OwnMasked => "own*",
            Self::All => "all",
            Self::AllMasked => "all*",
        }
    }
}

/// The table of a policy.
pub fn matrix(set: &PolicySet) -> Matrix {
    let containers: BTreeSet<ContainerName> =
        set.containers().filter_map(|pattern| pattern.checked_example().ok()).collect();
    let mut holders: Vec<_> = set.entitlements().iter().map(|entitlement| entitlement.holder.clone()).collect();
    holders.sort_by_key(|holder| describe(holder));
    holders.dedup();
    let reaches = |holder| {
        let caller = callers(holder).into_iter().next()?.furnished(&set.claim_names()).proven();
        let cell = |container: &ContainerName, operation| match decide(
            set,
            &caller.asks(Action::Operation(operation), container, None),
        ) {
            Decision::Allow(permit) => match (permit.partition_key().is_some(), permit.mask().is_some()) {
                (true, false) => Cell::Own,
                (true, true) => Cell::OwnMasked,
                (false, false) => Cell::All,
                (false, true) => Cell::AllMasked,
            },
            Decision::Deny(_) | Decision::Ambiguous(_) => Cell::Nothing,
        };
        let row = |container: &ContainerName| Row {
            container: container.to_string(),
            cells: Operation::ALL.iter().map(|operation| cell(container, *operation)).collect(),
        };
        Some(Reaches { workload: describe(holder), rows: containers.iter().map(row).collect() })
    };
    Matrix { workloads: holders.iter().filter_map(|holder| reaches(holder)).collect() }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("own: the grant's own partition; all: the whole container; *: with members masked; -: denied\n")?;
        for Reaches { workload, rows } in &self.workloads {
            let widest = rows.iter().map(|row| row.container.len()).max().unwrap_or_default();
            write!(f, "\n{workload}\n  {:widest$}", "")?;
            Operation::ALL.iter().try_for_each(|operation| write!(f, "  {operation}"))?;
            for Row { container, cells } in rows {
                let mut line = format!("  {container:widest$}");
                for (cell, operation) in cells.iter().zip(Operation::ALL) {
                    line += &format!("  {:width$}", cell.as_str(), width = operation.as_str().len());
                }
                write!(f, "\n{}", line.trim_end())?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{
        super::{findings::build, hypothesis::FOR_THE_SURER},
        *,
    };
    use crate::policy::{Config, load, mutate, run_cases};

    const ROOT: &str = env!("CARGO_MANIFEST_DIR");

    fn example() -> (PolicySet, std::path::PathBuf) {
        let directory = Path::new(ROOT).join("policies");
        let set = load(&Config { directory: directory.clone(), issuers: None });
        (set.unwrap_or_else(|findings| panic!("{findings:#?}")), directory)
    }

    #[test]
    fn the_example_policies_mean_what_the_golden_table_says() {
        let path = Path::new(ROOT).join("tests/golden/policy-matrix.txt");
        let table = matrix(&example().0).to_string();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &table).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(table == golden, "run the tests with UPDATE_GOLDEN=1 and read the diff; now:\n{table}");
    }

    #[test]
    fn the_example_policies_pass_their_tests_and_no_mistake_in_them_would() {
        let (set, directory) = example();
        let report = run_cases(&set, &directory).unwrap();
        assert_eq!((report.failed, report.uncovered.as_slice()), (0, [].as_slice()), "{report:#?}");
        let mutation = mutate(&directory, &directory).unwrap();
        assert_eq!((mutation.noticed, mutation.survivors.as_slice()), (mutation.mutants, [].as_slice()));
    }

    #[test]
    fn a_cell_is_of_callers_as_sure_of_their_context_as_can_be() {
        let matrix = matrix(&build(&[("p.yaml", FOR_THE_SURER)], None).unwrap());
        assert!(matrix.workloads[0].rows[0].cells.contains(&Cell::All), "{matrix}");
    }
}
