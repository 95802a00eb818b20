//! `stepgate audit`: verify, trace, tail and export a log, and prove single records from it.
#![allow(clippy::print_stderr, reason = "a command tells a person why it failed on standard error")]

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufWriter, IsTerminal as _, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Subcommand, ValueEnum};
use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use stepgate::{
    audit::{self, AuditError, Evidence, Filter, Phase, Proven, Range, Reader, Report, Trace, Verdict},
    clock::{Clock, Timestamp},
};

use crate::exit;

/// How often `tail -f` looks for more.
const POLL: Duration = Duration::from_millis(200);

/// Verify, trace, tail and export the audit log, and prove single records from it.
///
/// What shows records (trace, tail, prove, export) is itself recorded: a note is left in the log's directory `readings`,
/// which the gateway takes into the log.
#[derive(Args, Debug)]
pub(crate) struct Audit {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Verify(Verify),
    Trace(TraceOf),
    Tail(Tail),
    Prove(Prove),
    Check(Check),
    Export(Export),
}

/// Recompute every hash and signature, and name the first record that does not fit.
///
/// Exits 0 when everything fits and 5 when something does not.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  stepgate audit verify /var/lib/stepgate/audit --public-key checkpoint.pub")]
struct Verify {
    /// The log's directory.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Trust only this public key (PEM) instead of the one that lies beside the log.
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// A checkpoint, a file of them or a directory of such files, kept where the log's owner cannot change it: the log must
    /// extend each. Can be given more than once.
    #[arg(long, value_name = "PATH")]
    anchor: Vec<PathBuf>,
    /// Begin at the segment that holds this record, trusting the signed checkpoint before it.
    #[arg(long, value_name = "SEQUENCE", default_value_t = Range::ALL.from, hide_default_value = true)]
    from: u64,
    /// Stop after the segment that holds this record.
    #[arg(long, value_name = "SEQUENCE", default_value_t = Range::ALL.to, hide_default_value = true)]
    to: u64,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    format: ReportFormat,
}

/// Show an execution as a tree: states, attempts, operations, decisions, RU, latency.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  stepgate audit trace run-1 --dir /var/lib/stepgate/audit\n  \
    stepgate audit trace arn:aws:states:us-east-1:111122223333:execution:Fulfil:run-1 --dir audit --format mermaid")]
struct TraceOf {
    /// The execution's ARN, or the last part of it (the run's name).
    #[arg(value_name = "EXECUTION")]
    execution: String,
    /// The log's directory.
    #[arg(long = "dir", value_name = "DIR")]
    directory: PathBuf,
    /// How to print the trace.
    #[arg(long, value_enum, default_value_t = TraceFormat::Text)]
    format: TraceFormat,
}

/// Print the latest records, one a line, and follow the log with -f.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  stepgate audit tail /var/lib/stepgate/audit -f --decision deny")]
struct Tail {
    /// The log's directory.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Go on printing records as they are written.
    #[arg(short, long)]
    follow: bool,
    /// How many of the latest records to print first.
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
    lines: usize,
    /// Only this execution, by its ARN or the last part of it.
    #[arg(long, value_name = "EXECUTION")]
    execution: Option<String>,
    /// Only this decision.
    #[arg(long, value_enum)]
    decision: Option<DecisionWord>,
    /// Only this phase of a request.
    #[arg(long, value_enum)]
    phase: Option<PhaseWord>,
    /// Only this operation, such as items/read.
    #[arg(long, value_name = "OPERATION")]
    operation: Option<String>,
    /// Only this container.
    #[arg(long, value_name = "DATABASE/CONTAINER")]
    container: Option<String>,
    /// Only this subject, as issuer/subject or the subject alone.
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// Only this request.
    #[arg(long, value_name = "REQUEST_ID")]
    request: Option<String>,
    /// How to print the records; json prints the lines as they stand in the log.
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    format: ReportFormat,
}

/// Prove that the records of a request are in the log: print them with their audit paths and a signed checkpoint, as JSON.
///
/// Whoever gets the output can check it with the public key alone, by `stepgate audit check` or by a program of his own:
/// each proof is a C2SP tlog-proof over the record's line.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  stepgate audit prove 019a8c1e-8f5b-7c60-b5a5-0d6f3c2f1b44 --dir /var/lib/stepgate/audit > proof.json"
)]
struct Prove {
    /// The request's id, as the caller got it in x-stepgate-request-id.
    #[arg(value_name = "REQUEST_ID")]
    request: String,
    /// The log's directory.
    #[arg(long = "dir", value_name = "DIR")]
    directory: PathBuf,
}

/// Check the output of `audit prove` with a public key. Needs no log.
///
/// Exits 0 when every record is proven and 5 when one is not.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  stepgate audit check proof.json --public-key checkpoint.pub")]
struct Check {
    /// The output of `audit prove`.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The public key (PEM) of the checkpoints, from whoever runs the gateway.
    #[arg(long, value_name = "FILE")]
    public_key: PathBuf,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    format: ReportFormat,
}

/// Write the records of a time as JSON Lines, as they stand in the log, compressed.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  stepgate audit export /var/lib/stepgate/audit --since 24h --output day.jsonl.gz\n  \
    stepgate audit export audit --since 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z --compress none | jq .message"
)]
struct Export {
    /// The log's directory.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// From when on: a time (RFC 3339), or how long ago, such as 24h or 7d.
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    since: Timestamp,
    /// Until when, likewise (default: now).
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    until: Option<Timestamp>,
    /// How to compress.
    #[arg(long, value_enum, default_value_t = Compress::Gzip)]
    compress: Compress,
    /// The file to write (default: standard output).
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Compress {
    Gzip,
    None,
}

/// A time, or how long ago.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(Timestamp::from_millis(time.as_millisecond()));
    }
    let ago = text.parse::<jiff::Span>().and_then(|span| span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()));
    let ago = ago.ok().and_then(|ago| Duration::try_from(ago).ok());
    let ago = ago.ok_or("neither a time such as 2026-11-01T00:00:00Z nor a while such as 24h or 7d")?;
    Ok(Clock::System.now().minus(ago))
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum ReportFormat {
    Text,
    Json,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum TraceFormat {
    Text,
    Json,
    Mermaid,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum DecisionWord {
    Allow,
    Deny,
    Reject,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum PhaseWord {
    Intent,
    Outcome,
    Refusal,
    Suppressed,
    Recovered,
    Revoke,
    Lift,
    Reading,
}

/// Runs the command.
pub(crate) fn run(audit: Audit) -> ExitCode {
    let result = match audit.command {
        Command::Verify(command) => verify(&command),
        Command::Trace(command) => trace(&command),
        Command::Tail(command) => tail(&command),
        Command::Prove(command) => prove(&command),
        Command::Check(command) => check(&command),
        Command::Export(command) => export(&command),
    };
    result.unwrap_or_else(|error| match error {
        // Whoever read the output has enough of it.
        Failure::Output(error) | Failure::Export(audit::ExportError::Output(error))
            if error.kind() == io::ErrorKind::BrokenPipe =>
        {
            ExitCode::SUCCESS
        }
        error => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    })
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Log(#[from] AuditError),
    #[error(transparent)]
    Trace(#[from] audit::TraceError),
    #[error(transparent)]
    Prove(#[from] audit::ProveError),
    #[error(transparent)]
    Export(#[from] audit::ExportError),
    #[error("cannot write {}: {source}", file.display())]
    File { file: PathBuf, source: io::Error },
    #[error("cannot read {}: {source}", file.display())]
    Proof { file: PathBuf, source: io::Error },
    #[error("{} is no output of `audit prove`: {source}", file.display())]
    NoProof { file: PathBuf, source: serde_json::Error },
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
    #[error("cannot print as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

fn verify(command: &Verify) -> Result<ExitCode, Failure> {
    let evidence = Evidence { public_key: command.public_key.clone(), anchors: command.anchor.clone() };
    let report = audit::verify(&command.directory, &evidence, Range { from: command.from, to: command.to })?;
    let mut out = io::stdout().lock();
    match command.format {
        ReportFormat::Json => writeln!(out, "{}", serde_json::to_string(&report)?)?,
        ReportFormat::Text => write_report(&mut out, &command.directory, &report)?,
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::from(exit::UNVERIFIED) })
}

fn write_report(out: &mut impl Write, directory: &Path, report: &Report) -> io::Result<()> {
    let verdict = if report.ok { "ok" } else { "NOT OK" };
    writeln!(out, "{verdict}: {}: {}", directory.display(), report.promise)?;
    if let Some(bad) = &report.first_bad {
        let line = if bad.line > 0 { format!(":{}", bad.line) } else { String::new() };
        let sequence = bad.sequence.map(|sequence| format!(" (record {sequence})")).unwrap_or_default();
        writeln!(out, "{}{line}: {}{sequence}", bad.file, bad.wrong)?;
    }
    writeln!(
        out,
        "{} records that fit, {} signed, {} checkpoints, {} segments, {} anchored checkpoints extended",
        report.records, report.signed, report.checkpoints, report.segments, report.anchored
    )?;
    if report.unfinished {
        writeln!(out, "the last line is not finished: it is being written, or its writer died; nobody relied on it")?;
    }
    Ok(())
}

/// Leaves a note that the log is read; nothing is shown before.
fn note(directory: &Path, command: &str, selection: &str) -> Result<(), AuditError> {
    audit::note_reading(directory, command, selection, Clock::System.now())
}

fn trace(command: &TraceOf) -> Result<ExitCode, Failure> {
    note(&command.directory, "trace", &command.execution)?;
    let trace: Trace = audit::trace(&command.directory, &command.execution)?;
    let mut out = io::stdout().lock();
    match command.format {
        TraceFormat::Text => write!(out, "{}", trace.render_text(io::stdout().is_terminal()))?,
        TraceFormat::Json => writeln!(out, "{}", serde_json::to_string_pretty(&trace)?)?,
        TraceFormat::Mermaid => write!(out, "{}", trace.render_mermaid())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn tail(command: &Tail) -> Result<ExitCode, Failure> {
    let filter = command.filter();
    note(&command.directory, "tail", &command.selection())?;
    let color = io::stdout().is_terminal();
    let mut reader = Reader::from_recent(&command.directory)?;
    let mut next = || -> Result<Option<String>, AuditError> {
        while let Some(record) = reader.next(|_| true)? {
            if filter.admits(&record) {
                return Ok(Some(match command.format {
                    ReportFormat::Text => record.render_line(color),
                    ReportFormat::Json => String::from_utf8_lossy(reader.raw()).into_owned(),
                }));
            }
        }
        Ok(None)
    };
    let mut latest = VecDeque::new();
    while let Some(line) = next()? {
        latest.push_back(line);
        if latest.len() > command.lines {
            latest.pop_front();
        }
    }
    let mut out = io::stdout().lock();
    for line in latest {
        writeln!(out, "{line}")?;
    }
    if !command.follow {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        while let Some(line) = next()? {
            writeln!(out, "{line}")?;
        }
        out.flush()?;
        std::thread::park_timeout(POLL);
    }
}

fn prove(command: &Prove) -> Result<ExitCode, Failure> {
    note(&command.directory, "prove", &command.request)?;
    let proven = audit::prove(&command.directory, &command.request)?;
    writeln!(io::stdout().lock(), "{}", serde_json::to_string_pretty(&proven)?)?;
    Ok(ExitCode::SUCCESS)
}

fn export(command: &Export) -> Result<ExitCode, Failure> {
    let until = command.until.unwrap_or_else(|| Clock::System.now());
    let (from, to) = (command.since.rfc3339(), until.rfc3339());
    note(&command.directory, "export", &format!("{from} to {to}"))?;
    let failed = |source| match &command.output {
        Some(file) => Failure::File { file: file.clone(), source },
        None => Failure::Output(source),
    };
    let out: Box<dyn Write> = match &command.output {
        Some(file) => Box::new(File::create(file).map_err(failed)?),
        None => Box::new(io::stdout().lock()),
    };
    let out = BufWriter::new(out);
    let exported = match command.compress {
        Compress::None => {
            let mut out = out;
            let exported = audit::export(&command.directory, command.since, until, &mut out)?;
            out.flush().map_err(failed)?;
            exported
        }
        Compress::Gzip => {
            let mut encoder = GzEncoder::new(out, Compression::default());
            let exported = audit::export(&command.directory, command.since, until, &mut encoder)?;
            encoder.finish().and_then(|mut out| out.flush()).map_err(failed)?;
            exported
        }
    };
    eprintln!("{exported} records from {from} to {to}");
    Ok(ExitCode::SUCCESS)
}

fn check(command: &Check) -> Result<ExitCode, Failure> {
    let file = || command.file.clone();
    let text = std::fs::read_to_string(&command.file).map_err(|source| Failure::Proof { file: file(), source })?;
    let proven: Proven = serde_json::from_str(&text).map_err(|source| Failure::NoProof { file: file(), source })?;
    let checked = proven.check(&audit::public_keys(&command.public_key)?);
    let mut out = io::stdout().lock();
    let (request, records) = (&proven.request_id, proven.records.len());
    match (command.format, &checked) {
        (ReportFormat::Json, checked) => {
            let (signed, error) = (checked.as_ref().ok(), checked.as_ref().err().map(ToString::to_string));
            let report = json!({"ok": error.is_none(), "request_id": request, "records": records, "signed": signed, "error": error});
            writeln!(out, "{report}")?;
        }
        (ReportFormat::Text, Ok(signed)) => {
            writeln!(out, "ok: {records} records of request {request} are in a log of {signed} signed records")?;
        }
        (ReportFormat::Text, Err(error)) => writeln!(out, "NOT OK: request {request}: {error}")?,
    }
    Ok(if checked.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(exit::UNVERIFIED) })
}

impl Tail {
    /// What is looked for, as it was asked for.
    fn selection(&self) -> String {
        let words = [
            ("execution", self.execution.clone()),
            ("decision", self.decision.map(|word| Verdict::from(word).as_str().to_owned())),
            ("phase", self.phase.map(|word| Phase::from(word).as_str().to_owned())),
            ("operation", self.operation.clone()),
            ("container", self.container.clone()),
            ("subject", self.subject.clone()),
            ("request", self.request.clone()),
        ];
        let words: Vec<_> = words.into_iter().filter_map(|(name, word)| Some(format!("{name}={}", word?))).collect();
        if words.is_empty() { "everything".to_owned() } else { words.join(" ") }
    }

    fn filter(&self) -> Filter {
        Filter {
            execution: self.execution.clone(),
            decision: self.decision.map(Verdict::from),
            phase: self.phase.map(Phase::from),
            operation: self.operation.clone(),
            container: self.container.clone(),
            subject: self.subject.clone(),
            request: self.request.clone(),
        }
    }
}

impl From<DecisionWord> for Verdict {
    fn from(word: DecisionWord) -> Self {
        match word {
            DecisionWord::Allow => Self::Allow,
            DecisionWord::Deny => Self::Deny,
            DecisionWord::Reject => Self::Reject,
        }
    }
}

impl From<PhaseWord> for Phase {
    fn from(word: PhaseWord) -> Self {
        match word {
            PhaseWord::Intent => Self::Intent,
            PhaseWord::Outcome => Self::Outcome,
            PhaseWord::Refusal => Self::Refusal,
            PhaseWord::Suppressed => Self::Suppressed,
            PhaseWord::Recovered => Self::Recovered,
            PhaseWord::Revoke => Self::Revoke,
            PhaseWord::Lift => Self::Lift,
            PhaseWord::Reading => Self::Reading,
        }
    }
}
