//! TLS 1.3 with mutual authentication. Both ends show a certificate that the deployment's authority
//! has signed. Names of hosts play no part: whom a certificate has to stand for only the greeting
//! behind the handshake tells, and whoever reads it checks that with [`stands_for`].

mod files;
mod identity;

pub use files::{Files, Role, TlsError};
pub use identity::{Identity, refusal, stands_for};
pub use rustls::pki_types::{CertificateDer, UnixTime};
pub use rustls::{CertificateError, Connection, Error};
