//! `stepgate serve`

use std::{io, path::PathBuf, process::ExitCode, thread::available_parallelism};

use serde_json::json;
use stepgate::{
    config,
    server::{self, Server, StartError},
    telemetry::Telemetry,
};
use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use crate::{Format, exit, memory};

#[derive(clap::Args)]
#[command(after_help = "Example:\n  stepgate serve --config /etc/stepgate/stepgate.yaml\n\n\
    Exits with 4 when the configuration or the policies have errors, with 1 when it cannot start.\n\
    SIGTERM and SIGINT drain and stop; SIGHUP reloads policies, certificates and the account key.\n\
    The log goes to standard error; STEPGATE_LOG sets its level (default info).")]
pub(crate) struct Args {
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
    /// The form of the line that says where it listens.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    if let Err(error) = memory::keep_private() {
        return exit::failed(format_args!("cannot keep the gateway's memory private: {error}"));
    }
    let environment = environment();
    let config = match config::load(&args.config, &environment) {
        Ok(loaded) => {
            exit::print_findings(&loaded.warnings);
            loaded.config
        }
        Err(findings) => return exit::problems(&findings),
    };
    block_on(async {
        let telemetry = match Telemetry::start(&config.telemetry) {
            Ok(telemetry) => telemetry,
            Err(error) => return exit::failed(error),
        };
        let code = serve(config, args.format).await;
        telemetry.stop().await;
        code
    })
}

async fn serve(config: server::Config, format: Format) -> ExitCode {
    let server = match Server::start(config).await {
        Ok(server) => server,
        Err(StartError::Policies(findings)) => return exit::problems(&findings),
        Err(error) => return exit::failed(error),
    };
    let signals = match Signals::catch() {
        Ok(signals) => signals,
        Err(error) => return exit::failed(error),
    };
    match format {
        Format::Json => {
            println!("{}", json!({"ready": true, "gateway": server.gateway_url(), "admin": server.admin_url()}))
        }
        Format::Text => println!("gateway  {}\nadmin    {}", server.gateway_url(), server.admin_url()),
    }
    match until_stopped(&server, signals).await {
        Ok(()) => exit::FINE,
        Err(error) => exit::failed(error),
    }
}

/// Runs `main` on a runtime with a thread for each processor. Where there is one, as in most sidecars, nothing can be shared out:
/// without the means for it, tasks run in the order in which they became ready, and what they send goes out together.
pub(crate) fn block_on(main: impl Future<Output = ExitCode>) -> ExitCode {
    let is_alone = available_parallelism().is_ok_and(|processors| processors.get() == 1);
    let mut runtime = if is_alone { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    match runtime.enable_all().build() {
        Ok(runtime) => runtime.block_on(main),
        Err(error) => exit::failed(format_args!("cannot start a runtime: {error}")),
    }
}

/// The signals a gateway obeys. They are caught before it says that it is ready, since whoever reads that may send one at
/// once, and an uncaught one kills the process.
pub(crate) struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Wanted {
        tokio::select! {
            _ = self.hangup.recv() => Wanted::Reload,
            _ = self.terminate.recv() => Wanted::Stop,
            _ = self.interrupt.recv() => Wanted::Stop,
        }
    }
}

/// What a signal wants.
#[derive(PartialEq, Eq)]
pub(crate) enum Wanted {
    /// SIGHUP
    Reload,
    /// SIGTERM or SIGINT
    Stop,
}

/// Serves until SIGTERM or SIGINT; reloads on SIGHUP.
pub(crate) async fn until_stopped(server: &Server, mut signals: Signals) -> io::Result<()> {
    let stop = CancellationToken::new();
    let obeying = async {
        while signals.next().await == Wanted::Reload {
            server.reload().await;
        }
        stop.cancel();
    };
    let (served, ()) = tokio::join!(server.run(stop.clone()), obeying);
    served
}

/// The environment, read once; only the configuration looks into it.
pub(crate) fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}
