//! Queries of which it can be told that their answer carries no masked member, and that they tell nothing of one.
//!
//! Read is the part of Cosmos' SQL in which every member is named by a path from the container: no subquery, no JOIN, no FROM over
//! elements, no member whose name is computed, and functions only that say nothing but of their arguments. In that part one rule is
//! enough: no path may meet a masked pointer, in whatever clause it stands. The one exception is the item as a whole, in the list
//! of SELECT and nowhere else: where it is in a row is then known ([`Shape`]), and there it is covered.
//!
//! Whether an expression means anything is Cosmos' to say, so precedence and types are not looked at. What is looked at is that no
//! two readers could take the text apart in two ways: a text with a backslash or another quotation mark in it, a comment, a
//! character beyond ASCII outside of texts are refused. Values belong into parameters.

mod lexer;
mod parser;

use std::fmt;

use serde::{Deserialize, de::IgnoredAny};

use self::parser::{Path, Query};
use super::{
    Mask, Pointer,
    pointer::{Step, shown, steps},
};

/// Where the gateway keeps the answers of writes that are done once; nobody's to read, least of all past a mask.
const KEPT: &str = "/stepgate/answer";

/// Where in a row of an answer items are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    whole: bool,
    members: Vec<String>,
}

impl Shape {
    /// Each row is an item.
    pub fn whole() -> Self {
        Self { whole: true, members: Vec::new() }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// The members of a row that are items.
    pub(super) fn members(&self) -> &[String] {
        &self.members
    }
}

/// A part of a query.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clause {
    /// `SELECT`
    Select,
    /// `FROM`
    From,
    /// `WHERE`
    Where,
    /// `GROUP BY`
    GroupBy,
    /// `ORDER BY`
    OrderBy,
    /// `TOP`, or `OFFSET` and `LIMIT`
    Limit,
    /// The condition of a patch.
    Condition,
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Select => "SELECT",
            Self::From => "FROM",
            Self::Where => "WHERE",
            Self::GroupBy => "GROUP BY",
            Self::OrderBy => "ORDER BY",
            Self::Limit => "TOP or OFFSET LIMIT",
            Self::Condition => "the patch's condition",
        })
    }
}

/// Why a request is refused under a mask: its answer could carry a masked member out, or tell of it. Every text is safe to show.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Exposed {
    /// A path meets a masked pointer.
    #[error("{clause} names {path}, and {pointer} is masked")]
    Named {
        /// Where.
        clause: Clause,
        /// What.
        path: String,
        /// The pointer.
        pointer: Pointer,
    },
    /// What the gateway keeps for itself.
    #[error("{0} names {KEPT}, which is the gateway's own")]
    Kept(Clause),
    /// The item as a whole, elsewhere than as an entry of SELECT.
    #[error("{0} uses the whole item within an expression, and members of it are masked")]
    Whole(Clause),
    /// Whole items are compared.
    #[error("DISTINCT compares whole items, and members of them are masked")]
    Distinct,
    /// A name that is no path from the container.
    #[error("{clause} names `{name}`, which is not the alias of the container in FROM")]
    NotTheContainer {
        /// Where.
        clause: Clause,
        /// The name.
        name: String,
    },
    /// `c[@name]`
    #[error("{0} computes which member it means; under a mask members are named by c.name, c[\"name\"] or c[0]")]
    Computed(Clause),
    /// A query within a query.
    #[error("{0} has a subquery, which is not let through under a mask")]
    Subquery(Clause),
    /// `JOIN`, `IN` or a path in FROM.
    #[error("FROM goes over something else than the items of the container, which is not let through under a mask")]
    Elements,
    /// A function that is not known to be harmless.
    #[error("{clause} calls {name}, which is not among the functions that are let through under a mask")]
    Function {
        /// Where.
        clause: Clause,
        /// The function.
        name: String,
    },
    /// A query that is not of the part that is read.
    #[error("under a mask this query is not let through: {clause} has {found}, and {expected} was expected")]
    Grammar {
        /// Where.
        clause: Clause,
        /// What stands there.
        found: String,
        /// What could.
        expected: &'static str,
    },
    /// A text that two readers could take apart in two ways.
    #[error("under a mask this query is not let through: {0}; give values as parameters")]
    Text(&'static str),
    /// A body that is not read.
    #[error("under a mask this request is not let through: {0}")]
    Unread(&'static str),
    /// A patch that touches what is masked.
    #[error("the patch's {op} names {path}, and {pointer} is masked")]
    Patched {
        /// The operation.
        op: String,
        /// The path.
        path: String,
        /// The pointer.
        pointer: Pointer,
    },
}

/// The body of a query: nothing beside its text and its parameters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    #[serde(borrow)]
    query: std::borrow::Cow<'a, str>,
    #[serde(default)]
    #[allow(dead_code, reason = "read so that other members are refused")]
    parameters: Option<IgnoredAny>,
}

/// Checks the body of a query; gives where in its rows items are.
pub(super) fn check(mask: &Mask, body: &[u8]) -> Result<Shape, Exposed> {
    let body: Body<'_> = serde_json::from_slice(body)
        .map_err(|_| Exposed::Unread("its body has members beside `query` and `parameters`"))?;
    let query = parser::query(&body.query)?;
    judge(mask, &query)?;
    let mut members: Vec<String> = query.whole.iter().filter_map(|whole| whole.name.clone()).collect();
    members.sort();
    members.dedup();
    let whole = query.star || query.whole.iter().any(|whole| whole.name.is_none());
    Ok(Shape { whole, members })
}

/// Checks the condition of a patch.
pub(super) fn check_condition(mask: &Mask, condition: &str) -> Result<(), Exposed> {
    judge(mask, &parser::condition(condition)?)
}

fn judge(mask: &Mask, query: &Query) -> Result<(), Exposed> {
    let is_alias = |root: &str| query.alias.as_deref() == Some(root);
    if query.star && query.alias.is_none() {
        return Err(Exposed::Elements);
    }
    if query.distinct && (query.star || !query.whole.is_empty()) {
        return Err(Exposed::Distinct);
    }
    if let Some(whole) = query.whole.iter().find(|whole| !is_alias(&whole.root)) {
        return Err(Exposed::NotTheContainer { clause: Clause::Select, name: whole.root.clone() });
    }
    let kept = Kept::new();
    for Path { clause, root, steps } in &query.paths {
        let clause = *clause;
        if !is_alias(root) {
            return Err(Exposed::NotTheContainer { clause, name: root.clone() });
        }
        if steps.is_empty() {
            return Err(Exposed::Whole(clause));
        }
        if let Some(pointer) = mask.pointers().iter().find(|pointer| pointer.meets(steps)) {
            return Err(Exposed::Named { clause, path: shown(steps), pointer: pointer.clone() });
        }
        if kept.is_met_by(steps) {
            return Err(Exposed::Kept(clause));
        }
    }
    Ok(())
}

/// [`KEPT`], as steps.
struct Kept(Vec<Step>);

impl Kept {
    fn new() -> Self {
        Self(steps(KEPT).unwrap_or_default())
    }

    fn is_met_by(&self, path: &[Step]) -> bool {
        self.0.iter().zip(path).all(|(own, other)| own == other)
    }
}
