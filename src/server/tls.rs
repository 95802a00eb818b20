//! TLS of the listeners: rustls, TLS 1.2 and 1.3, certificates read again without dropping a connection.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;

/// A certificate chain and its key, as PEM files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The key.
    pub private_key: PathBuf,
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
    /// The chain is empty, or the key is not the leaf's.
    #[error("{} and {} do not fit together: {reason}", files.certificate.display(), files.private_key.display())]
    Pair {
        /// The files.
        files: TlsFiles,
        /// What rustls said.
        reason: rustls::Error,
    },
}

/// A certificate that can be exchanged under running connections.
#[derive(Clone)]
pub struct Certificate {
    files: TlsFiles,
    current: Arc<Current>,
}

#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads the files.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let current = Arc::new(Current(ArcSwap::from_pointee(read(&files)?)));
        Ok(Self { files, current })
    }

    /// Reads the files again; on an error the running certificate stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.0.store(Arc::new(read(&self.files)?));
        Ok(())
    }

    /// When the files last changed, as far as the file system tells.
    pub fn modified(&self) -> [Option<std::time::SystemTime>; 2] {
        [&self.files.certificate, &self.files.private_key].map(|file| std::fs::metadata(file).ok()?.modified().ok())
    }

    /// An acceptor for HTTP/2 and HTTP/1.1.
    pub fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        #[allow(
            clippy::expect_used,
            reason = "aws-lc-rs supports rustls' default protocol versions; nothing here is input"
        )]
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("default protocol versions");
        let mut config = config.with_no_client_auth().with_cert_resolver(self.current.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

fn read(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let refuse = |file: &Path| {
        let file = file.to_owned();
        move |reason| TlsError::File { file, reason }
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(refuse(&files.certificate))?;
    let key = PrivateKeyDer::from_pem_file(&files.private_key).map_err(refuse(&files.private_key))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(|reason| TlsError::Pair { files: files.clone(), reason })
}
