//! The configuration: what was typed ([`Raw`]), then what it means.
//!
//! This is the only reader of configuration files and of the environment. Rooms own their typed configuration and know
//! nothing of this one; the checks here fill them, and report every problem at once, each with its place and a mend.

#[cfg(feature = "dev")]
pub mod dev;
mod load;
mod raw;

pub use load::{Written, interpret, read};
pub use raw::Raw;
