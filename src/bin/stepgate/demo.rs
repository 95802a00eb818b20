//! `stepgate demo`: an order workflow, played through a real gateway as Step Functions would send it.

mod play;
mod show;

use std::process::ExitCode;

use serde_json::json;
use stepgate::{
    audit, config,
    dev::{
        cosmos::{Effect, Fault, Operation},
        issuer::{Mint, MintKey, Rotation},
    },
    telemetry::{self, Telemetry},
};

use self::{
    play::{ORDER, ORDERS, Stage, Task},
    show::Show,
};
use crate::{dev::Trouble, exit, serve};

#[derive(clap::Args)]
#[command(after_help = "Example:\n  stepgate demo --keep\n\n\
    Everything runs on free loopback ports and in a temporary directory; nothing else is touched.")]
pub(crate) struct Args {
    /// Keep the temporary directory, with the policies and the audit log, to look around in.
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let environment = serve::environment();
    serve::block_on(async {
        // The play is the report; the log is for whoever asks for it.
        let asked = environment.iter().any(|(name, _)| name == "STEPGATE_LOG");
        let _log = asked.then(|| Telemetry::start(&telemetry::Config::log_alone(config::log_filter(&environment))));
        play(args, &environment).await.unwrap_or_else(Trouble::tell)
    })
}

async fn play(args: &Args, environment: &[(String, String)]) -> Result<ExitCode, Trouble> {
    let show = Show::new(environment);
    let stage = Stage::set(environment).await?;
    show.title("An order workflow, through a real gateway");
    for (name, url) in stage.addresses() {
        show.fact(name, &url);
    }
    show.fact("execution", stage.execution());

    let played = async {
        workflow(&stage, &show).await?;
        refusals(&stage, &show).await?;
        rotations(&stage, &show).await
    };
    let (served, played) = stage.serve_while(played).await;
    played?;
    served?;

    show.title("The audit trail of the execution");
    let directory = stage.audit_directory();
    show.text(&audit::trace(&directory, stage.execution())?.render_text(show.in_colour()));
    let report = audit::verify(&directory, &audit::Evidence::default(), audit::Range::ALL)?;
    show.title("The log as a whole");
    show.text(&format!("{} records, {}", report.records, report.promise));
    if !report.ok {
        return Ok(exit::UNVERIFIED.into());
    }
    farewell(args, &show, stage);
    Ok(if show.as_expected() { exit::FINE } else { exit::FAILED.into() })
}

/// The state machine: load, save, query, note.
async fn workflow(stage: &Stage, show: &Show) -> Result<(), Trouble> {
    show.title("1. The workflow runs: each state is an HTTP Task with the token of its OAuth connection");
    let token = stage.token("fulfilment").await?;
    let load = stage.ask(Task::get("LoadOrder", ORDER).token(&token)).await?;
    show.step(
        "LoadOrder",
        "GET   shop/orders  o-1001",
        &load,
        200,
        "a resource token was minted: shop/orders, [\"t1\"], Read",
    );

    stage
        .cosmos()
        .add_fault(Fault::once(Effect::Throttle { retry_after_ms: 40 }).times(2).operation(Operation::Upsert));
    let order = json!({"id": "o-1001", "tenant": "t1", "status": "shipped", "total": 42.5});
    let save = Task::post("SaveOrder", ORDERS, &order).header("x-ms-documentdb-is-upsert", "true").token(&token);
    let saved = stage.ask(save).await?;
    show.step(
        "SaveOrder",
        "POST  shop/orders  o-1001",
        &saved,
        200,
        "Cosmos throttled it twice; the gateway waited and tried again",
    );

    let query = json!({"query": "SELECT c.id FROM c WHERE c.status = 'shipped'"});
    let list = Task::post("ListShipped", ORDERS, &query).header("x-ms-documentdb-isquery", "true").token(&token);
    let listed = stage.ask(list).await?;
    show.step(
        "ListShipped",
        "QUERY shop/orders",
        &listed,
        200,
        "no partition key was named; policy filled in the tenant's",
    );

    let note = json!({"id": "n-1", "tenant": "t1", "text": "o-1001 shipped"});
    let noted = stage.ask(Task::post("NoteShipment", "/dbs/shop/colls/audit/docs", &note).token(&token)).await?;
    show.step("NoteShipment", "POST  shop/audit   n-1", &noted, 201, "");
    Ok(())
}

/// What is refused, and why.
async fn refusals(stage: &Stage, show: &Show) -> Result<(), Trouble> {
    show.title("2. What is refused: one status per condition, which a Catch can name");
    let token = stage.token("fulfilment").await?;
    let ledger = Task::get("ReadLedger", "/dbs/finance/colls/ledger/docs/l-1?partitionKey=2026-11").token(&token);
    show.refusal("a container it has no grant for", &stage.ask(ledger).await?, 403);
    let other = Task::get("ReadOther", "/dbs/shop/colls/orders/docs/o-2001?partitionKey=t2").token(&token);
    show.refusal("the order of another tenant", &stage.ask(other).await?, 403);
    let human = stage.token("alice").await?;
    show.refusal(
        "a person, though a binding names her",
        &stage.ask(Task::get("LoadOrder", ORDER).token(&human)).await?,
        403,
    );
    let forged = stage.issuer().mint(Mint { key: MintKey::Rogue, ..stage.mint("fulfilment") })?;
    show.refusal("a forged token", &stage.ask(Task::get("LoadOrder", ORDER).token(&forged)).await?, 401);
    let expired = stage.issuer().mint(Mint { ttl: Some(-120), ..stage.mint("fulfilment") })?;
    show.refusal("an expired token", &stage.ask(Task::get("LoadOrder", ORDER).token(&expired)).await?, 401);
    show.refusal("no token", &stage.ask(Task::get("LoadOrder", ORDER)).await?, 498);
    Ok(())
}

/// What changes under a running workflow.
async fn rotations(stage: &Stage, show: &Show) -> Result<(), Trouble> {
    show.title("3. Keys rotate, and no request fails");
    stage.issuer().rotate(Rotation { drop_old: true, ..Rotation::default() })?;
    let token = stage.token("fulfilment").await?;
    let loaded = stage.ask(Task::get("LoadOrder", ORDER).attempt(1).token(&token)).await?;
    show.step("LoadOrder", "the issuer has a new signing key", &loaded, 200, "its keys were fetched once more");
    stage.rotate_account_key()?;
    let loaded = stage.ask(Task::get("LoadOrder", ORDER).attempt(2).token(&token)).await?;
    show.step("LoadOrder", "the account key is another", &loaded, 200, "key read again, resource token minted again");
    Ok(())
}

fn farewell(args: &Args, show: &Show, stage: Stage) {
    show.title("Go on from here");
    if args.keep {
        let directory = stage.keep();
        show.text(&format!(
            "stepgate audit tail {0}/.stepgate/audit\nstepgate policy test {0}/policies\nstepgate dev --config {0}/config/dev.yaml",
            directory.display()
        ));
    } else {
        show.text("stepgate dev             the same stack, up until Ctrl-C, with curl lines to paste\nstepgate demo --keep     this run, with its policies and its audit log left to look at");
    }
}
