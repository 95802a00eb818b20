//! `stepgate policy …`: the policy files from the command line, with no gateway at hand.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use stepgate::{
    access::{ContainerName, Operation, PartitionKey},
    diagnostic::{Diagnostic, Source},
    policy::{self, Change, Config, Difference, Holder, MutationReport, PolicySet, Question, SideError, TestReport},
};

use crate::exit;

/// Ask the policy files, without a gateway.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run the `*.test.yaml` cases beside the policies, and say which grants and denies no case reaches.
    #[command(
        after_help = "Examples:\n  stepgate policy test policies --min-coverage 100\n  stepgate policy test policies --mutate"
    )]
    Test(Test),
    /// Say how one request is decided, by which clause, and what came near.
    #[command(after_help = "Example:\n  stepgate policy explain --policies policies --request request.yaml\n\n\
        request.yaml:\n  given: { issuer: local, claims: { client_id: fulfilment, tenant: t1 } }\n  \
        when: { operation: items/read, container: shop/orders, partition_key: [t1] }")]
    Explain(Explain),
    /// List the workloads that may do an operation on a container.
    #[command(after_help = "Example:\n  stepgate policy who-can items/delete shop/orders --partition-key '[\"t1\"]'")]
    WhoCan(WhoCan),
    /// Compare two directories or two git revisions: who gains what, and who loses what.
    #[command(after_help = "Examples:\n  stepgate policy diff origin/main HEAD --fail-on-widening\n  \
        stepgate policy diff origin/main HEAD --format markdown > comment.md")]
    Diff(Diff),
    /// Print who may do what, as a table: every workload, container and operation.
    #[command(after_help = "Example:\n  stepgate policy matrix --policies policies")]
    Matrix(Matrix),
    /// Print the JSON Schema of the policy files.
    #[command(after_help = "Example:\n  stepgate policy schema > config/policy.schema.json")]
    Schema,
}

/// How a report is written.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

/// How a comparison is written.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DiffFormat {
    /// For people.
    Text,
    /// One JSON document.
    Json,
    /// For a comment on a pull request.
    Markdown,
}

/// `policy test`
#[derive(Args, Debug)]
pub(crate) struct Test {
    /// The directory of the cases; the policies are taken from it too, unless `--policies` names another.
    directory: Option<PathBuf>,
    /// The directory of the policy files [default: DIRECTORY, or `policies`].
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// Exit 4 when a smaller share of the grants and denies decided a case, in percent.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    min_coverage: Option<u8>,
    /// Drop or widen each clause in turn, and exit 4 when no case notices.
    #[arg(long)]
    mutate: bool,
    /// How to write the report.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// `policy explain`
#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// The directory of the policy files.
    #[arg(long, value_name = "DIR", default_value = "policies")]
    policies: PathBuf,
    /// A file with the `given` and `when` of one test case, in YAML or JSON.
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// How to write the report.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// `policy who-can`
#[derive(Args, Debug)]
pub(crate) struct WhoCan {
    /// The operation, such as items/read.
    operation: Operation,
    /// The container.
    #[arg(value_name = "DATABASE/CONTAINER")]
    container: ContainerName,
    /// Only this partition, as a JSON array.
    #[arg(long, value_name = "JSON")]
    partition_key: Option<PartitionKey>,
    /// The directory of the policy files.
    #[arg(long, value_name = "DIR", default_value = "policies")]
    policies: PathBuf,
    /// How to write the report.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// `policy diff`
#[derive(Args, Debug)]
pub(crate) struct Diff {
    /// The policy before: a directory, or a git revision.
    base: String,
    /// The policy after: a directory, or a git revision.
    head: String,
    /// The directory of the policy files, where a git revision is named.
    #[arg(long, value_name = "DIR", default_value = "policies")]
    policies: PathBuf,
    /// Exit 4 when anyone gains anything.
    #[arg(long)]
    fail_on_widening: bool,
    /// How to write the report.
    #[arg(long, value_enum, default_value = "text")]
    format: DiffFormat,
}

/// `policy matrix`
#[derive(Args, Debug)]
pub(crate) struct Matrix {
    /// The directory of the policy files.
    #[arg(long, value_name = "DIR", default_value = "policies")]
    policies: PathBuf,
    /// How to write the table.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// Runs the command; the exit code is the contract's (0 fine, 1 failed, 3 denied, 4 a check found problems).
pub(crate) fn run(command: Command) -> ExitCode {
    let outcome = match command {
        Command::Test(arguments) => test(&arguments),
        Command::Explain(arguments) => explain(&arguments),
        Command::WhoCan(arguments) => who_can(&arguments),
        Command::Diff(arguments) => diff(&arguments),
        Command::Matrix(arguments) => matrix(&arguments),
        Command::Schema => print(policy::schema().trim_end()).map(|()| ExitCode::SUCCESS).map_err(Failure::Output),
    };
    outcome.unwrap_or_else(|failure| failure.report())
}

/// Why a command has no answer.
enum Failure {
    /// The files are wrong.
    Policy(Vec<Diagnostic>),
    /// A side of a comparison is not there.
    Side(SideError),
    /// The request file cannot be read.
    Request(PathBuf, io::Error),
    /// The answer cannot be written.
    Output(io::Error),
}

impl From<Vec<Diagnostic>> for Failure {
    fn from(diagnostics: Vec<Diagnostic>) -> Self {
        Self::Policy(diagnostics)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Failure {
    fn report(self) -> ExitCode {
        let (text, code) = match self {
            Self::Policy(diagnostics) | Self::Side(SideError::Policy(diagnostics)) => {
                let texts: Vec<_> = diagnostics.iter().map(ToString::to_string).collect();
                (texts.join("\n"), exit::PROBLEMS)
            }
            Self::Side(error) => (format!("stepgate: {error}"), exit::FAILED),
            Self::Request(path, error) => {
                (format!("stepgate: {} cannot be read: {error}", path.display()), exit::FAILED)
            }
            // Whoever read the answer through a pipe has seen enough.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Self::Output(error) => (format!("stepgate: the answer cannot be written: {error}"), exit::FAILED),
        };
        // Nothing is left to do when even this cannot be written.
        let _ = writeln!(io::stderr(), "{text}");
        ExitCode::from(code)
    }
}

fn load(directory: &Path) -> Result<PolicySet, Failure> {
    Ok(policy::load(&Config { directory: directory.to_owned(), issuers: None })?)
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")
}

fn print_json(value: &Value) -> io::Result<()> {
    // `{:#}` is serde_json's own pretty form.
    if io::stdout().is_terminal() { print(&format!("{value:#}")) } else { print(&value.to_string()) }
}

fn test(arguments: &Test) -> Result<ExitCode, Failure> {
    let default = PathBuf::from("policies");
    let cases = arguments.directory.as_ref().or(arguments.policies.as_ref()).unwrap_or(&default);
    let set = load(arguments.policies.as_ref().unwrap_or(cases))?;
    let report = policy::run_cases(&set, cases)?;
    let covered = arguments.min_coverage.is_none_or(|wanted| report.coverage >= f64::from(wanted));
    // Cases that fail on the policy as it is can notice nothing.
    let mutate = arguments.mutate && report.failed == 0;
    let mutation =
        if mutate { Some(policy::mutate(arguments.policies.as_ref().unwrap_or(cases), cases)?) } else { None };
    match arguments.format {
        Format::Json => print_json(&test_json(&report, mutation.as_ref()))?,
        Format::Text => {
            let missed = arguments.min_coverage.filter(|_| !covered);
            print(&[test_text(&report, missed), mutation.as_ref().map_or(String::new(), mutation_text)].concat())?;
        }
    }
    let noticed = mutation.is_none_or(|mutation| mutation.survivors.is_empty());
    Ok(if report.failed == 0 && covered && noticed { ExitCode::SUCCESS } else { ExitCode::from(exit::PROBLEMS) })
}

fn test_json(report: &TestReport, mutation: Option<&MutationReport>) -> Value {
    let mut json = json!(report);
    if let (Some(mutation), Some(members)) = (mutation, json.as_object_mut()) {
        members.insert("mutation".to_owned(), json!(mutation));
    }
    json
}

fn mutation_text(report: &MutationReport) -> String {
    let mut text = format!("\n{} of {} changes of a clause made a case fail", report.noticed, report.mutants);
    for survivor in &report.survivors {
        text += &format!("\n  unnoticed: {} ({})\n             {}", survivor.change, survivor.place, survivor.unasked);
    }
    text
}

fn test_text(report: &TestReport, missed: Option<u8>) -> String {
    let mut lines = Vec::new();
    for case in &report.cases {
        let mark = if case.passed { "ok    " } else { "FAILED" };
        lines.push(format!("{mark}  {} ({})", case.name, case.place));
        if let Some(problem) = &case.problem {
            lines.push(format!("        {problem}"));
            lines.push(format!("        {}", case.decision));
        }
    }
    lines.push(format!(
        "\n{} passed, {} failed; {}% of the grants and denies decided a case",
        report.passed, report.failed, report.coverage
    ));
    lines.extend(report.uncovered.iter().map(|clause| format!("  no case reaches {clause}")));
    lines.extend(missed.map(|wanted| format!("  wanted: at least {wanted}%")));
    lines.join("\n")
}

fn explain(arguments: &Explain) -> Result<ExitCode, Failure> {
    let text =
        fs::read_to_string(&arguments.request).map_err(|error| Failure::Request(arguments.request.clone(), error))?;
    let source = Source { file: arguments.request.clone(), text: text.into() };
    let question = Question::parse(&source).map_err(|finding| vec![finding])?;
    let set = load(&arguments.policies)?;
    let explanation = policy::explain(&set, &question.request());
    match arguments.format {
        Format::Json => print_json(&explanation.to_json())?,
        Format::Text => print(&explanation.to_string())?,
    }
    Ok(if explanation.decision.is_allow() { ExitCode::SUCCESS } else { ExitCode::from(exit::DENIED) })
}

fn who_can(arguments: &WhoCan) -> Result<ExitCode, Failure> {
    let set = load(&arguments.policies)?;
    let holders = policy::who_can(&set, arguments.operation, &arguments.container, arguments.partition_key.as_ref());
    match arguments.format {
        Format::Json => print_json(&json!({ "workloads": holders }))?,
        Format::Text if holders.is_empty() => print("Nobody.")?,
        Format::Text => print(&holders.iter().map(holder_text).collect::<Vec<_>>().join("\n"))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn holder_text(holder: &Holder) -> String {
    let claims = |claims: &serde_json::Map<String, Value>| {
        let pairs: Vec<_> = claims.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join(" ")
    };
    let mut text = format!("{} {}", holder.issuer, claims(&holder.claims));
    if !holder.requires.is_empty() {
        text += &format!(" when {}", claims(&holder.requires));
    }
    for (word, names) in [("from", &holder.state_machines), ("in state", &holder.states)] {
        if !names.is_empty() {
            text += &format!(" {word} {}", names.join(" or "));
        }
    }
    if let Some(assurance) = holder.assurance {
        text += &format!(" ({})", assurance.as_str());
    }
    let partition =
        holder.partition_key.as_ref().map_or("the whole container".to_owned(), |key| format!("partition {key}"));
    text += &format!("\n    {} ({}): {}, {partition}", holder.role, holder.place, holder.container);
    if !holder.masked.is_empty() {
        text += &format!(", without {}", holder.masked.join(", "));
    }
    if !holder.except.is_empty() {
        text += &format!("\n    except where denied by {}", holder.except.join(", "));
    }
    text
}

fn diff(arguments: &Diff) -> Result<ExitCode, Failure> {
    let side = |name: &str| policy::load_side(name, &arguments.policies).map_err(Failure::Side);
    let difference = policy::diff(&side(&arguments.base)?, &side(&arguments.head)?);
    match arguments.format {
        DiffFormat::Json => print_json(&difference.to_json())?,
        DiffFormat::Text => print(&difference_text(&difference))?,
        DiffFormat::Markdown => print(&difference_markdown(&difference))?,
    }
    let widened = arguments.fail_on_widening && difference.widens();
    Ok(if widened { ExitCode::from(exit::PROBLEMS) } else { ExitCode::SUCCESS })
}

fn matrix(arguments: &Matrix) -> Result<ExitCode, Failure> {
    let matrix = policy::matrix(&load(&arguments.policies)?);
    match arguments.format {
        Format::Json => print_json(&json!(matrix))?,
        Format::Text => print(matrix.to_string().trim_end())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The operations of all changes that differ in nothing else.
fn by_place(changes: &BTreeSet<Change>) -> BTreeMap<(&str, &str, &str), Vec<String>> {
    let mut places: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for change in changes {
        let Change { workload, container, partition, .. } = change;
        places.entry((workload.as_str(), container.as_str(), partition.as_str())).or_default().push(change.what());
    }
    places
}

fn difference_text(difference: &Difference) -> String {
    let mut lines = Vec::new();
    for (heading, sign, changes) in [("Gains:", '+', &difference.gains), ("Losses:", '-', &difference.losses)] {
        lines.extend((!changes.is_empty()).then(|| heading.to_owned()));
        let mut last = "";
        for ((workload, container, partition), operations) in by_place(changes) {
            lines.extend((workload != last).then(|| format!("  {workload}")));
            let operations: Vec<_> = operations.iter().map(|operation| format!(" {sign}{operation}")).collect();
            lines.push(format!("    {container}, {partition}:{}", operations.concat()));
            last = workload;
        }
    }
    if lines.is_empty() { "Nobody gains or loses anything.".to_owned() } else { lines.join("\n") }
}

/// Code spans in a table: what stands between the backticks is shown as it is, but for the bars that divide cells.
fn code(text: &str) -> String {
    format!("`` {} ``", text.replace('|', "\\|"))
}

fn difference_markdown(difference: &Difference) -> String {
    if *difference == Difference::default() {
        return "### Policy: nobody gains or loses anything".to_owned();
    }
    let verdict = if difference.widens() { "**widens** what workloads may do" } else { "only takes away" };
    let mut lines = vec![format!("### Policy: this change {verdict}")];
    for (heading, changes) in [("Gains", &difference.gains), ("Losses", &difference.losses)] {
        if changes.is_empty() {
            continue;
        }
        lines.push(format!("\n**{heading}**\n\n| workload | container | partition | operations |\n|---|---|---|---|"));
        for ((workload, container, partition), operations) in by_place(changes) {
            let [workload, container, partition] = [workload, container, partition].map(code);
            let operations: Vec<_> = operations.iter().map(|operation| format!("`{operation}`")).collect();
            lines.push(format!("| {workload} | {container} | {partition} | {} |", operations.join(" ")));
        }
    }
    lines.join("\n")
}
