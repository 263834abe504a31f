//! TLS 1.3 for links: a certificate drawn at each start, which proves nothing about who its owner is.
//!
//! What TLS gives here is secrecy, integrity, and a value that only the two ends of this very connection know (the
//! exporter, RFC 8446 7.5). Over that value both ends prove the cluster secret (`link`); names play no part.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring as provider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme, version::TLS13};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What the certificates are made out to; nobody looks at it.
const NAME: &str = "sensorium";
/// Why a certificate could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("no certificate could be made for links: {0}")]
pub struct CertificateError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// Both ends' settings, made once a start.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) connector: TlsConnector,
    pub(super) acceptor: TlsAcceptor,
}

impl Tls {
    /// Draws a certificate.
    pub(super) fn new() -> Result<Self, CertificateError> {
        let provider = Arc::new(provider::default_provider());
        let drawn =
            rcgen::generate_simple_self_signed([NAME.to_owned()]).map_err(|e| CertificateError(e.into()))?;
        let key = PrivatePkcs8KeyDer::from(drawn.signing_key.serialize_der());
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| CertificateError(e.into()))?
            .with_no_client_auth()
            .with_single_cert(vec![drawn.cert.der().clone()], key.into())
            .map_err(|e| CertificateError(e.into()))?;
        // No link is ever resumed; a ticket that nobody reads would turn a goodbye into a reset.
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| CertificateError(e.into()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        Ok(Self { connector: Arc::new(client).into(), acceptor: Arc::new(server).into() })
    }
}

/// The name that a connector asks for.
pub(super) fn name() -> ServerName<'static> {
    ServerName::try_from(NAME).expect("a lower-case word is a DNS name")
}

/// Takes any certificate, but only from who holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("links speak TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
