//! The front door: sockets, TLS, the routes of both listeners, and the order in which everything stops.

mod listen;
mod tls;

pub use tls::{Certificate, TlsError, TlsFiles};
