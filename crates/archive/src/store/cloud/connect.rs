//! From an address and the environment to a client of the store. Nothing is asked of the store yet.
//!
//! Guarantees: what the URL says goes before what its credentials file says, and that before the environment; what
//! Walden's promises depend on (create-if-absent, no retries but its own) is set here alone. Certificates are always
//! checked.

use std::fmt::Debug;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Once};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut, S3CopyIfNotExists};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{HttpClient, HttpConnector};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::list::PaginatedListStore;
use object_store::multipart::MultipartStore;
use object_store::{
    ClientOptions, CredentialProvider, ObjectStore, Result as StoreResult, RetryConfig,
};
use reqwest::Proxy;
use reqwest::redirect::Policy;

use crate::error::Error;

use super::address::{Address, Service};
use super::answers::Bounded;
use super::credentials::{self, Credential, Version};
use super::unfinished::Unfinished;

/// The longest name in a credentials file that is repeated, in bytes.
const NAME_BYTES_MAX: usize = 48;

/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// How long an unused connection is kept: shorter than stores do, so that none is used that they have given up.
const UNUSED_MAX: Duration = Duration::from_secs(15);

/// What is asked of a client.
pub(super) trait Client: ObjectStore + MultipartStore + PaginatedListStore {}

impl<T: ObjectStore + MultipartStore + PaginatedListStore> Client for T {}

/// Sees to it that there are credentials, which may take asking the cloud for them; they are kept while they last.
pub(super) type Credentials =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = StoreResult<()>> + Send>> + Send + Sync>;

/// What requests are made with.
pub(super) struct Connection {
    pub(super) client: Arc<dyn Client>,
    /// `None` if requests are made without.
    pub(super) credentials: Option<Credentials>,
    /// `None` where unfinished uploads cannot be asked for, or need not be.
    pub(super) unfinished: Option<Arc<Unfinished>>,
}

/// A client for this address.
///
/// Fails with [`crate::ErrorKind::Unusable`] if something is missing or wrong, [`crate::ErrorKind::Unavailable`] if a
/// file that the address names cannot be read.
pub(super) fn connect(address: &Address) -> Result<Connection, Error> {
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

fn s3(address: &Address, named: Vec<Credential>) -> Result<Connection, Error> {
    let connector = Connector::new(address)?;
    let http = connector.client.clone();
    let builder = s3_builder(address, named)?.with_http_connector(connector);
    let is_signed = is_signed(builder.get_config_value(&AmazonS3ConfigKey::SkipSignature));
    let client = builder.build().map_err(|error| unusable(address, error))?;
    let client = Arc::new(client);
    Ok(Connection {
        credentials: is_signed.then(|| asking(client.credentials())),
        // A URL is signed with credentials or not at all.
        unfinished: is_signed.then(|| Arc::new(Unfinished::in_s3(http, Arc::clone(&client)))),
        client,
    })
}

fn s3_builder(address: &Address, named: Vec<Credential>) -> Result<AmazonS3Builder, Error> {
    let options = &address.options;
    let mut builder = AmazonS3Builder::from_env();
    for credential in named {
        use AmazonS3ConfigKey as Key;
        let key = credential.name.parse();
        let key: Key = key.map_err(|_| not_a_credential(address, &credential))?;
        let value = credential.value.as_str();
        match key {
            Key::AccessKeyId
            | Key::SecretAccessKey
            | Key::Token
            | Key::RoleArn
            | Key::RoleSessionName
            | Key::WebIdentityTokenFile => builder = builder.with_config(key, value),
            _ => return Err(not_a_credential(address, &credential)),
        }
    }
    // What is said last counts.
    builder = builder
        .with_bucket_name(&address.bucket)
        .with_client_options(client_options(address))
        .with_retry(no_retries())
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_copy_if_not_exists(S3CopyIfNotExists::Multipart);
    if let Some(endpoint) = &options.endpoint {
        // The environment's AWS_ENDPOINT_URL_S3 would go before the plain one.
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
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
    Ok(builder)
}

fn gcs(address: &Address) -> Result<Connection, Error> {
    let options = &address.options;
    let connector = Connector::new(address)?;
    let http = connector.client.clone();
    let (mut builder, named) = gcs_environment();
    // Read here, since the library would read whatever comes, or wait for it.
    if let Some(file) = key_file(address) {
        let text = credentials::read_text(&file)?;
        builder = builder.with_service_account_key(text.as_str());
    } else if let Some(key) = named {
        builder = builder.with_service_account_key(key);
    } else if let Some(file) = builder.get_config_value(&GoogleConfigKey::ApplicationCredentials) {
        // Only looked at, since the library has no other way to be given it.
        credentials::read_text(Path::new(&file))?;
    }
    builder = builder
        .with_bucket_name(&address.bucket)
        .with_client_options(client_options(address))
        .with_http_connector(connector)
        .with_retry(no_retries());
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    let is_signed = is_signed(builder.get_config_value(&GoogleConfigKey::SkipSignature));
    let endpoint = builder.get_config_value(&GoogleConfigKey::BaseUrl);
    let client = builder.build().map_err(|error| unusable(address, error))?;
    let keys = is_signed.then(|| Arc::clone(client.credentials()));
    Ok(Connection {
        credentials: keys.as_ref().map(asking),
        unfinished: Some(Arc::new(Unfinished::in_gcs(
            http,
            endpoint.as_deref(),
            &address.bucket,
            keys,
        ))),
        client: Arc::new(client),
    })
}

/// What the environment says, but for a file with the key of a service account; and that key, where it holds one.
fn gcs_environment() -> (GoogleCloudStorageBuilder, Option<String>) {
    use GoogleConfigKey as Key;
    let (mut builder, mut named) = (GoogleCloudStorageBuilder::new(), None);
    for (name, value) in std::env::vars_os() {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else {
            continue;
        };
        let key = name
            .starts_with("GOOGLE_")
            .then(|| name.to_ascii_lowercase());
        match key.and_then(|key| key.parse::<Key>().ok()) {
            None | Some(Key::ServiceAccount) => {}
            Some(Key::ServiceAccountKey) => named = Some(value.to_owned()),
            Some(key) => builder = builder.with_config(key, value),
        }
    }
    (builder, named)
}

/// The file with the key of a service account, for Google's store: what the URL says goes before the environment.
fn key_file(address: &Address) -> Option<PathBuf> {
    let names = [
        "GOOGLE_SERVICE_ACCOUNT",
        "GOOGLE_SERVICE_ACCOUNT_PATH",
        "SERVICE_ACCOUNT",
    ];
    let named = address.options.credentials_file.clone();
    named.or_else(|| names.iter().find_map(std::env::var_os).map(PathBuf::from))
}

/// The files that a connection is made from, as they are now: when they change, it has to be made anew.
pub(super) fn versions(address: &Address) -> Vec<Version> {
    let options = &address.options;
    let credentials = match address.service {
        Service::Gcs => key_file(address),
        Service::S3 | Service::Azure => options.credentials_file.clone(),
    };
    let files = [credentials, options.ca_file.clone()];
    files
        .iter()
        .flatten()
        .map(|file| Version::of(file))
        .collect()
}

fn azure(address: &Address, named: Vec<Credential>) -> Result<Connection, Error> {
    let options = &address.options;
    let mut builder = MicrosoftAzureBuilder::from_env();
    for credential in named {
        use AzureConfigKey as Key;
        let key = credential.name.parse();
        let key: Key = key.map_err(|_| not_a_credential(address, &credential))?;
        let value = credential.value.as_str();
        match key {
            Key::AccountName
            | Key::AccessKey
            | Key::SasKey
            | Key::Token
            | Key::ClientId
            | Key::ClientSecret
            | Key::AuthorityId
            | Key::FederatedTokenFile => builder = builder.with_config(key, value),
            _ => return Err(not_a_credential(address, &credential)),
        }
    }
    builder = builder
        .with_container_name(&address.bucket)
        .with_client_options(client_options(address))
        .with_http_connector(Connector::new(address)?)
        .with_retry(no_retries());
    if let Some(account) = &options.account {
        builder = builder.with_account(account);
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    let is_signed = is_signed(builder.get_config_value(&AzureConfigKey::SkipSignature));
    let client = builder.build().map_err(|error| unusable(address, error))?;
    let credentials = is_signed.then(|| asking(client.credentials()));
    Ok(Connection {
        client: Arc::new(client),
        credentials,
        unfinished: None,
    })
}

/// Whether requests are signed, by the option that says they are not.
fn is_signed(skipped: Option<String>) -> bool {
    skipped.as_deref() != Some("true")
}

fn asking<T>(provider: &Arc<dyn CredentialProvider<Credential = T>>) -> Credentials
where
    T: Debug + Send + Sync + 'static,
{
    let provider = Arc::clone(provider);
    Arc::new(move || {
        let provider = Arc::clone(&provider);
        Box::pin(async move { provider.get_credential().await.map(drop) })
    })
}

/// How the library is told to make connections: by a client of ours.
///
/// It follows no redirections: on one of them a PUT would become a GET, and whatever answers that would be taken for the
/// store. Deadlines are `asking.rs`'s, which knows how much is being sent.
#[derive(Debug)]
struct Connector {
    client: reqwest::Client,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Bounded {
            client: self.client.clone(),
        }))
    }
}

impl Connector {
    fn new(address: &Address) -> Result<Connector, Error> {
        use_ring();
        let options = &address.options;
        let mut client = reqwest::Client::builder()
            .user_agent(concat!("walden/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .connect_timeout(CONNECT_MAX)
            .pool_idle_timeout(UNUSED_MAX)
            .http1_only();
        if let Some(file) = &options.ca_file {
            let text = credentials::read_text(file)?;
            let certificates = reqwest::Certificate::from_pem_bundle(text.as_bytes());
            let certificates = certificates.ok().filter(|found| !found.is_empty());
            let certificates = certificates.ok_or_else(|| {
                let shown = file.display();
                Error::unusable(format!("file \"{shown}\" holds no certificates (PEM)"))
            })?;
            client = client.tls_certs_only(certificates);
        }
        let unusable = |error: reqwest::Error| {
            let cause = error.without_url();
            Error::unusable(format!(
                "archive location \"{address}\" cannot be used: {cause}"
            ))
        };
        if let Some(proxy) = &options.proxy {
            client = client.proxy(Proxy::all(proxy).map_err(unusable)?);
        }
        let client = client.build().map_err(unusable)?;
        Ok(Connector { client })
    }
}

/// The library itself refuses to be used without TLS unless it is told to.
fn client_options(address: &Address) -> ClientOptions {
    let endpoint = address.options.endpoint.as_ref();
    let is_plain = endpoint.is_some_and(|url| url.starts_with("http:"));
    ClientOptions::new().with_allow_http(is_plain)
}

fn no_retries() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    }
}

/// What the client library may say of what it is given, and what is said of that. Its own words are not repeated, since
/// they hold what they are about: keys, byte by byte, and whole files.
const UNDERSTOOD: [(&str, &str); 12] = [
    ("Missing AccessKeyId", "Missing AccessKeyId"),
    ("Missing SecretAccessKey", "Missing SecretAccessKey"),
    ("Account must be specified", "Account must be specified"),
    ("Invalid Access Key", "the access key is invalid"),
    ("SAS key", "the SAS token is invalid"),
    ("SAS query", "the SAS token is invalid"),
    (
        "Unable to decode service account file",
        "the key file of the service account is invalid",
    ),
    (
        "Unable to open service account file",
        "the key file of the service account cannot be read",
    ),
    (
        "GCP credential",
        "the key of the service account is invalid",
    ),
    ("Generic GCS", "the key of the service account is invalid"),
    ("Unable parse source url", "a URL is invalid"),
    (
        "One of service account path",
        "both a file and a key of a service account are given",
    ),
];

fn unusable(address: &Address, error: object_store::Error) -> Error {
    let text = error.to_string();
    let known = UNDERSTOOD.iter().find(|(part, _)| text.contains(part));
    let why = known.map_or(
        "the description of the store is not understood",
        |(_, why)| why,
    );
    let hint = match address.service {
        Service::Azure if why.contains("Account") => {
            "Name the storage account with the option \"account\"."
        }
        _ => {
            "Correct the location, or what its credentials file or the environment of the server says of the store."
        }
    };
    Error::unusable(format!(
        "archive location \"{}\" cannot be used: {why}",
        address.place()
    ))
    .with_hint(hint)
}

/// What else there is to say is said by the URL, where it can be seen. A name is repeated only if it looks like one.
fn not_a_credential(address: &Address, credential: &Credential) -> Error {
    let file = address.options.credentials_file.as_ref();
    let shown = file
        .map(|file| file.display().to_string())
        .unwrap_or_default();
    let (line, name) = (credential.line, &credential.name);
    let is_name = name.len() <= NAME_BYTES_MAX
        && ["aws_", "azure_", "allow_"]
            .iter()
            .any(|kind| name.starts_with(kind))
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let named = if is_name {
        format!("\"{name}\"")
    } else {
        "the name".to_owned()
    };
    Error::unusable(format!(
        "{named} on line {line} of credentials file \"{shown}\" is no credential"
    ))
    .with_hint("Names are those of the environment variables, such as \"AWS_ACCESS_KEY_ID\" or \"AZURE_STORAGE_ACCOUNT_KEY\".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(name: &str, value: &str) -> Credential {
        Credential {
            line: 1,
            name: name.to_owned(),
            value: value.to_owned().into(),
        }
    }

    #[test]
    fn a_credentials_file_holds_nothing_that_changes_the_place_or_what_promises_depend_on() {
        let address: Address = "s3://wal/main?region=eu".parse().unwrap();
        let read = |name: &str| s3_builder(&address, vec![credential(name, "it")]);
        let builder = read("aws_access_key_id").unwrap();
        let is = |name: &str| builder.get_config_value(&name.parse().unwrap());
        assert_eq!(is("aws_access_key_id").as_deref(), Some("it"));
        assert_eq!(is("aws_conditional_put").as_deref(), Some("etag"));
        for name in [
            "aws_bucket",
            "aws_region",
            "aws_endpoint_url_s3",
            "aws_conditional_put",
            "aws_copy_if_not_exists",
            "allow_invalid_certificates",
        ] {
            let error = read(name).err().unwrap().to_string();
            assert!(
                error.contains(name) && error.contains("no credential"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_missing_is_named_and_no_part_of_the_client_library() {
        let address: Address = "s3://wal?region=eu".parse().unwrap();
        let named = vec![credential("aws_access_key_id", "it")];
        let error = s3(&address, named).err().unwrap();
        let said = error.to_string();
        assert!(
            said.ends_with("cannot be used: Missing SecretAccessKey"),
            "{said}"
        );
        let named = vec![credential("aws_regoin", "x")];
        let error = s3(&address, named).err().unwrap();
        assert!(error.to_string().contains("\"aws_regoin\""));
        assert!(error.hint().is_some());
    }
}
