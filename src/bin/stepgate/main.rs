//! The `stepgate` command: one module per subcommand, exit codes in one place.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line program prints")]

mod asl;
mod audit;
mod check;
mod config;
#[cfg(feature = "dev")]
mod demo;
#[cfg(feature = "dev")]
mod dev;
mod exit;
mod health;
mod memory;
mod policy;
mod preflight;
mod serve;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// A request makes a hundred small allocations, which the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An identity-aware gateway between AWS Step Functions HTTP Tasks and Azure Cosmos DB.
#[derive(Parser)]
#[command(
    name = "stepgate",
    version,
    propagate_version = true,
    after_help = "\
Example:
  stepgate demo                                 see it work, on this machine alone
  stepgate serve --config /etc/stepgate/stepgate.yaml"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway
    Serve(serve::Args),
    /// Ask a running gateway how it is, for container health checks
    Health(health::Args),
    /// Run the gateway with stand-ins for Cosmos DB and the issuer, on loopback
    #[cfg(feature = "dev")]
    Dev(dev::Args),
    /// Play an order workflow through a real gateway, and show what happened
    #[cfg(feature = "dev")]
    Demo(demo::Args),
    /// Check a configuration and its policies: every problem at once
    Check(check::Args),
    /// Ask everything that a gateway with this configuration would depend on
    Preflight(preflight::Args),
    /// Test, explain and compare policies
    #[command(subcommand, after_help = "Example:\n  stepgate policy test policies")]
    Policy(policy::Command),
    /// Check state machine definitions, and make policies and states for them
    #[command(subcommand, after_help = "Example:\n  stepgate asl lint fulfil.asl.json --policies policies")]
    Asl(asl::Command),
    /// Print the schema of the configuration
    #[command(after_help = "Example:\n  stepgate config schema")]
    Config(config::Args),
    /// Verify and read the audit log
    #[command(after_help = "Example:\n  stepgate audit verify /var/lib/stepgate/audit")]
    Audit(audit::Audit),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  stepgate completions bash > /etc/bash_completion.d/stepgate")]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// The form of a report.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Health(args) => health::run(&args),
        #[cfg(feature = "dev")]
        Command::Dev(args) => dev::run(args),
        #[cfg(feature = "dev")]
        Command::Demo(args) => demo::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Preflight(args) => preflight::run(&args),
        Command::Policy(command) => policy::run(command),
        Command::Asl(command) => asl::run(&command),
        Command::Config(args) => config::run(&args),
        Command::Audit(args) => audit::run(args),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "stepgate", &mut std::io::stdout());
            exit::FINE
        }
    }
}
