//! PEM files, and what is wrong with them.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use thiserror::Error;

/// Files in PEM: who is believed, and who one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Certificates of the authorities that sign everybody's certificates.
    pub ca: PathBuf,
    /// One's own certificate, and those between it and the authority.
    pub certificate: PathBuf,
    /// The private key of it.
    pub key: PathBuf,
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The authority's certificates.
    Authority,
    /// One's own certificate.
    Certificate,
    /// One's own private key.
    Key,
}

impl Role {
    /// What messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Authority => "authority",
            Role::Certificate => "certificate",
            Role::Key => "private key",
        }
    }
}

/// A file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{} {} cannot be used: {why}", role.name(), path.display())]
pub struct TlsError {
    /// What it is for.
    pub role: Role,
    /// Where it is.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl TlsError {
    pub(crate) fn new(role: Role, path: &Path, why: impl ToString) -> TlsError {
        TlsError {
            role,
            path: path.to_owned(),
            why: why.to_string(),
        }
    }
}

fn said(error: pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "there is none in it".to_owned(),
        other => format!("it is no PEM file ({other})"),
    }
}

/// All certificates of a file, at least one.
pub(crate) fn certificates(
    role: Role,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let list = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| TlsError::new(role, path, said(error)))?;
    if list.is_empty() {
        let why = "there is no certificate in it";
        return Err(TlsError::new(role, path, why));
    }
    Ok(list)
}

/// The private key of a file.
pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        let why = match error {
            pem::Error::NoItemsFound => {
                "there is no private key in it that is readable without a password".to_owned()
            }
            other => said(other),
        };
        TlsError::new(Role::Key, path, why)
    })
}
