//! Paths: parsed, decoded once, checked, and rebuilt from the parts.

use std::{borrow::Cow, fmt};

use percent_encoding::percent_decode_str;

use super::{Rejection, item_named};
use crate::{
    access::{ContainerName, ItemId},
    transport::percent_encode as encode,
};

/// The paths that exist.
pub(super) enum Path {
    Root,
    Preflight,
    Container(ContainerName),
    Ranges(ContainerName),
    Items(ContainerName),
    Item(ContainerName, ItemId),
    Procedure(ContainerName, ItemId),
    Elsewhere,
}

/// Reads a raw request path. One trailing slash is allowed: the Python SDK sends it on most requests.
pub(super) fn parse(raw: &str) -> Result<Path, Rejection> {
    if raw == "/" || raw.is_empty() {
        return Ok(Path::Root);
    }
    let inner = raw.strip_prefix('/').ok_or(Rejection::Path)?;
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    let segments = inner.split('/').map(decode).collect::<Result<Vec<_>, _>>()?;
    let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    Ok(match segments.as_slice() {
        ["dbs", database, "colls", container, rest @ ..] => {
            let container = || ContainerName::new(database, container).map_err(Rejection::from);
            match rest {
                [] => Path::Container(container()?),
                ["pkranges"] => Path::Ranges(container()?),
                ["docs"] => Path::Items(container()?),
                ["docs", item] => Path::Item(container()?, item_named(item)?),
                ["sprocs", procedure] => Path::Procedure(container()?, ItemId::new(procedure)?),
                _ => Path::Elsewhere,
            }
        }
        ["preflight"] => Path::Preflight,
        _ => Path::Elsewhere,
    })
}

impl Path {
    /// The path for Cosmos, rebuilt from the checked parts; the gateway's own paths have none.
    pub(super) fn rebuild(&self) -> String {
        let below = |c: &ContainerName, rest: fmt::Arguments<'_>| {
            format!("/dbs/{}/colls/{}{rest}", encode(c.database()), encode(c.container()))
        };
        match self {
            Self::Root | Self::Preflight | Self::Elsewhere => String::new(),
            Self::Container(container) => below(container, format_args!("")),
            Self::Ranges(container) => below(container, format_args!("/pkranges")),
            Self::Items(container) => below(container, format_args!("/docs")),
            Self::Item(container, item) => below(container, format_args!("/docs/{}", encode(item.as_str()))),
            Self::Procedure(container, id) => below(container, format_args!("/sprocs/{}", encode(id.as_str()))),
        }
    }
}

/// Decodes one segment, once. An encoded slash decodes to a slash, which no name may hold.
fn decode(segment: &str) -> Result<Cow<'_, str>, Rejection> {
    match segment {
        "" => Err(Rejection::Path),
        plain if !plain.contains('%') => Ok(plain.into()),
        encoded if is_well_encoded(encoded) => percent_decode_str(encoded).decode_utf8().map_err(|_| Rejection::Path),
        _ => Err(Rejection::Path),
    }
}

/// Whether every `%` is followed by two hexadecimal digits; the decoder would let a broken one stand as text.
fn is_well_encoded(segment: &str) -> bool {
    let mut parts = segment.split('%');
    parts.next();
    parts.all(|part| part.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
}
