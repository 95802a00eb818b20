//! The configuration as written. Doc comments here become the descriptions of `config/stepgate.schema.json`.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::access::{Assurance, WorkloadKind};

/// Configuration of `stepgate serve`. Relative paths are taken from the directory of this file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "stepgate configuration")]
pub struct Raw {
    /// Address of the gateway listener, for workflows and SDKs. Plain HTTP is allowed only on a loopback address, or
    /// behind a trusted TLS terminator.
    pub listen: SocketAddr,
    /// Certificate of the gateway listener, and what is asked of callers' certificates. Read again on SIGHUP and when the files change.
    pub tls: Option<Tls>,
    /// Says that a load balancer in front ends TLS, so that plain HTTP off loopback is meant.
    #[serde(default)]
    pub trusted_tls_terminator: bool,
    /// Address of the admin listener (health, metrics, status).
    #[serde(default = "default_admin")]
    pub admin: SocketAddr,
    /// Certificate of the admin listener; needed off loopback.
    pub admin_tls: Option<Tls>,
    /// The bearer token that changing calls on the admin listener must carry. Without it such calls are off.
    pub admin_token: Option<SecretFile>,
    /// The URL under which clients reach the gateway; the account document names it. Needed off loopback.
    #[schemars(with = "Option<String>")]
    pub public_url: Option<String>,
    /// Whose tokens are trusted. At least one.
    pub issuers: Vec<Issuer>,
    /// The Cosmos DB account behind the gateway.
    pub cosmos: Cosmos,
    /// What leaves the gateway beside answers.
    #[serde(default)]
    pub exchange: Exchange,
    /// Where the policy files are.
    pub policies: Policies,
    /// Where the audit log goes.
    pub audit: Audit,
    /// How writes under a grant with `idempotency: on` are kept from being done twice.
    #[serde(default)]
    pub idempotency: Idempotency,
    /// Where revocations are kept. Without it they end with the process.
    pub state: Option<State>,
    /// The face for agents: the Model Context Protocol.
    #[serde(default)]
    pub mcp: Mcp,
    /// Bounds on requests.
    #[serde(default)]
    pub limits: Limits,
    /// Where traces go.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// The stand-ins of `stepgate dev`. `stepgate serve` does not read this section.
    #[cfg(feature = "dev")]
    pub dev: Option<super::dev::Dev>,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate chain, leaf first.
    pub certificate: PathBuf,
    /// The private key.
    pub private_key: PathBuf,
    /// PEM certificates of the authorities that callers' certificates must come from. Without it callers need none. An
    /// EventBridge connection has none to show: this is for private callers.
    pub client_ca: Option<PathBuf>,
}

/// A secret in a file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SecretFile {
    /// The content of a file, without the white space around it.
    File {
        /// The file.
        path: PathBuf,
    },
}

/// An issuer of workflow tokens.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Its name in policy files.
    pub name: String,
    /// The workload profile: what proves that a token is a workload's.
    pub kind: WorkloadKind,
    /// The exact `iss` of its tokens; discovery is at `/.well-known/openid-configuration` below it. `http://` only on
    /// loopback.
    pub url: String,
    /// Accepted `aud` values. Required, except for `cognito` with `clients`.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Accepted clients. Empty: any client of the issuer (the policy still decides).
    #[serde(default)]
    pub clients: Vec<String>,
    /// Accepted signature algorithms, such as `RS256`. Empty: every asymmetric one. Never `none`, never HMAC.
    #[serde(default)]
    pub algorithms: Vec<String>,
    /// How far the issuer's clock may be off (default 30s).
    #[serde(default, with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub leeway: Option<Duration>,
    /// For `oidc`: claims that must all hold for a token to be a workload's; `"*"` means present.
    #[serde(default)]
    pub workload: BTreeMap<String, String>,
    /// For `oidc`: claims any one of which shows a human; `"*"` means present.
    #[serde(default)]
    pub human: BTreeMap<String, String>,
    /// The claim that identifies the workload (default `sub`).
    pub subject_claim: Option<String>,
    /// The claim that names the client (default: what the profile says; for `oidc` `client_id`, else `azp`).
    pub client_claim: Option<String>,
    /// Whether many owners share the issuer: then a binding must pin one of them (default: true for `github`, else false).
    pub shared: Option<bool>,
    /// Which claims speak of the execution, and how sure they are (default: what the profile says; `{}` for none).
    pub context: Option<BTreeMap<ContextFact, ContextClaim>>,
    /// How long keys may be used while the issuer cannot be reached (default 24h).
    #[serde(default, with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub max_staleness: Option<Duration>,
}

/// A fact of the execution context.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names of the x-stepgate- headers")]
pub enum ContextFact {
    Execution,
    State,
    Entered,
    Attempt,
    Redrive,
    Item,
}

/// A claim that speaks of the execution.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContextClaim {
    /// Its name, or a JSON pointer.
    pub claim: String,
    /// `signed` when the caller chose the value, `proven` when the issuer determined it.
    pub assurance: Assurance,
}

/// The Cosmos DB account.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cosmos {
    /// The account's endpoint. `http://` only on loopback.
    pub endpoint: String,
    /// The account's regions, in the order in which reads shall go to them; writes go to the region that takes them, and from one
    /// that fails requests go to the next. Without it everything goes to the endpoint.
    #[serde(default)]
    pub preferred_regions: Vec<String>,
    /// PEM certificates to trust for the endpoint beside the system's roots.
    pub ca_file: Option<PathBuf>,
    /// How the gateway proves itself to Cosmos.
    pub credential: Credential,
}

/// How the gateway proves itself to Cosmos.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Credential {
    /// Every data request carries a resource token, minted with the account key for exactly what the policy grants.
    ResourceToken {
        /// How long a resource token lives: 10m to 24h (default 1h). A token cannot be taken back, so shorter is safer.
        #[serde(default, with = "humantime_serde")]
        #[schemars(with = "Option<String>")]
        lifetime: Option<Duration>,
        /// Where the account key is.
        account_key: AccountKey,
        /// This gateway's share of the 240 request units per second that an account has for users and permissions (default
        /// 120). Divide them among all gateways of the account.
        metadata_units_per_second: Option<u32>,
        /// For how long nobody must have used a scope for its Cosmos user and permission to be taken away: 2d or more
        /// (default 7d). The next request makes them anew.
        #[serde(default, with = "humantime_serde")]
        #[schemars(with = "Option<String>")]
        remove_unused_after: Option<Duration>,
    },
    /// Every request carries an Entra token of the gateway, for accounts that take no keys. Cosmos then knows no partitions:
    /// stepgate alone holds each request to what the policy grants.
    Entra {
        /// As whom the gateway asks for tokens.
        identity: EntraIdentity,
        /// Where tokens come from (default `https://login.microsoftonline.com/`). `http://` only on loopback.
        authority: Option<String>,
        /// What tokens are for (default `https://cosmos.azure.com/.default`).
        scope: Option<String>,
        /// What continuations are sealed with: 32 characters or more, the same for all gateways of a fleet. Without it each
        /// process has a key of its own, and a page is continued only where it was begun.
        continuation_key: Option<SecretFile>,
    },
}

/// As whom the gateway asks Entra for tokens.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum EntraIdentity {
    /// The identity of the machine: a virtual machine, App Service, a container app.
    ManagedIdentity {
        /// The client id of a user-assigned identity (default: the system-assigned one).
        client_id: Option<String>,
    },
    /// A Kubernetes service account, as AKS workload identity mounts it. What is left out comes from `AZURE_TENANT_ID`,
    /// `AZURE_CLIENT_ID` and `AZURE_FEDERATED_TOKEN_FILE`.
    WorkloadIdentity {
        /// The tenant.
        tenant_id: Option<String>,
        /// The application.
        client_id: Option<String>,
        /// The projected token.
        token_file: Option<PathBuf>,
    },
    /// An application with a client secret.
    ClientSecret {
        /// The tenant.
        tenant_id: String,
        /// The application.
        client_id: String,
        /// Where the secret is. Never in this file.
        secret: EntraSecret,
    },
    /// An application with a certificate.
    ClientCertificate {
        /// The tenant.
        tenant_id: String,
        /// The application.
        client_id: String,
        /// The certificate and its RSA private key, as PEM in one file; read again for each token.
        file: PathBuf,
    },
    /// An application that trusts tokens of another issuer (federated identity credential).
    Federated {
        /// The tenant.
        tenant_id: String,
        /// The application.
        client_id: String,
        /// Which token.
        assertion: Assertion,
    },
}

/// Where a client secret is.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum EntraSecret {
    /// The content of a file, without the white space around it; read again for each token.
    File {
        /// The file.
        path: PathBuf,
    },
    /// An environment variable.
    Env {
        /// Its name.
        variable: String,
    },
}

/// Which token stands for the gateway at Entra.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Assertion {
    /// One that something else keeps fresh in a file.
    File {
        /// The file.
        path: PathBuf,
    },
    /// `sts:GetWebIdentityToken` of the gateway's own AWS role (outbound identity federation). The AWS client obeys
    /// `AWS_ENDPOINT_URL`, `AWS_REGION` and the standard credential chain.
    AwsWebIdentity {
        /// The audience that the federated credential names (default api://AzureADTokenExchange).
        audience: Option<String>,
    },
    /// The token of the workflow that asks. Its issuer and subject must have a federated credential of their own.
    WorkflowToken,
}

/// Where the account key is. Never in this file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum AccountKey {
    /// A file: the key itself in base64, or JSON with the key in `field`. It is watched.
    File {
        /// The file.
        path: PathBuf,
        /// The member of the JSON object that holds the key.
        field: Option<String>,
    },
    /// An environment variable, with the same content as a file.
    Env {
        /// Its name.
        variable: String,
        /// The member of the JSON object that holds the key.
        field: Option<String>,
    },
    /// AWS Secrets Manager: stage AWSCURRENT, and AWSPENDING and AWSPREVIOUS while Cosmos refuses that. The AWS client obeys
    /// `AWS_ENDPOINT_URL`, `AWS_REGION` and the standard credential chain.
    AwsSecretsManager {
        /// The secret's name or ARN.
        secret_id: String,
        /// The member of the secret's JSON object that holds the key. The account's other key (`secondaryMasterKey` beside
        /// `primaryMasterKey`) is tried when Cosmos refuses it.
        field: String,
        /// How often it is read again, beside whenever Cosmos refuses the key (default 5m).
        #[serde(default, with = "humantime_serde")]
        #[schemars(with = "Option<String>")]
        refresh: Option<Duration>,
    },
}

/// What leaves the gateway beside answers.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Exchange {
    /// Whether `POST /oauth2/token` trades a workflow's token for a Cosmos resource token. A released token outlives every
    /// revocation, by up to 25 minutes.
    pub release_tokens: bool,
}

/// The policy files.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policies {
    /// The directory, read recursively; `*.test.yaml` are tests.
    pub directory: PathBuf,
}

/// The audit log.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// The directory of the segments; made if absent. One gateway at a time.
    pub directory: PathBuf,
    /// When a record counts as written (default fsync).
    #[serde(default)]
    pub durability: Durability,
    /// The Ed25519 key that signs checkpoints; made with mode 0600 if absent (default: `signing.key` in the directory).
    pub signing_key: Option<SecretFile>,
    /// How often a checkpoint is signed (default 60s).
    #[serde(default, with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub checkpoint_interval: Option<Duration>,
    /// How many records may be written before a checkpoint is signed all the same (default 10000).
    pub checkpoint_records: Option<u64>,
    /// When a segment is full and the next one begins (default 64MiB).
    #[schemars(with = "Option<String>")]
    pub segment_size: Option<ByteSize>,
    /// When a segment is old and the next one begins (default 24h).
    #[serde(default, with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub segment_age: Option<Duration>,
    /// Room that is taken on the disk ahead of time, for outcomes of writes that have begun when it is full (default 8MiB).
    #[schemars(with = "Option<String>")]
    pub reserve: Option<ByteSize>,
    /// How long a record may wait for the disk before its request is refused (default 5s).
    #[serde(default, with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub deadline: Option<Duration>,
    /// Whether closed segments are compressed, to `.jsonl.gz` (default false).
    #[serde(default)]
    pub compress: bool,
    /// How long records are kept; what is older is removed, segment by segment, under a signed statement (default: for ever).
    #[serde(default, with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub retain: Option<Duration>,
    /// Where checkpoints are sent too, so that nobody can cut the log back unseen.
    #[serde(default)]
    pub anchors: Vec<Anchor>,
}

/// A place for checkpoints that the owner of the log's host cannot change.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Anchor {
    /// A directory on another disk or mount.
    File {
        /// The directory; made if absent.
        path: PathBuf,
    },
    /// An S3 bucket, best one with object lock. Credentials come from where every AWS tool takes them.
    S3 {
        /// The bucket.
        bucket: String,
        /// What every key begins with, such as `stepgate/one/`; each gateway needs one of its own.
        #[serde(default)]
        prefix: String,
        /// The region (default: that of every AWS tool).
        region: Option<String>,
        /// The address of something else that speaks as S3 does.
        endpoint: Option<String>,
        /// How long the bucket keeps each checkpoint, whoever asks (object lock in compliance mode).
        #[serde(default, with = "humantime_serde")]
        #[schemars(with = "Option<String>")]
        retain: Option<Duration>,
    },
    /// A container of Cosmos DB, reached with the account key. Its partition key must be `/id`.
    Cosmos {
        /// The account (default: the one behind the gateway).
        endpoint: Option<String>,
        /// The database.
        database: String,
        /// The container.
        container: String,
    },
    /// An address that takes each checkpoint as the body of a POST.
    Webhook {
        /// The address; `http://` on loopback only.
        url: String,
        /// The value of the header `authorization`.
        authorization: Option<SecretFile>,
    },
}

/// Where revocations are kept.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum State {
    /// A file, for one gateway. Made if absent; its directory must exist.
    File {
        /// The file.
        path: PathBuf,
    },
    /// A container of the Cosmos DB account, for all gateways that share it. Its partition key must be `/id`.
    Cosmos {
        /// The database.
        database: String,
        /// The container.
        container: String,
    },
}

/// How writes under a grant with `idempotency: on` are kept from being done twice.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Idempotency {
    /// How long a write is remembered (default 24h): longer than any retry or redrive that brings the same key.
    #[serde(default, with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub ttl: Option<Duration>,
    /// What seals the markers: one secret a line, of 32 characters or more. The first seals, all are believed. All gateways of an
    /// account need the same file. Without it a key is derived from the account key.
    pub key: Option<SecretFile>,
}

/// When an audit record counts as written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// When the disk has it: survives a power cut.
    #[default]
    Fsync,
    /// When the operating system has it: survives a crash of the gateway.
    Write,
    /// When the gateway has it: for development.
    Memory,
}

/// The face for agents: tools that read, at `/mcp` of the gateway listener.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Mcp {
    /// Whether there is one (default false).
    pub enabled: bool,
    /// Under which names it may be called, beside that of `public_url`: `stepgate.internal`, or with a port (default: `localhost`
    /// and the addresses of loopback).
    pub allowed_hosts: Option<Vec<String>>,
    /// From which pages a browser may call it, as `https://app.example` (default: pages of `localhost` and of loopback).
    pub allowed_origins: Option<Vec<String>>,
}

/// Bounds on requests.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest request body.
    #[schemars(with = "String")]
    pub request_body: ByteSize,
    /// Memory for all bodies, requests and answers, in flight.
    #[schemars(with = "String")]
    pub body_memory: ByteSize,
    /// Requests in flight; more are refused with 503.
    pub concurrency: usize,
    /// How long a request may take in all; an HTTP Task gives up after 60 s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub deadline: Duration,
    /// How long a peer may take for the TLS handshake, for the head of a request, and for its body.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub read_timeout: Duration,
    /// How long a stop waits for requests in flight.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub drain: Duration,
}

/// Where traces go. The standard variables `OTEL_EXPORTER_OTLP_HEADERS` and `OTEL_RESOURCE_ATTRIBUTES` are obeyed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// The OpenTelemetry collector, such as `http://127.0.0.1:4317`. Without one no spans are made.
    pub otlp_endpoint: Option<String>,
    /// How it is spoken to (default: `http` for port 4318 and where the endpoint has a path, else `grpc`).
    pub otlp_protocol: Option<OtlpProtocol>,
    /// Under which name the gateway's spans are found.
    pub service_name: String,
    /// What share of the traces that begin at the gateway is exported, from 0 to 1. A caller that sends `traceparent` or
    /// `X-Amzn-Trace-Id` has decided for its own.
    pub sample_ratio: f64,
}

/// How an OpenTelemetry collector is spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OtlpProtocol {
    /// gRPC.
    Grpc,
    /// HTTP with protobuf.
    Http,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { otlp_endpoint: None, otlp_protocol: None, service_name: "stepgate".to_owned(), sample_ratio: 1.0 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_body: ByteSize::mib(2),
            body_memory: ByteSize::mib(256),
            concurrency: 1024,
            deadline: Duration::from_secs(55),
            read_timeout: Duration::from_secs(10),
            drain: Duration::from_secs(65),
        }
    }
}

fn default_admin() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9090))
}
