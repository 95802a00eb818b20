//! `stepgate dev`

use std::{fmt, path::PathBuf, process::ExitCode};

use clap::Subcommand;
use serde_json::{Map, Value, json};
use stepgate::{
    config::{self, Written, dev::Dev},
    dev::{
        bundle,
        stack::{self, Stack},
    },
    diagnostic::{Diagnostic, Place, Severity},
    secret::Secret,
    server::{Server, StartError},
    telemetry::{self, Telemetry},
    transport::Transport,
};

use crate::{
    Format, exit,
    serve::{self, Signals, Wanted},
};

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  stepgate dev\n  stepgate dev token --client fulfilment\n\n\
    Without --config it runs config/dev.yaml, or the copy it carries when there is none.")]
pub(crate) struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// The configuration file.
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    /// The form of the line that says where it listens.
    #[arg(long, value_enum, default_value = "text", global = true)]
    format: Format,
}

#[derive(Subcommand)]
enum Part {
    /// Run the stand-in Cosmos DB alone
    #[command(after_help = "Example:\n  stepgate dev cosmos --config config/dev.yaml")]
    Cosmos,
    /// Run the local issuer alone
    #[command(after_help = "Example:\n  stepgate dev issuer --config config/dev.yaml")]
    Issuer,
    /// Print a token from the running local issuer
    #[command(
        after_help = "Example:\n  curl -H \"authorization: Bearer $(stepgate dev token --client fulfilment)\" ..."
    )]
    Token {
        /// The client, as in the configuration.
        #[arg(long)]
        client: String,
    },
}

/// Why `dev` ends before it serves.
pub(crate) enum Trouble {
    Findings(Vec<Diagnostic>),
    Failure(String),
}

impl<E: fmt::Display> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self::Failure(error.to_string())
    }
}

impl Trouble {
    pub(crate) fn tell(self) -> ExitCode {
        match self {
            Self::Findings(findings) => exit::problems(&findings),
            Self::Failure(reason) => exit::failed(reason),
        }
    }
}

pub(crate) fn run(args: Args) -> ExitCode {
    let environment = serve::environment();
    let outcome = async {
        let (written, dev) = read(args.config, &environment)?;
        match args.part {
            None => everything(written, dev, &environment, args.format).await,
            Some(Part::Cosmos) => {
                let _log = log(&environment)?;
                let cosmos = stack::start_cosmos(&dev).await?;
                alone("cosmos", &cosmos.url(), args.format).await
            }
            Some(Part::Issuer) => {
                let _log = log(&environment)?;
                let issuer = stack::start_issuer(&dev).await?;
                alone("issuer", &issuer.url(), args.format).await
            }
            Some(Part::Token { client }) => {
                let issuer = format!("http://{}", dev.issuer.listen);
                println!("{}", fetch_token(&Transport::new(None)?, &issuer, &dev, &client).await?);
                Ok(exit::FINE)
            }
        }
    };
    serve::block_on(async { outcome.await.unwrap_or_else(Trouble::tell) })
}

/// The log of a stand-in that runs alone.
fn log(environment: &[(String, String)]) -> Result<Telemetry, Trouble> {
    Ok(Telemetry::start(&telemetry::Config::log_alone(config::log_filter(environment)))?)
}

/// Reads the configuration and its `dev` section.
fn read(config: Option<PathBuf>, environment: &[(String, String)]) -> Result<(Written, Dev), Trouble> {
    let local = PathBuf::from("config/dev.yaml");
    let file = match config {
        Some(file) => file,
        None if local.is_file() => local,
        None => bundle::unpack(&std::env::temp_dir().join("stepgate-dev"))?,
    };
    let written = config::read(&file, environment).map_err(Trouble::Findings)?;
    match written.raw.dev.clone() {
        Some(dev) => Ok((written, dev)),
        None => {
            let mend = Some("add one, as in config/dev.yaml".to_owned());
            let finding = written.source.at(Severity::Error, Place::default(), "there is no `dev` section", mend);
            Err(Trouble::Findings(vec![finding]))
        }
    }
}

/// The gateway with both stand-ins.
async fn everything(
    mut written: Written,
    dev: Dev,
    environment: &[(String, String)],
    format: Format,
) -> Result<ExitCode, Trouble> {
    let stack = Stack::start(&dev).await?;
    stack.wire(&mut written.raw, &dev);
    let mut loaded = config::settle(&written, environment).map_err(Trouble::Findings)?;
    let telemetry = Telemetry::start(&loaded.config.telemetry)?;
    exit::print_findings(&loaded.warnings);
    let made = Secret::new(uuid::Uuid::new_v4().simple().to_string());
    let admin_token = loaded.config.admin_token.get_or_insert(made).clone();
    let audit = loaded.config.audit.directory.clone();
    let server = Server::start(loaded.config).await.map_err(|error| match error {
        StartError::Policies(findings) => Trouble::Findings(findings),
        error => error.into(),
    })?;
    let signals = Signals::catch()?;
    let workload = dev.issuer.clients.iter().find(|client| client.kind == config::dev::Kind::Workload);
    let token = workload.and_then(|client| stack.issuer.handle.token(&client.client_id)).unwrap_or_default();
    let addresses = [
        ("gateway", server.gateway_url()),
        ("admin", server.admin_url()),
        ("issuer", stack.issuer.url()),
        ("cosmos", stack.cosmos.url()),
    ];
    match format {
        Format::Json => {
            let mut line = Map::from_iter([("ready".to_owned(), Value::Bool(true))]);
            line.extend(addresses.map(|(name, url)| (name.to_owned(), url.into())));
            line.insert("token".to_owned(), token.into());
            line.insert("admin_token".to_owned(), admin_token.expose().into());
            line.insert("audit".to_owned(), audit.display().to_string().into());
            println!("{}", Value::Object(line));
        }
        Format::Text => {
            for (name, url) in addresses {
                println!("{name:<9}{url}");
            }
            let (gateway, admin) = (server.gateway_url(), server.admin_url());
            println!("audit    {}\n", audit.display());
            println!("# read an order as the workflow `fulfilment`\nTOKEN={token}");
            println!(
                "curl -i -H \"authorization: Bearer $TOKEN\" '{gateway}/dbs/shop/colls/orders/docs/o-1001?partitionKey=t1'\n"
            );
            println!(
                "# what the policy does not grant\ncurl -i -H \"authorization: Bearer $TOKEN\" '{gateway}/dbs/finance/colls/ledger/docs/l-1?partitionKey=2026-11'\n"
            );
            println!("# how the gateway is, and a reload\ncurl {admin}/status");
            println!("curl -X POST -H 'authorization: Bearer {}' {admin}/reload\n", admin_token.expose());
            println!("Ctrl-C stops it.");
        }
    }
    serve::until_stopped(&server, signals).await?;
    telemetry.stop().await;
    Ok(exit::FINE)
}

/// One stand-in, until Ctrl-C or SIGTERM.
async fn alone(name: &str, url: &str, format: Format) -> Result<ExitCode, Trouble> {
    let mut signals = Signals::catch()?;
    match format {
        Format::Json => println!("{}", json!({"ready": true, name: url})),
        Format::Text => println!("{name:<9}{url}"),
    }
    while signals.next().await != Wanted::Stop {}
    Ok(exit::FINE)
}

/// Asks an issuer for a token as an EventBridge connection does, with the client's secret from the configuration.
pub(crate) async fn fetch_token(
    transport: &Transport,
    issuer: &str,
    dev: &Dev,
    client_id: &str,
) -> Result<String, Trouble> {
    let Some(client) = dev.issuer.clients.iter().find(|client| client.client_id == client_id) else {
        let known: Vec<&str> = dev.issuer.clients.iter().map(|client| client.client_id.as_str()).collect();
        return Err(Trouble::Failure(format!(
            "no client `{client_id}` in the configuration; there are {}",
            known.join(", ")
        )));
    };
    let form = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "client_credentials")
        .append_pair("client_id", client_id)
        .append_pair("client_secret", client.client_secret.expose())
        .finish();
    let request = http::Request::post(format!("{issuer}/token"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(http_body_util::Full::from(form))?;
    let response = transport.exchange(request, 64 * 1024, std::time::Duration::from_secs(5)).await?;
    let answer: Value = serde_json::from_slice(response.body())?;
    match answer.get("access_token").and_then(Value::as_str) {
        Some(token) => Ok(token.to_owned()),
        None => Err(Trouble::Failure(format!("the issuer gave no token: {answer}"))),
    }
}
