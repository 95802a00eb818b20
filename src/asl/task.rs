//! The HTTP Tasks of a definition, and which of them call the gateway.
//!
//! What a call asks for is found by asking [`question::route`] about the request as far as it is known, so that the linter
//! and the gateway cannot come to read one request in two ways.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde_json::{Map, Value};
use url::Url;

use super::{
    definition::{Found, Graph, Index, State, member},
    text::{Language, Piece, Text, inside_jsonata},
};
use crate::{
    access::{Action, ContainerName, Operation, PartitionKey, headers::PARTITION_KEY},
    context::{ENTERED, EXECUTION, STATE},
    question::{self, IF_MATCH, Route},
};

/// What stands in a path for what is not known of it. No name has these characters by chance.
const UNKNOWN: &str = "~unknown~";
/// The gateway's own paths that are no question of the data plane.
const OWN_PATHS: [&str; 2] = ["/oauth2/token", "/.well-known/oauth-protected-resource"];
/// The headers that change what `POST C/docs` means.
const DISCRIMINATORS: [&str; 4] = [
    "x-ms-documentdb-is-upsert",
    "x-ms-documentdb-isquery",
    "x-ms-cosmos-is-query-plan-request",
    "x-ms-cosmos-is-batch-request",
];
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// An HTTP Task.
#[derive(Debug)]
pub(super) struct Task<'a> {
    pub(super) state: Index,
    /// `Parameters` or `Arguments`.
    pub(super) path: String,
    pub(super) parameters: Option<&'a Map<String, Value>>,
    pub(super) endpoint: Option<(String, Text)>,
    pub(super) headers: Headers,
    pub(super) target: Target,
}

/// The headers that a task sets.
#[derive(Debug, Default)]
pub(super) struct Headers {
    pub(super) path: String,
    pub(super) written: Vec<Header>,
    /// Whether an expression makes all of them, so that which there are is not known.
    pub(super) open: bool,
}

/// A header.
#[derive(Debug)]
pub(super) struct Header {
    /// In lower case.
    pub(super) name: String,
    pub(super) path: String,
    pub(super) text: Option<Text>,
    /// The value as it is written.
    pub(super) written: String,
}

impl Headers {
    pub(super) fn get(&self, name: &str) -> Option<&Header> {
        self.written.iter().find(|header| header.name == name)
    }

    pub(super) fn text(&self, name: &str) -> Option<&Text> {
        self.get(name)?.text.as_ref()
    }

    /// Whether the header may be there.
    pub(super) fn may_have(&self, name: &str) -> bool {
        self.open || self.get(name).is_some()
    }
}

/// Where a task's request goes.
#[derive(Debug)]
pub(super) enum Target {
    /// To the gateway, for this.
    Gateway(Call),
    /// To the gateway, but not for anything that touches data.
    GatewayItself,
    /// To the gateway, which would refuse it.
    Refused(String),
    /// To Cosmos, past the gateway.
    Cosmos,
    /// What of it is not known is said.
    Unknown(&'static str),
    /// Elsewhere.
    Elsewhere,
}

/// What a task asks the gateway for.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) action: Action,
    /// `database/container`, with its expressions.
    pub(super) container: String,
    /// The same, where it is known.
    pub(super) name: Option<ContainerName>,
    pub(super) partition: Option<Partition>,
    pub(super) items: Vec<Item>,
    /// Whether it demands an etag.
    pub(super) conditional: bool,
    pub(super) idempotency: Option<Text>,
}

/// The partition key that a request names.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Partition {
    Known(PartitionKey),
    Expression(Text),
}

/// An item that a call reads or writes, so far as that is known.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) operation: Operation,
    pub(super) id: Option<Text>,
    /// What a patch changes, where that is written out.
    pub(super) patched: Option<Vec<Patched>>,
}

/// An operation of a patch.
#[derive(Clone, Debug)]
pub(super) struct Patched {
    pub(super) op: String,
    pub(super) path: String,
}

impl Call {
    pub(super) fn operation(&self) -> Option<Operation> {
        match self.action {
            Action::Operation(operation) => Some(operation),
            Action::QueryPlan | Action::Metadata => None,
        }
    }

    pub(super) fn is_write(&self) -> bool {
        self.action.is_write()
    }
}

impl<'a> Task<'a> {
    /// The HTTP Tasks of a definition.
    pub(super) fn all(graph: &Graph<'a>, public_url: Option<&Url>) -> Vec<Self> {
        let is_task = |state: &State<'_>| {
            state.kind() == "Task" && state.text("Resource").is_some_and(|arn| arn.ends_with(":states:::http:invoke"))
        };
        let tasks = graph.states.iter().enumerate().filter(|(_, state)| is_task(state));
        tasks.map(|(index, state)| Self::of(graph, index, state, public_url)).collect()
    }

    fn of(graph: &Graph<'a>, index: Index, state: &State<'a>, public_url: Option<&Url>) -> Self {
        let name = match state.language {
            Language::JsonPath => "Parameters",
            Language::Jsonata => "Arguments",
        };
        let path = state.at(name);
        let parameters = state.written.get(name).and_then(Value::as_object);
        let mut task = Self {
            state: index,
            path,
            parameters,
            endpoint: None,
            headers: Headers::default(),
            target: Target::Elsewhere,
        };
        let Some(parameters) = parameters else {
            task.target = Target::Unknown("its parameters are made by an expression");
            return task;
        };
        let reader = Reader { graph, language: state.language, parameters, path: &task.path };
        task.endpoint = reader.text("ApiEndpoint").text();
        task.headers = reader.headers();
        if let Some((_, endpoint)) = &task.endpoint {
            task.target = reader.target(endpoint, &task.headers, public_url);
        }
        task
    }

    pub(super) fn call(&self) -> Option<&Call> {
        match &self.target {
            Target::Gateway(call) => Some(call),
            _ => None,
        }
    }

    /// Whether the gateway can tell one sending of its request from another request: by a key of its own, or by its state.
    pub(super) fn tells_key(&self) -> bool {
        let derived = [EXECUTION, STATE, ENTERED];
        self.headers.may_have(IDEMPOTENCY_KEY) || derived.iter().all(|name| self.headers.may_have(name.as_str()))
    }

    pub(super) fn at(&self, name: &str) -> String {
        member(&self.path, name)
    }

    /// Where the endpoint stands, or what should hold it.
    pub(super) fn endpoint_path(&self) -> &str {
        self.endpoint.as_ref().map_or(&self.path, |(path, _)| path)
    }
}

/// Reads one task's parameters.
struct Reader<'r, 'a> {
    graph: &'r Graph<'a>,
    language: Language,
    parameters: &'r Map<String, Value>,
    path: &'r str,
}

impl Reader<'_, '_> {
    fn text(&self, name: &str) -> Found {
        self.graph.text(self.parameters, self.path, name, self.language)
    }

    fn value(&self, value: &Value, expression: bool) -> Option<Text> {
        Text::of(value, expression, self.language, &self.graph.constants)
    }

    fn headers(&self) -> Headers {
        let path = member(self.path, "Headers");
        match self.parameters.get("Headers") {
            Some(Value::Object(headers)) => {
                let written = headers.iter().map(|(name, value)| {
                    let bare = match self.language {
                        Language::JsonPath => name.strip_suffix(".$"),
                        Language::Jsonata => None,
                    };
                    Header {
                        name: bare.unwrap_or(name).to_ascii_lowercase(),
                        path: member(&path, name),
                        text: self.value(value, bare.is_some()),
                        written: value.as_str().unwrap_or_default().trim().to_owned(),
                    }
                });
                Headers { written: written.collect(), open: false, path }
            }
            Some(_) => Headers { path, written: Vec::new(), open: true },
            None if self.parameters.contains_key("Headers.$") => {
                Headers { path: member(self.path, "Headers.$"), written: Vec::new(), open: true }
            }
            None => Headers { path: self.path.to_owned(), ..Headers::default() },
        }
    }

    fn target(&self, endpoint: &Text, headers: &Headers, public_url: Option<&Url>) -> Target {
        let endpoint_parts = endpoint.split('?');
        let Some(before) = endpoint_parts.first() else { return Target::Elsewhere };
        let segments = before.split('/');
        let known: Vec<Option<&str>> = segments.iter().map(Text::known).collect();
        let cosmos_shaped = known.windows(3).position(|at| matches!(at, [Some("dbs"), _, Some("colls")]));
        let is_ours = public_url.is_some_and(|url| is_below(before, url));
        if segments.get(2).is_some_and(|host| host.filled(UNKNOWN).ends_with(".documents.azure.com")) {
            return Target::Cosmos;
        }
        let path = match cosmos_shaped.and_then(|start| segments.get(start..)) {
            Some(path) => path,
            // After `https:`, nothing and the host.
            None if is_ours => segments.get(3..).unwrap_or_default(),
            None if before.known().is_some() => return Target::Elsewhere,
            None if before.beginning().starts_with("http") && segments.get(2).is_some_and(|h| h.known().is_some()) => {
                return Target::Elsewhere;
            }
            None => return Target::Unknown("its ApiEndpoint comes from data, so where it goes is not known"),
        };
        let own = path.iter().map(|segment| format!("/{}", segment.filled(UNKNOWN))).collect::<String>();
        if OWN_PATHS.contains(&own.as_str()) {
            return Target::GatewayItself;
        }
        if cosmos_shaped.is_none() && own.contains(UNKNOWN) {
            return Target::Unknown("its path comes from data, so what it asks for is not known");
        }
        self.call(path, endpoint_parts.get(1), headers)
    }

    fn call(&self, path: &[Text], query: Option<&Text>, headers: &Headers) -> Target {
        let method = self.text("Method").text();
        let Some(method) = method.as_ref().and_then(|(_, text)| text.known()?.parse::<Method>().ok()) else {
            return Target::Unknown("its Method is not written out, so what it asks for is not known");
        };
        let unknown_discriminator = DISCRIMINATORS.iter().any(|name| {
            headers.open || headers.get(name).is_some_and(|h| h.text.as_ref().is_none_or(|text| text.known().is_none()))
        });
        if unknown_discriminator && method == Method::POST {
            return Target::Unknown("its headers come from data, so what it asks for is not known");
        }
        let rendered: String = path.iter().map(|segment| format!("/{}", segment.filled(UNKNOWN))).collect();
        let Ok(uri) = rendered.parse::<Uri>() else {
            return Target::Refused("its path is not one that a URL may have".to_owned());
        };
        match question::route(&method, &uri, &sent(headers)) {
            Err(rejection) => Target::Refused(rejection.to_string()),
            Ok(Route::Account | Route::Preflight) => Target::GatewayItself,
            Ok(Route::Container(route)) => {
                let text = |at: usize| path.get(at).map(Text::to_string).unwrap_or_default();
                let name = route.container().clone();
                let is_known = !name.to_string().contains(UNKNOWN);
                Target::Gateway(Call {
                    action: route.action(),
                    container: format!("{}/{}", text(1), text(3)),
                    name: is_known.then_some(name),
                    partition: self.partition(query, headers),
                    items: self.items(route.action(), path.get(5)),
                    conditional: headers.open || headers.get(IF_MATCH.as_str()).is_some(),
                    idempotency: headers.text(IDEMPOTENCY_KEY).cloned(),
                })
            }
        }
    }

    fn partition(&self, query: Option<&Text>, headers: &Headers) -> Option<Partition> {
        if let Some(text) = headers.text(PARTITION_KEY.as_str()) {
            return Some(match text.known() {
                Some(known) => Partition::Known(known.parse().ok()?),
                // `["{}"]` around one expression is what the parameter would say by itself.
                None => Partition::Expression(text.between("[\"", "\"]").unwrap_or_else(|| text.clone())),
            });
        }
        let parameters = self.parameters.get("QueryParameters").and_then(Value::as_object);
        let path = member(self.path, "QueryParameters");
        let parameter = parameters.and_then(|all| match self.graph.text(all, &path, "partitionKey", self.language) {
            Found::Text(_, text) => Some(text),
            Found::Absent | Found::Other => None,
        });
        let in_url = || {
            let parameters = query?.split('&').into_iter();
            parameters
                .filter_map(|part| {
                    let pieces = part.split('=');
                    (pieces.first()?.known() == Some("partitionKey")).then(|| pieces.get(1).cloned())?
                })
                .next()
        };
        let text = parameter.or_else(in_url)?;
        Some(match text.known() {
            Some(known) => Partition::Known(key_of_parameter(known)?),
            None => Partition::Expression(text),
        })
    }

    fn items(&self, action: Action, in_path: Option<&Text>) -> Vec<Item> {
        let Action::Operation(operation) = action else { return Vec::new() };
        let body = self.parameters.get("RequestBody");
        let whole = self.text("RequestBody").text().map(|(_, text)| text);
        match operation {
            Operation::ItemsCreate | Operation::ItemsUpsert => {
                let id = match (body, whole) {
                    (Some(Value::Object(members)), _) => self.graph.text(members, "", "id", self.language).text(),
                    (_, Some(text)) => member_of(&text, "id").map(|text| (String::new(), text)),
                    _ => None,
                };
                vec![Item { operation, id: id.map(|(_, text)| text), patched: None }]
            }
            Operation::ItemsPatch => {
                let written = body.and_then(|body| body.get("operations")).and_then(Value::as_array);
                let patched = written.and_then(|all| all.iter().map(patched).collect::<Option<Vec<_>>>());
                vec![Item { operation, id: in_path.cloned(), patched }]
            }
            Operation::Batch => {
                let all = body.and_then(Value::as_array).into_iter().flatten();
                all.filter_map(|one| self.in_batch(one.as_object()?)).collect()
            }
            Operation::ItemsRead | Operation::ItemsReplace | Operation::ItemsDelete => {
                vec![Item { operation, id: in_path.cloned(), patched: None }]
            }
            Operation::Query | Operation::Feed | Operation::Execute => Vec::new(),
        }
    }

    fn in_batch(&self, written: &Map<String, Value>) -> Option<Item> {
        let operation = match written.get("operationType")?.as_str()? {
            "Create" => Operation::ItemsCreate,
            "Upsert" => Operation::ItemsUpsert,
            "Read" => Operation::ItemsRead,
            "Replace" => Operation::ItemsReplace,
            "Delete" => Operation::ItemsDelete,
            "Patch" => Operation::ItemsPatch,
            _ => return None,
        };
        let of = |members: &Map<String, Value>| self.graph.text(members, "", "id", self.language).text();
        let body = || of(written.get("resourceBody")?.as_object()?);
        Some(Item { operation, id: of(written).or_else(body).map(|(_, text)| text), patched: None })
    }
}

fn patched(operation: &Value) -> Option<Patched> {
    let member = |name: &str| operation.get(name).and_then(Value::as_str).map(str::to_owned);
    let (op, path) = (member("op")?, member("path")?);
    (inside_jsonata(&op).is_none() && inside_jsonata(&path).is_none()).then_some(Patched { op, path })
}

/// The headers that are known, as they would be sent.
fn sent(headers: &Headers) -> HeaderMap {
    let known = headers.written.iter().filter_map(|header| {
        let value = HeaderValue::from_str(header.text.as_ref()?.known()?).ok()?;
        Some((header.name.parse::<HeaderName>().ok()?, value))
    });
    // What a partition key says is looked at by itself, and conditions under their own names may not be sent at all.
    let known = known.filter(|(name, _)| *name != PARTITION_KEY);
    let mut sent = HeaderMap::new();
    known.for_each(|(name, value)| {
        sent.append(name, value);
    });
    sent
}

/// `partitionKey=t1` is the text, a JSON array says otherwise.
fn key_of_parameter(text: &str) -> Option<PartitionKey> {
    match serde_json::from_str(text) {
        Ok(array @ Value::Array(_)) => PartitionKey::from_json(&array).ok(),
        _ => PartitionKey::from_json(&Value::Array(vec![text.into()])).ok(),
    }
}

/// The text of a member of what an expression gives.
fn member_of(text: &Text, name: &str) -> Option<Text> {
    match text.pieces() {
        [Piece::Dynamic(expression)] if !expression.starts_with(['{', '[']) => {
            Some(Text::dynamic(format!("{expression}.{name}")))
        }
        _ => None,
    }
}

fn is_below(endpoint: &Text, url: &Url) -> bool {
    let base = url.as_str().trim_end_matches('/');
    endpoint.beginning().strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}
