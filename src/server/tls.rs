//! TLS of the listeners: rustls, TLS 1.2 and 1.3, certificates read again without dropping a connection.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio_rustls::TlsAcceptor;

/// A certificate chain and its key, as PEM files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The key.
    pub private_key: PathBuf,
    /// The authorities that callers' certificates must come from; `None` asks callers for none.
    pub client_ca: Option<PathBuf>,
}

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not PEM.
    #[error("cannot read {}: {reason}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the reader said.
        reason: rustls::pki_types::pem::Error,
    },
    /// The file of authorities holds none, or one that is none.
    #[error("{} holds no authority for callers' certificates: {reason}", file.display())]
    ClientCa {
        /// The file.
        file: PathBuf,
        /// What rustls said.
        reason: String,
    },
    /// The chain is empty, or the key is not the leaf's.
    #[error("{} and {} do not fit together: {reason}", certificate.display(), private_key.display())]
    Pair {
        /// The chain's file.
        certificate: PathBuf,
        /// The key's file.
        private_key: PathBuf,
        /// What rustls said.
        reason: rustls::Error,
    },
}

/// A certificate that can be exchanged under running connections, with what is asked of callers: a connection keeps what it
/// began with.
#[derive(Clone)]
pub struct Certificate {
    files: TlsFiles,
    current: Arc<ArcSwap<ServerConfig>>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads the files.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let current = Arc::new(ArcSwap::from_pointee(read(&files)?));
        Ok(Self { files, current })
    }

    /// Reads the files again; on an error what was read before stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(read(&self.files)?));
        Ok(())
    }

    /// When the files last changed, as far as the file system tells.
    pub fn modified(&self) -> Vec<Option<std::time::SystemTime>> {
        let files = [&self.files.certificate, &self.files.private_key].into_iter().chain(&self.files.client_ca);
        files.map(|file| std::fs::metadata(file).ok()?.modified().ok()).collect()
    }

    /// An acceptor for the next connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }
}

/// TLS 1.3 and 1.2 with rustls' own choice of suites; HTTP/2 and HTTP/1.1 by ALPN.
fn read(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (certificate, private_key) = (&files.certificate, &files.private_key);
    let unfit = |reason| TlsError::Pair { certificate: certificate.clone(), private_key: private_key.clone(), reason };
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_file(private_key)
        .map_err(|reason| TlsError::File { file: private_key.clone(), reason })?;
    let config = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let config = config.map_err(unfit)?;
    let config = match &files.client_ca {
        Some(file) => config.with_client_cert_verifier(callers(file, provider)?),
        None => config.with_no_client_auth(),
    };
    let mut config = config.with_single_cert(chain, key).map_err(unfit)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Wants of every caller a certificate of the authorities in `file`.
fn callers(file: &Path, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let refuse = |reason: String| TlsError::ClientCa { file: file.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    for authority in certificates(file)? {
        roots.add(authority).map_err(|reason| refuse(reason.to_string()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.map_err(|reason| refuse(reason.to_string()))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    read.map_err(|reason| TlsError::File { file: file.to_owned(), reason })
}
