//! `stepgate health`: for container health checks, where there is no shell and no curl.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use stepgate::transport::Transport;
use url::Url;

use crate::{exit, serve};

/// Longest that the gateway may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer that is read, in bytes.
const LARGEST_ANSWER: usize = 1024 * 1024;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  stepgate health                  may it be sent traffic? (/readyz)\n  \
    stepgate health --live           does it answer at all? (/livez)\n\n\
    Prints what the gateway says of itself. Exits with 0 when it is ready, or degraded and serving; else with 1.")]
pub(crate) struct Args {
    /// The admin listener.
    #[arg(long, default_value = "http://127.0.0.1:9090")]
    admin: Url,
    /// Ask only whether it is alive.
    #[arg(long, conflicts_with = "started")]
    live: bool,
    /// Ask whether it has been ready since its start.
    #[arg(long)]
    started: bool,
    /// PEM certificates to trust beside the system's roots, for an admin listener with TLS.
    #[arg(long)]
    ca_file: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    serve::block_on(async {
        match ask(args).await {
            Ok((true, said)) => {
                println!("{said}");
                exit::FINE
            }
            Ok((false, said)) => exit::failed(said),
            Err(error) => exit::failed(error),
        }
    })
}

/// Whether the answer is a success, and what it says.
async fn ask(args: &Args) -> Result<(bool, String), Box<dyn std::error::Error>> {
    let path = match args {
        Args { live: true, .. } => "/livez",
        Args { started: true, .. } => "/startupz",
        _ => "/readyz",
    };
    let request = Request::get(args.admin.join(path)?.as_str()).body(Full::<Bytes>::default())?;
    let answer = Transport::new(args.ca_file.as_deref())?.exchange(request, LARGEST_ANSWER, PATIENCE).await?;
    Ok((answer.status().is_success(), String::from_utf8_lossy(answer.body()).trim().to_owned()))
}
