//! What a node's certificate files are to TLS ([`flowferry_tls`]). A certificate has to stand for
//! the node's name, or for the cluster's (one certificate for all). Names of hosts play no part:
//! peers pass on each other's addresses.

use flowferry_tls::{Files, TlsError};
pub use flowferry_tls::{Identity, stands_for};

use super::{FabricError, Tls};

pub fn load(tls: &Tls) -> Result<Identity, FabricError> {
    let files = Files {
        ca: tls.ca.clone(),
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
    };
    Ok(Identity::load(&files)?)
}

/// The dialling end of a link, whose writer takes whatever it is given: what cannot be sent waits.
pub fn dial(identity: &Identity) -> Result<rustls::Connection, rustls::Error> {
    identity.dial().map(unlimited)
}

/// The end that is dialled, likewise.
pub fn accept(identity: &Identity) -> Result<rustls::Connection, rustls::Error> {
    identity.accept().map(unlimited)
}

fn unlimited(mut connection: rustls::Connection) -> rustls::Connection {
    connection.set_buffer_limit(None);
    connection
}

impl From<TlsError> for FabricError {
    fn from(error: TlsError) -> FabricError {
        FabricError::Certificate {
            what: error.role.name(),
            path: error.path.display().to_string(),
            why: error.why,
        }
    }
}
