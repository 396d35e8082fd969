//! TLS 1.3 with mutual authentication. Both ends show a certificate that the deployment's authority
//! has signed, and it has to stand for the node's name, or for the cluster's (one certificate for
//! all). Names of hosts play no part: peers pass on each other's addresses.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, RootCertStore, ServerConfig,
    ServerConnection, SignatureScheme,
};

use super::{FabricError, Tls};

/// Both roles of this node.
pub struct Identity {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

fn unusable(what: &'static str, path: &Path, why: impl ToString) -> FabricError {
    FabricError::Certificate {
        what,
        path: path.display().to_string(),
        why: why.to_string(),
    }
}

fn certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, FabricError> {
    let list = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|why| unusable(what, path, why))?;
    match list.is_empty() {
        true => Err(unusable(what, path, "there is no certificate in it")),
        false => Ok(list),
    }
}

impl Identity {
    pub fn load(files: &Tls) -> Result<Self, FabricError> {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        for authority in certificates("authority", &files.ca)? {
            roots
                .add(authority)
                .map_err(|why| unusable("authority", &files.ca, why))?;
        }
        let roots = Arc::new(roots);
        let own = certificates("certificate", &files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key)
            .map_err(|why| unusable("private key", &files.key, why))?;
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|why| unusable("authority", &files.ca, why))?;
        let fail = |why: rustls::Error| unusable("certificate", &files.certificate, why);
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(fail)?
            .with_client_cert_verifier(clients)
            .with_single_cert(own.clone(), key.clone_key())
            .map_err(fail)?;
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(fail)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Signed { roots, provider }))
            .with_client_auth_cert(own, key)
            .map_err(fail)?;
        Ok(Self {
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }

    pub fn dial(&self) -> Result<Connection, rustls::Error> {
        // Checked by nobody: see `Signed`, and `stands_for` for what is checked instead.
        let name = ServerName::try_from("estate").expect("a DNS name");
        let mut connection = Connection::from(ClientConnection::new(self.client.clone(), name)?);
        connection.set_buffer_limit(None);
        Ok(connection)
    }

    pub fn accept(&self) -> Result<Connection, rustls::Error> {
        let mut connection = Connection::from(ServerConnection::new(self.server.clone())?);
        connection.set_buffer_limit(None);
        Ok(connection)
    }
}

/// Whether a certificate that an authority has signed was issued for one of `names`.
pub fn stands_for(certificate: &CertificateDer<'_>, names: &[&str]) -> bool {
    let Ok(parsed) = ParsedCertificate::try_from(certificate) else {
        return false;
    };
    names.iter().any(|name| {
        ServerName::try_from(*name).is_ok_and(|name| verify_server_name(&parsed, &name).is_ok())
    })
}

/// The server's certificate is signed by a trusted authority. Whose it is, the greeting tells, and
/// [`stands_for`] checks that.
#[derive(Debug)]
struct Signed {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Signed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
