//! What a caller may not see of an item: the members that a grant masks.
//!
//! This room decides two things about a request under a [`Mask`]: whether its answer could carry a masked member past the mask, or
//! tell of it by whether something is found ([`Mask::veil`]); and what the answer looks like once every masked member in it is
//! covered ([`Veil::cover`]). A [`Veil`] is made by the first alone and is the only thing that can do the second, so an answer
//! of a request that was not looked at cannot be covered, and none leaves uncovered.
//!
//! It refuses to know who asks, which grant says so, and what HTTP is. It has no opinion on writes of whole items: whoever does
//! not see a member would overwrite it, so policy does not permit those under a mask at all.
//!
//! Two rules run through everything. A pointer says nothing of positions: where it leads through an array it means every element.
//! And what is not understood is not let through: a query that this room's parser does not read whole is refused, whatever Cosmos
//! would have made of it; an answer that is no JSON of the shape the question asks for is no answer.
//!
//! `pointer` is what is masked and when a path meets it; `query` reads the part of Cosmos' SQL that can be told to be harmless;
//! `patch` looks at what patches touch; `cover` rewrites answers and leaves every byte beside the masked members as it was.

mod cover;
mod patch;
mod pointer;
mod query;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use cover::{Covered, Unreadable};
pub use pointer::{MalformedPointer, Pointer, Show};
pub use query::{Clause, Exposed, Shape};

use crate::access::{Action, Operation};

/// The members that are covered, each once, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mask(Arc<[Pointer]>);

impl Mask {
    /// A mask of these pointers; `None` when there are none.
    pub fn new(pointers: impl IntoIterator<Item = Pointer>) -> Option<Self> {
        let mut pointers: Vec<Pointer> = pointers.into_iter().collect();
        pointers.sort();
        pointers.dedup();
        (!pointers.is_empty()).then(|| Self(pointers.into()))
    }

    /// What is covered by either.
    pub fn union(&self, other: &Self) -> Self {
        if self == other {
            return self.clone();
        }
        Self::new(self.0.iter().chain(&*other.0).cloned()).unwrap_or_else(|| self.clone())
    }

    /// The pointers, in order.
    pub fn pointers(&self) -> &[Pointer] {
        &self.0
    }

    /// Whether at least as much is covered as `pointer` covers.
    pub fn hides(&self, pointer: &Pointer) -> bool {
        self.0.iter().any(|own| own.hides(pointer))
    }

    /// Looks at a request whose answer is to be covered. `change_feed` says that its rows may be wrapped in what happened to
    /// them.
    pub fn veil(&self, action: Action, change_feed: bool, body: &[u8]) -> Result<Veil, Exposed> {
        let answer = match action {
            Action::QueryPlan => query::check(self, body).map(|_| Answer::NoItem)?,
            Action::Metadata => Answer::NoItem,
            Action::Operation(Operation::Query) => Answer::Page { shape: query::check(self, body)?, wrapped: false },
            Action::Operation(Operation::Feed) => Answer::Page { shape: Shape::whole(), wrapped: change_feed },
            Action::Operation(Operation::Batch) => patch::check_batch(self, body).map(|()| Answer::Results)?,
            Action::Operation(Operation::ItemsPatch) => patch::check(self, body).map(|()| Answer::Item)?,
            Action::Operation(_) => Answer::Item,
        };
        Ok(Veil { mask: self.clone(), answer })
    }
}

/// A request that a mask lets through, and what of its answer is an item.
#[derive(Clone, Debug)]
pub struct Veil {
    mask: Mask,
    answer: Answer,
}

/// Where items are in an answer.
#[derive(Clone, PartialEq, Debug)]
enum Answer {
    /// Nowhere.
    NoItem,
    /// It is one, or has no body.
    Item,
    /// In the rows of a page.
    Page {
        /// Where in a row.
        shape: Shape,
        /// Whether a row may say what the item is and what it was.
        wrapped: bool,
    },
    /// In the results of a batch.
    Results,
}

impl Veil {
    /// The answer with every masked member covered, and which pointers covered something. An answer that cannot be read is not
    /// one.
    pub fn cover(&self, body: &[u8]) -> Result<Covered, Unreadable> {
        cover::cover(&self.mask, &self.answer, body)
    }
}
