//! From an address and the environment to a client of the store. Nothing is asked of the store yet.
//!
//! Guarantees: what the URL says goes before what its credentials file says, and that before the environment; what
//! Walden's promises depend on (create-if-absent, no retries but its own) is set by nobody else. Certificates are always
//! checked.

use std::sync::{Arc, Once};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut, S3CopyIfNotExists};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::list::PaginatedListStore;
use object_store::multipart::MultipartStore;
use object_store::{Certificate, ClientOptions, ObjectStore, RetryConfig};

use crate::error::Error;

use super::address::{Address, Service};
use super::credentials;

/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// How long an unused connection is kept: shorter than stores do, so that none is used that they have given up.
const UNUSED_MAX: Duration = Duration::from_secs(15);

/// What is asked of a client.
pub(super) trait Client: ObjectStore + MultipartStore + PaginatedListStore {}

impl<T: ObjectStore + MultipartStore + PaginatedListStore> Client for T {}

/// A client for this address.
///
/// Fails with [`crate::ErrorKind::Unusable`] if something is missing or wrong, [`crate::ErrorKind::Unavailable`] if a
/// file that the address names cannot be read.
pub(super) fn connect(address: &Address) -> Result<Arc<dyn Client>, Error> {
    use_ring();
    let named = match (&address.options.credentials_file, address.service) {
        (Some(file), Service::S3 | Service::Azure) => credentials::read(file)?,
        _ => Vec::new(),
    };
    match address.service {
        Service::S3 => s3(address, named),
        Service::Gcs => gcs(address),
        Service::Azure => azure(address, named),
    }
}

/// The TLS library leaves it to the program which cryptography it uses.
fn use_ring() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Only another choice made before can stand in the way, and that one serves too.
        drop(rustls::crypto::ring::default_provider().install_default());
    });
}

fn s3(address: &Address, named: Vec<(String, String)>) -> Result<Arc<dyn Client>, Error> {
    let options = &address.options;
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&address.bucket)
        .with_client_options(client_options(address)?)
        .with_retry(no_retries())
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_copy_if_not_exists(S3CopyIfNotExists::Multipart);
    for (name, value) in named {
        let key: AmazonS3ConfigKey = name.parse().map_err(|_| unknown_name(address, &name))?;
        builder = builder.with_config(key, value);
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    }
    if let Some(path_style) = options.path_style {
        builder = builder.with_virtual_hosted_style_request(!path_style);
    }
    let encryption = [
        ("aws_server_side_encryption", &options.sse),
        ("aws_sse_kms_key_id", &options.sse_kms_key_id),
    ];
    for (name, value) in encryption {
        if let Some(value) = value {
            let key = name.parse().map_err(|error| unusable(address, error))?;
            builder = builder.with_config(key, value);
        }
    }
    let client = builder.build().map_err(|error| unusable(address, error))?;
    Ok(Arc::new(client))
}

fn gcs(address: &Address) -> Result<Arc<dyn Client>, Error> {
    let options = &address.options;
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(&address.bucket)
        .with_client_options(client_options(address)?)
        .with_retry(no_retries());
    if let Some(file) = &options.credentials_file {
        // Read here only for the sake of a clear error.
        credentials::read_text(file)?;
        builder = builder.with_service_account_path(file.display().to_string());
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    let client = builder.build().map_err(|error| unusable(address, error))?;
    Ok(Arc::new(client))
}

fn azure(address: &Address, named: Vec<(String, String)>) -> Result<Arc<dyn Client>, Error> {
    let options = &address.options;
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(&address.bucket)
        .with_client_options(client_options(address)?)
        .with_retry(no_retries());
    for (name, value) in named {
        let key: AzureConfigKey = name.parse().map_err(|_| unknown_name(address, &name))?;
        builder = builder.with_config(key, value);
    }
    if let Some(account) = &options.account {
        builder = builder.with_account(account);
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    let client = builder.build().map_err(|error| unusable(address, error))?;
    Ok(Arc::new(client))
}

/// Deadlines are `asking.rs`'s, which knows how much is being sent.
fn client_options(address: &Address) -> Result<ClientOptions, Error> {
    let options = &address.options;
    let plain = |url: &Option<String>| url.as_ref().is_some_and(|url| url.starts_with("http:"));
    let mut client = ClientOptions::new()
        .with_allow_http(plain(&options.endpoint))
        .with_timeout_disabled()
        .with_read_timeout_disabled()
        .with_connect_timeout(CONNECT_MAX)
        .with_pool_idle_timeout(UNUSED_MAX);
    if let Some(file) = &options.ca_file {
        let text = credentials::read_text(file)?;
        let certificates = Certificate::from_pem_bundle(text.as_bytes());
        let certificates = certificates.ok().filter(|found| !found.is_empty());
        let certificates = certificates.ok_or_else(|| {
            let shown = file.display();
            Error::unusable(format!("file \"{shown}\" holds no certificates (PEM)"))
        })?;
        client = client.with_no_system_certificates(true);
        for certificate in certificates {
            client = client.with_root_certificate(certificate);
        }
    }
    if let Some(proxy) = &options.proxy {
        client = client.with_proxy_url(proxy);
    }
    Ok(client)
}

fn no_retries() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    }
}

fn unusable(address: &Address, error: object_store::Error) -> Error {
    Error::unusable(format!(
        "archive location \"{address}\" cannot be used: {error}"
    ))
}

fn unknown_name(address: &Address, name: &str) -> Error {
    let file = address.options.credentials_file.as_ref();
    let shown = file
        .map(|file| file.display().to_string())
        .unwrap_or_default();
    let name = name.escape_default();
    Error::unusable(format!(
        "credentials file \"{shown}\" has an unknown name \"{name}\""
    ))
}
