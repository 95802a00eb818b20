//! `stepgate asl …`: state machine definitions, from the command line.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value};
use stepgate::{
    access::{ContainerName, Execution, Operation},
    asl::{self, Binding, Definition, Options, Policies, Report, Sketch},
    config,
    diagnostic::{Diagnostic, Severity, Source},
    policy,
};
use url::Url;

use crate::exit;

/// Check state machine definitions, and make policies and states for them.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Check definitions: every problem at once, each with its place and a mend
    #[command(after_help = "Examples:\n  stepgate asl lint fulfil.asl.json\n  \
        stepgate asl lint workflows/*.asl.yaml --policies policies --format sarif > asl.sarif")]
    Lint(Lint),
    /// Print the least role and binding that let definitions run
    #[command(
        after_help = "Example:\n  stepgate asl grants fulfil.asl.json --issuer cognito --claims '{\"client_id\": \"7h2kexample\"}' \\\n    \
        --partition-key 'shop/orders=[\"{claims.tenant}\"]' --output policies"
    )]
    Grants(Grants),
    /// Print a definition with one state that does an operation, right from the start
    #[command(
        after_help = "Example:\n  stepgate asl new items/upsert shop/orders --name SaveOrder --query-language JSONata"
    )]
    New(New),
    /// Print what the rules are, or one of them
    #[command(after_help = "Example:\n  stepgate asl rules lost-update")]
    Rules(Rules),
}

/// The form of a report.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
}

/// A query language of definitions.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum QueryLanguage {
    #[value(name = "JSONPath")]
    JsonPath,
    #[value(name = "JSONata")]
    Jsonata,
}

#[derive(Args, Debug)]
pub(crate) struct Lint {
    /// The definitions, in JSON or YAML.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Ask these policies too.
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// The gateway's configuration, for its `public_url`.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What the workload's binding asks for, where several could run the definition: `{"client_id": "fulfilment"}`.
    #[arg(long, value_name = "JSON", value_parser = object, requires = "policies")]
    claims: Option<Map<String, Value>>,
    /// The ARN of the state machine, for bindings with `state_machines`.
    #[arg(long, value_name = "ARN", value_parser = execution, requires = "policies")]
    state_machine: Option<Execution>,
    /// Exit with 4 on warnings too.
    #[arg(long)]
    deny_warnings: bool,
    /// The form of the report.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Args, Debug)]
pub(crate) struct Grants {
    /// The definitions, in JSON or YAML; one policy for all of them.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The role's name [default: after the first file].
    #[arg(long)]
    role: Option<String>,
    /// The issuer of the connection's token.
    #[arg(long, default_value = "issuer")]
    issuer: String,
    /// What the token says.
    #[arg(long, value_name = "JSON", value_parser = object, default_value = r#"{"client_id": "CLIENT"}"#)]
    claims: Map<String, Value>,
    /// The partition key of a container's grants, or of all: `["{claims.tenant}"]`. Without it grants are on the whole container, or
    /// on the key that the definition writes out.
    #[arg(long, value_name = "[DATABASE/CONTAINER=]JSON", value_parser = partition_key)]
    partition_key: Vec<(String, Vec<Value>)>,
    /// Bind to this state machine alone (an ARN, with `*`).
    #[arg(long, value_name = "ARN")]
    state_machine: Option<String>,
    /// Bind to the states that call alone.
    #[arg(long)]
    states: bool,
    /// The gateway's configuration, for its `public_url`.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write ROLE.yaml and ROLE.test.yaml into this directory instead.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct New {
    /// The operation, such as items/read.
    operation: Operation,
    /// The container.
    #[arg(value_name = "DATABASE/CONTAINER")]
    container: ContainerName,
    /// The state's name [default: after the operation].
    #[arg(long)]
    name: Option<String>,
    /// The gateway's address.
    #[arg(long, value_name = "URL", default_value = "https://stepgate.example.com")]
    gateway: String,
    /// The ARN of the EventBridge connection.
    #[arg(long, value_name = "ARN", default_value = "arn:aws:events:us-east-1:111122223333:connection/stepgate/1")]
    connection: String,
    /// The language of its expressions.
    #[arg(long, value_enum, default_value = "JSONPath", ignore_case = true)]
    query_language: QueryLanguage,
}

#[derive(Args, Debug)]
pub(crate) struct Rules {
    /// A rule.
    rule: Option<String>,
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))
}

fn execution(text: &str) -> Result<Execution, String> {
    let arn = text.replace(":stateMachine:", ":execution:") + ":any";
    arn.parse().map_err(|_| "not the ARN of a state machine".to_owned())
}

fn partition_key(text: &str) -> Result<(String, Vec<Value>), String> {
    let (container, json) = match text.split_once('=') {
        Some((container, json)) if !container.contains(['[', '"']) => (container, json),
        _ => ("*", text),
    };
    let key = serde_json::from_str(json).map_err(|error| format!("not a JSON array: {error}"))?;
    Ok((container.to_owned(), key))
}

pub(crate) fn run(command: &Command) -> ExitCode {
    let outcome = match command {
        Command::Lint(args) => lint(args),
        Command::Grants(args) => grants(args),
        Command::New(args) => Ok(new(args)),
        Command::Rules(args) => Ok(rules(args)),
    };
    outcome.unwrap_or_else(|failure| match failure {
        Failure::Findings(findings) => exit::problems(&findings),
        Failure::File(path, error) => exit::failed(format_args!("{}: {error}", path.display())),
    })
}

/// Why nothing could be checked or made.
enum Failure {
    Findings(Vec<Diagnostic>),
    File(PathBuf, io::Error),
}

fn read(files: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    let read = |file: &PathBuf| match fs::read_to_string(file) {
        Ok(text) => Ok(Source { file: file.clone(), text: text.into() }),
        Err(error) => Err(Failure::File(file.clone(), error)),
    };
    files.iter().map(read).collect()
}

/// The gateway's address, as its configuration has it.
fn public_url(file: Option<&Path>) -> Result<Option<Url>, Failure> {
    let Some(file) = file else { return Ok(None) };
    let written = config::read(file, &crate::serve::environment()).map_err(Failure::Findings)?;
    Ok(written.raw.public_url.and_then(|url| url.parse().ok()))
}

fn lint(args: &Lint) -> Result<ExitCode, Failure> {
    let public_url = public_url(args.config.as_deref())?;
    let policies = args.policies.as_ref().map(|directory| {
        let set = policy::load(&policy::Config { directory: directory.clone(), issuers: None });
        Ok(Policies {
            set: set.map_err(Failure::Findings)?,
            directory: directory.clone(),
            claims: args.claims.clone().unwrap_or_default(),
            execution: args.state_machine.clone(),
        })
    });
    let policies = policies.transpose()?;
    let options = Options { public_url: public_url.as_ref(), policies: policies.as_ref() };
    let report = asl::lint(read(&args.files)?, &options);
    match args.format {
        Format::Json => println!("{}", report.to_json()),
        Format::Sarif => println!("{:#}", report.to_sarif()),
        Format::Text => print(&report, args.files.len()),
    }
    let fails = report.count(Severity::Error) > 0 || (args.deny_warnings && !report.findings.is_empty());
    Ok(if fails { exit::PROBLEMS.into() } else { exit::FINE })
}

fn print(report: &Report, files: usize) {
    for finding in &report.findings {
        println!("{finding}");
    }
    let (errors, warnings) = (report.count(Severity::Error), report.count(Severity::Warning));
    let suppressed = match report.suppressed.len() {
        0 => String::new(),
        some => format!(", {some} suppressed"),
    };
    println!("{files} definitions: {errors} errors, {warnings} warnings{suppressed}");
}

fn grants(args: &Grants) -> Result<ExitCode, Failure> {
    let public_url = public_url(args.config.as_deref())?;
    let definitions = read(&args.files)?.into_iter().map(Definition::read).collect::<Result<Vec<_>, _>>();
    let definitions = definitions.map_err(|finding| Failure::Findings(vec![finding]))?;
    let role = args.role.clone().unwrap_or_else(|| name_after(args.files.first()));
    let binding = Binding {
        role: role.clone(),
        issuer: args.issuer.clone(),
        claims: args.claims.clone(),
        partition_keys: args.partition_key.iter().cloned().collect::<BTreeMap<_, _>>(),
        state_machine: args.state_machine.clone(),
        states: args.states,
    };
    let options = Options { public_url: public_url.as_ref(), policies: None };
    let made = asl::grants(&definitions, &options, &binding);
    exit::print_findings(&made.warnings);
    match &args.output {
        None => print!("{}", made.policy),
        Some(directory) => {
            for (ending, text) in [("yaml", &made.policy), ("test.yaml", &made.tests)] {
                let file = directory.join(format!("{role}.{ending}"));
                fs::write(&file, text).map_err(|error| Failure::File(file.clone(), error))?;
                println!("{}", file.display());
            }
        }
    }
    Ok(exit::FINE)
}

/// A role's name after a file's: `fulfil.asl.json` is `fulfil`.
fn name_after(file: Option<&PathBuf>) -> String {
    let name = file.and_then(|file| file.file_name()).map(|name| name.to_string_lossy().into_owned());
    name.as_deref().and_then(|name| name.split('.').next()).unwrap_or("workflow").to_owned()
}

fn new(args: &New) -> ExitCode {
    let words = args.operation.as_str().trim_start_matches("items/");
    let default =
        words.chars().next().map(|first| first.to_uppercase().collect::<String>() + words.get(1..).unwrap_or_default());
    let sketch = Sketch {
        operation: args.operation,
        container: args.container.clone(),
        name: args.name.clone().or(default).unwrap_or_default(),
        gateway: args.gateway.clone(),
        connection: args.connection.clone(),
        jsonata: args.query_language == QueryLanguage::Jsonata,
    };
    println!("{:#}", asl::sketch(&sketch));
    exit::FINE
}

fn rules(args: &Rules) -> ExitCode {
    match &args.rule {
        None => print!("{}", asl::page()),
        Some(id) => match asl::rule(id) {
            Some(rule) => print!("{}", asl::section(rule)),
            None => {
                let all: Vec<_> = asl::RULES.iter().map(|rule| rule.id).collect();
                return exit::failed(format_args!("there is no rule `{id}`; the rules are {}", all.join(", ")));
            }
        },
    }
    exit::FINE
}
