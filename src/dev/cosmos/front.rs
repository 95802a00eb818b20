//! The walk of a request through the stand-in: read, authorize, strike with a fault, check, carry out, record.

use std::{convert::Infallible, net::SocketAddr};

use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header::HOST};
use uuid::Uuid;

use super::{
    Cosmos, admin,
    authorization::{self, Authorization, Credential},
    batch, checks,
    emulator::{Container, name_endpoints},
    enforce, entra,
    faults::Effect,
    keyring::{Claim, string_to_sign},
    patch, permissions, procedures,
    record::Recorded,
    refusal::{EntraFault, Refusal},
    regions::Region,
    request::{Asked, Operation, Part, Target, header},
};
use crate::clock::Timestamp;

/// Largest body that is read. Cosmos takes 2 MB and says so itself; this is only what memory is spent on.
const LARGEST_BODY: usize = 4 << 20;

/// The stand-in at an address.
#[derive(Clone)]
pub(super) struct Front {
    pub(super) cosmos: Cosmos,
    pub(super) address: SocketAddr,
    /// Whose listener it is; `None` for the account's own endpoint, which is where the write region is.
    pub(super) region: Option<usize>,
}

/// Who asks, verified.
enum Caller {
    Account,
    Token(Box<Claim>),
    Entra,
}

/// What comes of a request.
enum Outcome {
    Answer(Response<Bytes>),
    /// Done, but nobody is told.
    Cut,
}

/// What a request turned out to be on the way, for the record.
struct Seen {
    authorization: Authorization,
    permission: Option<String>,
}

/// Answers a request.
pub(super) async fn answer(State(front): State<Front>, request: Request) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, LARGEST_BODY).await;
    if let Some(path) = parts.uri.path().strip_prefix(admin::PREFIX) {
        return Ok(admin::answer(&front.cosmos, &parts.method, path, &body.unwrap_or_default()).map(Body::from));
    }
    let region = front.region.unwrap_or_else(|| front.cosmos.write_region());
    if !front.cosmos.is_here(region) {
        return Ok(Response::new(broken_body()));
    }
    let activity_id = activity_id(&parts.headers);
    let mut seen = Seen { authorization: Authorization::None, permission: None };
    let asked = body.map_err(|_| Refusal::TooLarge).and_then(|body| Asked::read(&parts, body, region));
    let outcome = match &asked {
        Ok(asked) => front.walk(asked, &mut seen).await.unwrap_or_else(|refusal| Outcome::Answer(refusal.answer())),
        Err(refusal) => Outcome::Answer(refusal.answer()),
    };
    let (status, substatus, response) = match outcome {
        Outcome::Answer(response) => {
            let response = with_common_headers(response, &activity_id, front.cosmos.0.clock.now());
            let substatus = response.headers().get(header::SUBSTATUS).and_then(|v| v.to_str().ok()?.parse().ok());
            (response.status().as_u16(), substatus, response.map(Body::from))
        }
        Outcome::Cut => (0, None, Response::new(broken_body())),
    };
    front.cosmos.record(Recorded {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        resource_type: asked.as_ref().map(|asked| asked.signed_resource().0).unwrap_or_default(),
        operation: asked.as_ref().ok().and_then(Asked::operation),
        authorization: seen.authorization,
        permission: seen.permission,
        region: front.region.and_then(|region| Some(front.cosmos.0.regions.get(region)?.name.clone())),
        partition_key: asked.as_ref().ok().and_then(|asked| asked.header(header::PARTITION_KEY).map(str::to_owned)),
        activity_id,
        status,
        substatus,
    });
    Ok(response)
}

impl Front {
    async fn walk(&self, asked: &Asked, seen: &mut Seen) -> Result<Outcome, Refusal> {
        let credential = authorization::parse(&asked.headers)?;
        seen.authorization = credential.kind();
        let caller = self.authenticate(asked, credential).await?;
        if let Caller::Token(claim) = &caller {
            seen.permission = Some(format!("{}/{}", claim.user, claim.permission));
        }
        let container = self.container(asked).await;
        authorize(&caller, asked, container.as_ref())?;
        let region = self.cosmos.0.regions.get(asked.region).map(|region| region.name.as_str());
        let fault = self.cosmos.faults().take(asked, region);
        if let Some(answer) = fault.and_then(Effect::answer) {
            return Ok(Outcome::Answer(answer));
        }
        if let Some(delay) = fault.and_then(Effect::delay) {
            tokio::time::sleep(delay).await;
        }
        if let Some(answer) = self.cosmos.master().throttle(asked, self.cosmos.0.clock.running()) {
            return Ok(Outcome::Answer(answer));
        }
        let answer = self.carry_out(asked, container.as_ref()).await;
        let mut answer = answer.unwrap_or_else(|refusal| refusal.answer());
        self.cosmos.master().charge(asked, &mut answer);
        Ok(if fault == Some(Effect::CutAfterCommit) { Outcome::Cut } else { Outcome::Answer(answer) })
    }

    async fn authenticate(&self, asked: &Asked, credential: Credential) -> Result<Caller, Refusal> {
        let now = self.cosmos.0.clock.now();
        match credential {
            Credential::Master { .. } | Credential::Resource { .. } if self.cosmos.0.disable_local_auth => {
                Err(Refusal::LocalAuthDisabled)
            }
            Credential::Master { signature } => {
                let x_ms_date = asked.header(header::DATE);
                let date = x_ms_date.or_else(|| asked.header("date")).ok_or(Refusal::MissingDate)?;
                let (kind, link) = asked.signed_resource();
                let text = string_to_sign(asked.method.as_str(), &kind, &link, x_ms_date, date);
                self.cosmos.keyring().check_signature(&signature, text, http_date(date)?, now)?;
                Ok(Caller::Account)
            }
            Credential::Resource { signature } => {
                Ok(Caller::Token(Box::new(self.cosmos.keyring().check_token(&signature, now)?)))
            }
            Credential::Aad { jwt } => {
                let entra = self.cosmos.0.entra.as_ref().ok_or(Refusal::EntraToken(EntraFault::NoIssuer))?;
                entra.verify(&jwt, &self.endpoint(asked), now).await.map_err(Refusal::EntraToken)?;
                Ok(Caller::Entra)
            }
        }
    }

    /// The container that the request is about, if it is about one that exists.
    async fn container(&self, asked: &Asked) -> Option<Container> {
        match &asked.target {
            Target::Container { database, container, .. } => {
                self.cosmos.0.emulator.container(database, container).await
            }
            _ => None,
        }
    }

    async fn carry_out(&self, asked: &Asked, container: Option<&Container>) -> Result<Response<Bytes>, Refusal> {
        let emulator = &self.cosmos.0.emulator;
        match &asked.target {
            Target::Database { .. } | Target::Container { part: Part::Itself, .. } => {
                let answer = emulator.carry_out(asked).await?;
                if asked.method == "DELETE" && answer.status().is_success() {
                    self.forget(&asked.target);
                }
                Ok(answer)
            }
            Target::Users { .. } | Target::User { .. } | Target::Permissions { .. } | Target::Permission { .. } => {
                if asked.method != "GET" && asked.region != self.cosmos.write_region() {
                    return Err(Refusal::WriteForbidden);
                }
                permissions::answer(&self.cosmos, asked).await
            }
            Target::Container { database, container: name, part } => {
                let facts = container.ok_or(Refusal::OwnerNotFound);
                let place = (database.as_str(), name.as_str());
                match part {
                    Part::Procedures if asked.method == "POST" => {
                        facts.and_then(|_| procedures::create(&self.cosmos, asked, place))
                    }
                    Part::Procedure(id) if asked.method == "POST" => {
                        checks::check(asked, facts?, emulator).await?;
                        procedures::execute(&self.cosmos, asked, place, id)
                    }
                    Part::Item(id) if asked.method == "PATCH" => {
                        checks::check(asked, facts?, emulator).await?;
                        patch::carry_out(asked, id, emulator).await
                    }
                    _ => {
                        checks::check(asked, facts?, emulator).await?;
                        match asked.operation() {
                            Some(Operation::Batch) => batch::carry_out(asked, emulator).await,
                            _ => emulator.carry_out(asked).await,
                        }
                    }
                }
            }
            _ => Ok(name_endpoints(asked, |region| self.address_of(region, asked), emulator.carry_out(asked).await?)),
        }
    }

    /// Drops what belonged to a database or a container that is gone.
    fn forget(&self, gone: &Target) {
        match gone {
            Target::Database { database } => {
                self.cosmos.directory().forget(database);
                self.cosmos.procedures().retain(|(of, _, _)| of != database);
            }
            Target::Container { database, container, .. } => {
                self.cosmos.procedures().retain(|(db, of, _)| (db, of) != (database, container));
            }
            _ => {}
        }
    }

    /// The address of a region: that of its own listener, or, of a stand-in with one endpoint, that one.
    fn address_of(&self, name: &str, asked: &Asked) -> String {
        let region = self.cosmos.0.regions.iter().find(|region| region.name == name);
        match region.and_then(Region::address) {
            Some(address) => format!("http://{address}/"),
            None => self.endpoint(asked),
        }
    }

    /// The address that clients shall send everything to: the one bound, or, when every address is bound, the one that
    /// this caller used.
    fn endpoint(&self, asked: &Asked) -> String {
        match asked.header(HOST.as_str()) {
            Some(host) if self.address.ip().is_unspecified() => format!("http://{host}/"),
            _ => format!("http://{}/", self.address),
        }
    }
}

fn authorize(caller: &Caller, asked: &Asked, container: Option<&Container>) -> Result<(), Refusal> {
    match caller {
        Caller::Account => Ok(()),
        Caller::Entra => entra::permits(asked),
        Caller::Token(claim) => {
            let key_paths = container.map_or(0, |container| container.key_paths.len());
            // A container made anew under an old name is another container.
            let is_same = container.is_none_or(|container| container.rid == claim.container_rid);
            if is_same { enforce::permits(claim, asked, key_paths) } else { Err(Refusal::InsufficientPermissions) }
        }
    }
}

fn http_date(date: &str) -> Result<Timestamp, Refusal> {
    let time = httpdate::parse_http_date(date).map_err(|_| Refusal::InvalidDate)?;
    let since = time.duration_since(std::time::UNIX_EPOCH).map_err(|_| Refusal::InvalidDate)?;
    Ok(Timestamp::from_secs(i64::try_from(since.as_secs()).map_err(|_| Refusal::InvalidDate)?))
}

fn activity_id(headers: &HeaderMap) -> String {
    let given = headers.get(header::ACTIVITY_ID).and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
    given.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

fn with_common_headers(mut response: Response<Bytes>, activity_id: &str, now: Timestamp) -> Response<Bytes> {
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::try_from(activity_id) {
        headers.insert(HeaderName::from_static(header::ACTIVITY_ID), id);
    }
    if let Ok(date) = HeaderValue::try_from(now.http_date()) {
        headers.insert(http::header::DATE, date);
    }
    headers.entry(HeaderName::from_static(header::REQUEST_CHARGE)).or_insert(HeaderValue::from_static("0"));
    response
}

/// A body that breaks before its first byte: the server closes the connection before it has sent the head.
fn broken_body() -> Body {
    let cut = std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
    Body::from_stream(futures_util::stream::once(std::future::ready(Err::<Bytes, _>(cut))))
}
