//! The member `stepgate` of a record: the names that scripts rely on, and the way there (`write`) and back (`read`). The property in
//! `ocsf` holds the two together.

mod read;
mod write;

pub use self::read::Unreadable;
pub(super) use self::{read::Fields, write::write};
