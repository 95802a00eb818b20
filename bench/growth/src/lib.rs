//! What the benches of `verify` and `mint` share: an issuer that signs as much as is asked of it, a room that trusts it, and
//! a server that answers at once.

mod issuer;
mod room;
mod upstream;

pub use issuer::{AUDIENCE, Algorithm, Issuer, claims, request};
pub use room::Room;
pub use upstream::Upstream;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
