//! Who one is, and who is believed.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, DigitallySignedStruct, Error,
    RootCertStore, ServerConfig, ServerConnection, SignatureScheme,
};

use crate::files::{Files, Role, TlsError, certificates, private_key};

/// Both roles of one end.
#[derive(Clone, Debug)]
pub struct Identity {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    signed: Arc<Signed>,
    files: Files,
    own: Vec<CertificateDer<'static>>,
}

impl Identity {
    /// Read the files.
    ///
    /// # Errors
    /// The first that cannot be read, or a key that does not belong to the certificate.
    pub fn load(files: &Files) -> Result<Identity, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        for authority in certificates(Role::Authority, &files.ca)? {
            roots
                .add(authority)
                .map_err(|why| TlsError::new(Role::Authority, &files.ca, why))?;
        }
        let roots = Arc::new(roots);
        let own = certificates(Role::Certificate, &files.certificate)?;
        let key = private_key(&files.key)?;
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|why| TlsError::new(Role::Authority, &files.ca, why))?;
        let fail = |why: Error| match why {
            Error::InconsistentKeys(_) => {
                let why = format!("it is not the key of {}", files.certificate.display());
                TlsError::new(Role::Key, &files.key, why)
            }
            why => TlsError::new(Role::Certificate, &files.certificate, why),
        };
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(fail)?
            .with_client_cert_verifier(clients)
            .with_single_cert(own.clone(), key.clone_key())
            .map_err(fail)?;
        let signed = Arc::new(Signed {
            roots,
            provider: provider.clone(),
        });
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(fail)?
            .dangerous()
            .with_custom_certificate_verifier(signed.clone())
            .with_client_auth_cert(own.clone(), key)
            .map_err(fail)?;
        Ok(Identity {
            client: Arc::new(client),
            server: Arc::new(server),
            signed,
            files: files.clone(),
            own,
        })
    }

    /// Whether others with the same authority would believe us now: our own certificate is in its
    /// time, signed by it, and stands for `name`.
    ///
    /// # Errors
    /// What they would refuse it for.
    pub fn check(&self, name: &str, now: UnixTime) -> Result<(), TlsError> {
        let unusable = |why: String| {
            Err(TlsError::new(
                Role::Certificate,
                &self.files.certificate,
                why,
            ))
        };
        let [end, between @ ..] = &self.own[..] else {
            return unusable("there is no certificate in it".to_owned());
        };
        match self.signed.verify(end, between, now) {
            Ok(()) => {}
            Err(Error::InvalidCertificate(why)) => return unusable(self.explain(&why)),
            Err(why) => return unusable(why.to_string()),
        }
        if stands_for(end, &[name]) {
            return Ok(());
        }
        unusable(format!(
            "it does not stand for {name}; have one issued with the subject alternative name {name}"
        ))
    }

    fn explain(&self, why: &CertificateError) -> String {
        match why {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                format!("no authority in {} has signed it", self.files.ca.display())
            }
            other => refusal(other),
        }
    }

    /// The dialling end of a connection.
    ///
    /// # Errors
    /// None that are known.
    pub fn dial(&self) -> Result<Connection, Error> {
        // Checked by nobody: see `Signed`, and `stands_for` for what is checked instead.
        let name = ServerName::try_from("flowferry").expect("a DNS name");
        ClientConnection::new(self.client.clone(), name).map(Connection::from)
    }

    /// The end that is dialled.
    ///
    /// # Errors
    /// None that are known.
    pub fn accept(&self) -> Result<Connection, Error> {
        ServerConnection::new(self.server.clone()).map(Connection::from)
    }
}

/// What is wrong with a certificate, in a person's words.
pub fn refusal(why: &CertificateError) -> String {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired; renew it".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet; look at the clocks".to_owned()
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "no authority that is trusted here has signed it".to_owned()
        }
        other => other.to_string(),
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

impl Signed {
    fn verify(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end)?,
            &self.roots,
            between,
            now,
            self.provider.signature_verification_algorithms.all,
        )
    }
}

impl ServerCertVerifier for Signed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
