//! `stepgate config`

use std::process::ExitCode;

use clap::Subcommand;

use crate::exit;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the JSON Schema of the configuration file
    #[command(after_help = "Example:\n  stepgate config schema > config/stepgate.schema.json")]
    Schema,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match args.command {
        Command::Schema => println!("{}", stepgate::config::schema()),
    }
    exit::FINE
}
