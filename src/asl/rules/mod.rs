//! The rules: a table of what each is called, why it is one, an example that breaks it and one that keeps it.
//!
//! The page `docs/asl.md` is made from this table, and the tests run its examples.

mod grants;
mod races;
mod request;
mod retry;
mod structure;

use super::check::{Check, Spot};
use crate::diagnostic::Severity;

pub(super) use request::{json_path_of, jsonata_of};
pub(super) use retry::wants_once;

/// A rule.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name in reports and suppressions.
    pub id: &'static str,
    /// Whether what it finds makes a check fail.
    pub severity: Severity,
    /// What is wanted, in a sentence.
    pub title: &'static str,
    /// What happens otherwise.
    pub why: &'static str,
    /// What breaks it.
    pub bad: Example,
    /// What keeps it.
    pub good: Example,
    /// How it is found in one definition; `None` where it takes more than that to see.
    pub(super) find: Option<fn(&Check<'_>) -> Vec<Spot>>,
}

/// An example, in YAML.
#[derive(Clone, Copy, Debug)]
pub enum Example {
    /// What differs from the example definition: members that are put in its place (`null` removes one).
    Definition(&'static str),
    /// Policies that the example definition is checked against.
    Policy(&'static str),
}

impl Example {
    /// The text.
    pub fn text(&self) -> &'static str {
        match self {
            Self::Definition(text) | Self::Policy(text) => text,
        }
    }
}

/// The rule called `id`.
pub fn rule(id: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.id == id)
}

/// A row of the table; its examples stand in files beside it.
macro_rules! rule {
    ($severity:ident, $id:literal, $example:ident, $find:expr, $title:literal, $why:literal) => {
        Rule {
            id: $id,
            severity: Severity::$severity,
            title: $title,
            why: $why,
            bad: Example::$example(include_str!(concat!("examples/", $id, ".bad.yaml"))),
            good: Example::$example(include_str!(concat!("examples/", $id, ".good.yaml"))),
            find: $find,
        }
    };
}

/// Every rule, in the order of the page.
pub const RULES: &[Rule] = &[
    rule!(
        Error,
        "structure",
        Definition,
        Some(structure::structure),
        "A definition holds together",
        "The service refuses such a definition, or runs it otherwise than it reads: a `Next` that leads nowhere, a \
         state that nothing leads to, `States.ALL` that is not alone and last, two states of one name, a field of the \
         other query language."
    ),
    rule!(
        Error,
        "forbidden-header",
        Definition,
        Some(request::forbidden_header),
        "A task sets no header that HTTP Tasks may not set",
        "The state fails with `States.Runtime` before anything is sent, and neither a Retry nor a Catch on \
         `States.ALL` sees it. The gateway takes `x-stepgate-if-match` and `x-stepgate-if-none-match` instead; the \
         token comes from the connection."
    ),
    rule!(
        Warning,
        "missing-context",
        Definition,
        Some(request::missing_context),
        "A request says which execution, state and attempt sent it",
        "Nothing else tells: without the headers the audit trail cannot tie the request to an execution, bindings \
         with `state_machines` or `states` do not match, and no idempotency key can be made from them. In an inline \
         Map, `x-stepgate-item` tells the iterations apart."
    ),
    rule!(
        Error,
        "wrong-context",
        Definition,
        Some(request::wrong_context),
        "A context header says what the context object says",
        "A state's name copied from another state puts the request there in the audit trail; a name instead of an ARN \
         is a 400; a number instead of a text fails the task."
    ),
    rule!(
        Error,
        "plain-http",
        Definition,
        Some(request::plain_http),
        "A task calls an https URL",
        "Over http the token can be read on the way, and whoever has it is the workflow until it expires."
    ),
    rule!(
        Error,
        "inline-secret",
        Definition,
        Some(request::inline_secret),
        "A definition holds no credential",
        "Definitions are in repositories, consoles and execution histories: tokens, keys, passwords and signed URLs \
         in them are read by many. The connection is where they belong. The finding does not show the line."
    ),
    rule!(
        Error,
        "missing-connection",
        Definition,
        Some(request::missing_connection),
        "A task names its connection",
        "There is no HTTP Task without one: it signs in, and keeps the credential."
    ),
    rule!(
        Error,
        "bad-request",
        Definition,
        Some(request::bad_request),
        "A request is one that the gateway takes",
        "Method, path and headers are read by the code that reads requests in the gateway. What it would refuse is \
         refused here: an unknown path, a method that the path does not know, two of upsert, query and batch at once, \
         a header that would go past the policy."
    ),
    rule!(
        Error,
        "direct-cosmos",
        Definition,
        Some(request::direct_cosmos),
        "A task does not call Cosmos DB past the gateway",
        "Whatever credential such a connection holds opens more than the workflow needs, and no policy and no audit \
         record stands between."
    ),
    rule!(
        Warning,
        "unknowable",
        Definition,
        Some(request::unknowable),
        "Where a request goes, and which headers it has, is written out",
        "What comes from data as a whole cannot be checked here. And whoever may start an execution with an address \
         of his own choice has the connection's token sent to it."
    ),
    rule!(
        Error,
        "missing-retry",
        Definition,
        Some(retry::missing_retry),
        "A task tries again on the codes that pass",
        "401 (the connection refreshes its token at the next attempt), 425, 429, 502, 503 and 504 pass, and without a \
         Retry the first of them ends the execution. 504 is not asked for where a second try could do a write twice, \
         and 401 not where the token is the task's own (`x-stepgate-token`): a bad one of those is a 498, which wants \
         a new token first."
    ),
    rule!(
        Warning,
        "hasty-retry",
        Definition,
        Some(retry::hasty_retry),
        "A Retry waits longer each time, not in step with others, and not for ever",
        "Executions that are throttled together come back together unless jitter spreads them, and meet the same \
         limit again."
    ),
    rule!(
        Error,
        "hopeless-retry",
        Definition,
        Some(retry::hopeless_retry),
        "A task does not try again what cannot succeed",
        "400, 403, 409, 412, 413, 422, 424 and 507 come back however often the same request is sent: retries on \
         `States.ALL` spend a minute on them, and request units. 404 is left out, since an item may yet come."
    ),
    rule!(
        Error,
        "repeated-write",
        Definition,
        Some(retry::repeated_write),
        "A write whose outcome is not known is sent again only when that does no harm",
        "After 504, `States.Http.Socket` or a timeout the write may stand. A second create is a 409 for the \
         execution's own item, a second increment counts twice. Where the grant says `idempotency: on`, the gateway \
         does it once: with `--policies` that is looked up, without them an `idempotency-key` is taken for the sign \
         of it. Upserts, replaces and deletes, and patches that only set, may be repeated; so may a create that \
         catches 409."
    ),
    rule!(
        Warning,
        "data-limit",
        Definition,
        Some(retry::data_limit),
        "`States.DataLimitExceeded` is caught by its name",
        "`States.ALL` does not cover it, so a result that makes the state larger than 256 KiB ends the execution past \
         every catcher. Asked of reads, and of whatever catches `States.ALL`."
    ),
    rule!(
        Error,
        "long-timeout",
        Definition,
        Some(retry::long_timeout),
        "A task does not wait longer than an HTTP Task can",
        "After 60 seconds the request is over (`States.Http.Socket`), whatever `TimeoutSeconds` says; the gateway \
         answers within 55."
    ),
    rule!(
        Warning,
        "uncaught-write",
        Definition,
        Some(retry::uncaught_write),
        "The last state that writes catches its failure",
        "What was written before it stays. Without a Catch nothing records that the work is half done, and nothing \
         makes up for it."
    ),
    rule!(
        Error,
        "lost-update",
        Definition,
        Some(races::lost_update),
        "What was read is written back only as it was read",
        "Between the read and the write another execution may have changed the item; without the etag its change is \
         overwritten, and nobody hears of it."
    ),
    rule!(
        Error,
        "parallel-race",
        Definition,
        Some(races::parallel_race),
        "No two branches write the same item",
        "Branches run at the same time: which of the two writes stands is chance. Told where container, partition and \
         id are written as the same expression; patches of different members, and increments, do not disturb each \
         other."
    ),
    rule!(
        Error,
        "map-race",
        Definition,
        Some(races::map_race),
        "Iterations of a Map do not write one item",
        "Iterations run at the same time: of the values that they write to one item the last stands, and which that \
         is is chance. Told where the id is the same in every iteration, unless `MaxConcurrency` is 1."
    ),
    rule!(
        Warning,
        "unbounded-map",
        Definition,
        Some(races::unbounded_map),
        "A Map that calls the gateway says how many of its iterations run at once",
        "A container has so many request units a second. An inline Map runs up to 40 iterations at once and a \
         distributed one 10,000: they throttle each other, and everyone else on the container. With `--policies` the \
         bound is compared with `limits.concurrency` of the binding as well."
    ),
    rule!(
        Error,
        "not-granted",
        Policy,
        Some(grants::not_granted),
        "Each task's operation is granted (with `--policies`)",
        "The task would end with 403. The definition does not say whose token its connection holds, so it is checked \
         against the workload that may do the most of it; `--claims` names another."
    ),
    rule!(
        Error,
        "denied",
        Policy,
        Some(grants::denied),
        "No deny takes a task's operation away (with `--policies`)",
        "A deny beats every grant: the task would end with 403 though its grant is there."
    ),
    rule!(
        Warning,
        "unused-grant",
        Policy,
        None,
        "What a workload is granted, its definitions use (with `--policies`)",
        "What nobody uses is only of use to whoever steals the token. Told of the workloads that the definitions \
         given run as: give all definitions of a workload at once."
    ),
    rule!(
        Error,
        "suppression",
        Definition,
        None,
        "A suppression names a rule and a reason",
        "`stepgate-lint: allow RULE because REASON` in the Comment of a state covers it and all inside it; in the \
         Comment of the definition, everything. Without a reason nobody can tell later whether it still holds."
    ),
    rule!(
        Warning,
        "unused-suppression",
        Definition,
        None,
        "A suppression suppresses something",
        "What it was for is gone; left in place it would hide the next one."
    ),
];
