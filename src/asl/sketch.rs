//! A state for an operation, with nothing wrong with it.

use serde_json::{Map, Value, json};

use super::{
    rules::{json_path_of, jsonata_of},
    text::Language,
};
use crate::access::{ContainerName, Operation};

/// What a state is sketched from.
#[derive(Clone, Debug)]
pub struct Sketch {
    /// What it does.
    pub operation: Operation,
    /// Where.
    pub container: ContainerName,
    /// The state's name.
    pub name: String,
    /// The gateway's address.
    pub gateway: String,
    /// The ARN of the connection.
    pub connection: String,
    /// Whether it is written in JSONata; in JSONPath otherwise.
    pub jsonata: bool,
}

/// A definition of one state that does the operation, and one in which failures end.
///
/// It reads the item's id from `id` of its input, the partition key from `partitionKey`, what it writes from `item`, and the etag
/// from `etag`.
pub fn sketch(sketch: &Sketch) -> Value {
    let language = if sketch.jsonata { Language::Jsonata } else { Language::JsonPath };
    let writer = Writer { sketch, language };
    let mut definition = Map::new();
    let comment =
        format!("{} on {}, from the id, partitionKey, item and etag of its input", sketch.operation, sketch.container);
    definition.insert("Comment".to_owned(), comment.into());
    if sketch.jsonata {
        definition.insert("QueryLanguage".to_owned(), "JSONata".into());
    }
    definition.insert("StartAt".to_owned(), sketch.name.as_str().into());
    let failed = json!({ "Type": "Fail", "Error": format!("{}Failed", sketch.name) });
    let states = [(sketch.name.clone(), writer.state()), (format!("{}Failed", sketch.name), failed)];
    definition.insert("States".to_owned(), Value::Object(states.into_iter().collect()));
    Value::Object(definition)
}

struct Writer<'a> {
    sketch: &'a Sketch,
    language: Language,
}

impl Writer<'_> {
    fn state(&self) -> Value {
        let operation = self.sketch.operation;
        let mut request = Map::new();
        self.endpoint(&mut request);
        let method = match operation {
            Operation::ItemsRead | Operation::Feed => "GET",
            Operation::ItemsReplace => "PUT",
            Operation::ItemsPatch => "PATCH",
            Operation::ItemsDelete => "DELETE",
            Operation::ItemsCreate
            | Operation::ItemsUpsert
            | Operation::Query
            | Operation::Batch
            | Operation::Execute => "POST",
        };
        request.insert("Method".to_owned(), method.into());
        request.insert("InvocationConfig".to_owned(), json!({ "ConnectionArn": self.sketch.connection }));
        request.insert(
            "QueryParameters".to_owned(),
            self.object([("partitionKey", "$.partitionKey", "$states.input.partitionKey")]),
        );
        request.insert("Headers".to_owned(), self.headers());
        self.body(&mut request);
        let (arguments, failed) = (self.name_of_parameters(), format!("{}Failed", self.sketch.name));
        let mut state = Map::new();
        state.insert("Type".to_owned(), "Task".into());
        state.insert("Resource".to_owned(), "arn:aws:states:::http:invoke".into());
        state.insert(arguments.to_owned(), Value::Object(request));
        state.insert("TimeoutSeconds".to_owned(), 60.into());
        state.insert("Retry".to_owned(), self.retry());
        let mut catch = vec![json!({ "ErrorEquals": ["States.DataLimitExceeded"], "Next": failed })];
        catch.push(json!({ "ErrorEquals": ["States.ALL"], "Next": failed }));
        state.insert("Catch".to_owned(), Value::Array(catch));
        state.insert("End".to_owned(), true.into());
        Value::Object(state)
    }

    fn name_of_parameters(&self) -> &'static str {
        match self.language {
            Language::JsonPath => "Parameters",
            Language::Jsonata => "Arguments",
        }
    }

    fn endpoint(&self, request: &mut Map<String, Value>) {
        let base = format!("{}/{}", self.sketch.gateway.trim_end_matches('/'), self.sketch.container.link());
        let below = match self.sketch.operation {
            Operation::Execute => "sprocs",
            _ => "docs",
        };
        let has_id = matches!(
            self.sketch.operation,
            Operation::ItemsRead
                | Operation::ItemsReplace
                | Operation::ItemsPatch
                | Operation::ItemsDelete
                | Operation::Execute
        );
        let (name, value) = match (has_id, self.language) {
            (false, _) => ("ApiEndpoint", format!("{base}/{below}")),
            (true, Language::JsonPath) => ("ApiEndpoint.$", format!("States.Format('{base}/{below}/{{}}', $.id)")),
            (true, Language::Jsonata) => {
                ("ApiEndpoint", format!("{{% '{base}/{below}/' & $encodeUrlComponent($states.input.id) %}}"))
            }
        };
        request.insert(name.to_owned(), value.into());
    }

    fn headers(&self) -> Value {
        let names = ["x-stepgate-execution", "x-stepgate-state", "x-stepgate-entered", "x-stepgate-attempt"];
        let mut headers = Map::new();
        let discriminator = match self.sketch.operation {
            Operation::ItemsUpsert => Some("x-ms-documentdb-is-upsert"),
            Operation::Query => Some("x-ms-documentdb-isquery"),
            Operation::Batch => Some("x-ms-cosmos-is-batch-request"),
            _ => None,
        };
        headers.extend(discriminator.map(|name| (name.to_owned(), "true".into())));
        for name in names {
            match self.language {
                Language::JsonPath => headers.insert(format!("{name}.$"), json_path_of(name).into()),
                Language::Jsonata => headers.insert(name.to_owned(), jsonata_of(name).into()),
            };
        }
        let more = match self.sketch.operation {
            Operation::ItemsCreate | Operation::ItemsPatch | Operation::Batch => {
                ("idempotency-key", "$$.Execution.Name", "$states.context.Execution.Name")
            }
            Operation::ItemsReplace => ("x-stepgate-if-match", "$.etag", "$states.input.etag"),
            _ => return Value::Object(headers),
        };
        if let Value::Object(more) = self.object([more]) {
            headers.extend(more);
        }
        Value::Object(headers)
    }

    fn body(&self, request: &mut Map<String, Value>) {
        let body = match self.sketch.operation {
            Operation::ItemsCreate | Operation::ItemsUpsert | Operation::ItemsReplace => {
                if let Value::Object(body) = self.object([("RequestBody", "$.item", "$states.input.item")]) {
                    request.extend(body);
                }
                return;
            }
            Operation::ItemsPatch => {
                let mut set = Map::from_iter([("op".to_owned(), json!("set")), ("path".to_owned(), json!("/status"))]);
                if let Value::Object(value) = self.object([("value", "$.item.status", "$states.input.item.status")]) {
                    set.extend(value);
                }
                json!({ "operations": [set] })
            }
            Operation::Query => {
                let mut parameter = Map::from_iter([("name".to_owned(), json!("@id"))]);
                if let Value::Object(value) = self.object([("value", "$.id", "$states.input.id")]) {
                    parameter.extend(value);
                }
                json!({ "query": "SELECT * FROM c WHERE c.id = @id", "parameters": [parameter] })
            }
            Operation::Batch => {
                let mut create = Map::from_iter([("operationType".to_owned(), json!("Create"))]);
                if let Value::Object(item) = self.object([("resourceBody", "$.item", "$states.input.item")]) {
                    create.extend(item);
                }
                json!([create])
            }
            Operation::Execute => json!([]),
            Operation::ItemsRead | Operation::ItemsDelete | Operation::Feed => return,
        };
        request.insert("RequestBody".to_owned(), body);
    }

    /// Members whose values are expressions: a name, in JSONPath, in JSONata.
    fn object<const N: usize>(&self, members: [(&str, &str, &str); N]) -> Value {
        let members = members.into_iter().map(|(name, json_path, jsonata)| match self.language {
            Language::JsonPath => (format!("{name}.$"), Value::from(json_path)),
            Language::Jsonata => (name.to_owned(), Value::from(format!("{{% {jsonata} %}}"))),
        });
        Value::Object(members.collect())
    }

    fn retry(&self) -> Value {
        let mut codes = vec![425, 429, 502, 503, 504];
        if self.sketch.operation == Operation::Execute {
            // Whether it was done is not known, and nothing keeps it to once.
            codes.pop();
        }
        let names: Vec<_> = codes.iter().map(|code| format!("States.Http.StatusCode.{code}")).collect();
        json!([
            { "ErrorEquals": ["States.Http.StatusCode.401"], "IntervalSeconds": 1, "MaxAttempts": 1 },
            { "ErrorEquals": names, "IntervalSeconds": 2, "MaxAttempts": 5, "BackoffRate": 2.0, "MaxDelaySeconds": 30, "JitterStrategy": "FULL" },
        ])
    }
}
