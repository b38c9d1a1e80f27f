//! TLS with a server whose certificate is known beforehand: no authority, no name, this key and no other.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use super::Mutual;
use crate::error::Fault;

#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    /// Whether it is the certificate; that the server has its key is seen by the signature of the handshake.
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match shown.as_ref() == self.certificate.as_ref() {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

pub(super) fn config(trust: &Mutual<'_>) -> Result<ClientConfig, Fault> {
    let bad = |what: &str, error: &dyn std::fmt::Display| {
        Fault::new(format!("the {what} cannot be used")).because(error)
    };
    let certificate = CertificateDer::from_pem_slice(trust.server)
        .map_err(|error| bad("server's certificate", &error))?;
    let own = CertificateDer::pem_slice_iter(trust.certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad("client's certificate", &error))?;
    let key =
        PrivateKeyDer::from_pem_slice(trust.key).map_err(|error| bad("client's key", &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pinned = Pinned {
        certificate,
        provider: provider.clone(),
    };
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad("TLS library", &error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_client_auth_cert(own, key)
        .map_err(|error| bad("client's certificate", &error))
}
