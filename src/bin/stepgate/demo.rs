//! `stepgate demo`
use std::process::ExitCode;
#[derive(clap::Args)]
pub(crate) struct Args {}
pub(crate) fn run(_: &Args) -> ExitCode {
    crate::exit::FINE
}
