//! Checkpoints as objects of an S3 bucket, one each, kept from everybody by object lock.
//!
//! An object is put with a checksum, only if its key is free, and with its own retention date where the configuration says so:
//! a checkpoint that the bucket keeps in compliance mode cannot be removed by any user of the account, its owner included.
//! The signature is made by `aws-sigv4` over the one HTTP client of the gateway, with the credentials and the region that
//! every AWS tool takes; a whole S3 SDK for one kind of request would be a second HTTP stack.

use std::time::{Duration, UNIX_EPOCH};

use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::provider::ProvideCredentials as _;
use aws_lc_rs::digest::{SHA256, digest};
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use url::Url;

use super::{AnchorError, Checkpoint, PATIENCE, webhook::accepted};
use crate::{
    clock::{Clock, Timestamp},
    transport::{Transport, percent_encode},
};

const LARGEST: usize = 64 * 1024;

pub(super) struct S3Anchor {
    transport: Transport,
    bucket: String,
    prefix: String,
    region: Option<String>,
    endpoint: Option<Url>,
    retain: Option<Duration>,
    clock: Clock,
    /// Made at the first use, since it may ask the network.
    config: Option<SdkConfig>,
}

impl std::fmt::Debug for S3Anchor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "S3Anchor({})", self.bucket)
    }
}

impl S3Anchor {
    pub(super) fn new(
        transport: Transport,
        bucket: String,
        prefix: String,
        region: Option<String>,
        endpoint: Option<Url>,
        retain: Option<Duration>,
        clock: Clock,
    ) -> Self {
        Self { transport, bucket, prefix, region, endpoint, retain, clock, config: None }
    }

    pub(super) async fn send(&mut self, checkpoint: &Checkpoint) -> Result<(), AnchorError> {
        let request = self.request(checkpoint).await?;
        let answer = self.transport.exchange(request, LARGEST, PATIENCE).await;
        let answer = answer.map_err(|source| AnchorError::Unreachable { to: self.bucket.clone(), source })?;
        // The key is taken by the very checkpoint: an earlier try had come through.
        if answer.status() == StatusCode::PRECONDITION_FAILED {
            return Ok(());
        }
        accepted(&self.bucket, &answer)
    }

    async fn request(&mut self, checkpoint: &Checkpoint) -> Result<Request<Full<Bytes>>, AnchorError> {
        if self.config.is_none() {
            let loading = aws_config::defaults(BehaviorVersion::v2026_01_12()).load();
            self.config = Some(loading.boxed().await);
        }
        let Some(config) = &self.config else { return Err(AnchorError::Credentials(self.bucket.clone())) };
        let no_credentials = || AnchorError::Credentials(self.bucket.clone());
        let provider = config.credentials_provider().ok_or_else(no_credentials)?;
        let credentials = provider.provide_credentials().boxed().await.map_err(|_| no_credentials())?;
        let region = self.region.as_deref().or_else(|| config.region().map(|region| region.as_ref()));
        let region = region.ok_or_else(|| AnchorError::Region(self.bucket.clone()))?;

        let address = self.address(region, config.endpoint_url(), checkpoint);
        let sha256 = STANDARD.encode(digest(&SHA256, checkpoint.note.as_bytes()).as_ref());
        let mut headers = vec![
            ("content-type", "text/plain; charset=utf-8".to_owned()),
            ("if-none-match", "*".to_owned()),
            ("x-amz-checksum-sha256", sha256),
            ("x-amz-sdk-checksum-algorithm", "SHA256".to_owned()),
        ];
        if let Some(retain) = self.retain {
            headers.push(("x-amz-object-lock-mode", "COMPLIANCE".to_owned()));
            // In whole seconds, as the SDKs write it.
            let until = Timestamp::from_secs(checkpoint.signed.plus(retain).as_millis() / 1000).rfc3339();
            headers.push(("x-amz-object-lock-retain-until-date", until.replace(".000Z", "Z")));
        }
        let unmade = || AnchorError::Request(self.bucket.clone());
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = aws_sigv4::http_request::PercentEncodingMode::Single;
        settings.payload_checksum_kind = aws_sigv4::http_request::PayloadChecksumKind::XAmzSha256;
        let identity = credentials.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(region)
            .name("s3")
            .time(UNIX_EPOCH + Duration::from_millis(u64::try_from(self.clock.now().as_millis()).unwrap_or_default()))
            .settings(settings)
            .build()
            .map_err(|_| unmade())?
            .into();
        let pairs = headers.iter().map(|(name, value)| (*name, value.as_str()));
        let body = SignableBody::Bytes(checkpoint.note.as_bytes());
        let signable = SignableRequest::new("PUT", address.as_str(), pairs, body).map_err(|_| unmade())?;
        let (instructions, _) = sign(signable, &params).map_err(|_| unmade())?.into_parts();
        let request =
            headers.iter().fold(Request::builder().method(Method::PUT).uri(&address), |request, (name, value)| {
                request.header(*name, value)
            });
        let mut request = request.body(Full::new(Bytes::from(checkpoint.note.to_string()))).map_err(|_| unmade())?;
        instructions.apply_to_request_http1x(&mut request);
        Ok(request)
    }

    /// The object's address: below the endpoint where one is set, at S3's own otherwise.
    fn address(&self, region: &str, everywhere: Option<&str>, checkpoint: &Checkpoint) -> String {
        let key = format!("{}{}.checkpoint", self.prefix, checkpoint.name());
        let key: Vec<String> = key.split('/').map(|part| percent_encode(part).to_string()).collect();
        let (bucket, key) = (percent_encode(&self.bucket), key.join("/"));
        match self.endpoint.as_ref().map(Url::as_str).or(everywhere) {
            Some(endpoint) => format!("{}/{bucket}/{key}", endpoint.trim_end_matches('/')),
            None => format!("https://{bucket}.s3.{region}.amazonaws.com/{key}"),
        }
    }
}
