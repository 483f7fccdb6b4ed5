//! A client of the lab's stores, as plain as can be: the `object_store` crate without retries.
//!
//! Leaves what to expect to the tests that share it.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fmt::Debug;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures_util::TryStreamExt;
use futures_util::future::{BoxFuture, FutureExt, join_all};
use http_body_util::BodyExt;
use lab::stores::{Make, Store};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{
    ClientOptions, Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig,
};

/// Longer than any of the stores takes for an answer on a slow machine, and short enough to wait for.
pub(crate) const A_WHILE: Duration = Duration::from_secs(2);

/// The longest that a request may take.
const REQUEST_MAX: Duration = Duration::from_secs(60);

/// A store as its users see it.
#[derive(Clone, Debug)]
pub(crate) struct Client(Arc<dyn ObjectStore>);

impl Deref for Client {
    type Target = Arc<dyn ObjectStore>;

    fn deref(&self) -> &Arc<dyn ObjectStore> {
        &self.0
    }
}

impl Client {
    /// Creates an object, unless it is there.
    pub(crate) async fn create(&self, name: &str, contents: &str) -> Result<(), Error> {
        let payload = PutPayload::from(contents.to_owned());
        self.put_opts(&name.into(), payload, PutMode::Create.into())
            .await?;
        Ok(())
    }

    pub(crate) async fn read(&self, name: &str) -> Result<String> {
        let bytes = self.get(&name.into()).await?.bytes().await?;
        Ok(String::from_utf8(bytes.into())?)
    }

    /// All names, sorted.
    pub(crate) async fn names(&self) -> Result<Vec<String>> {
        names(self.list(None).try_collect().await?)
    }

    /// Names in a folder, behind one of them.
    pub(crate) async fn names_behind(&self, folder: &str, name: &str) -> Result<Vec<String>> {
        let list = self.list_with_offset(Some(&folder.into()), &name.into());
        names(list.try_collect().await?)
    }
}

fn names(found: Vec<object_store::ObjectMeta>) -> Result<Vec<String>> {
    let mut names: Vec<String> = found.into_iter().map(|one| one.location.into()).collect();
    names.sort();
    Ok(names)
}

/// Runs a piece of a test.
pub(crate) fn block_on<T>(piece: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(piece)
}

/// What a runner of a race puts: large enough for all to be under way together.
pub(crate) fn runners_contents(runner: usize) -> String {
    runner.to_string().repeat(100_000)
}

/// Lets eight create `race/0` at once, each with other contents, and likewise in so many races; who was told in each
/// to have created it. The races are at once too: SeaweedFS lets those who lose one wait for a second or two.
pub(crate) fn races(client: &Client, count: usize) -> Result<Vec<Vec<usize>>> {
    block_on(async {
        let races = (0..count).map(|number| async move { race(client, number).await });
        join_all(races).await.into_iter().collect()
    })
}

async fn race(client: &Client, number: usize) -> Result<Vec<usize>> {
    let name = format!("race/{number}");
    let runs = (0..8).map(|runner| {
        let name = &name;
        async move { client.create(name, &runners_contents(runner)).await }
    });
    let mut winners = Vec::new();
    for (runner, end) in join_all(runs).await.into_iter().enumerate() {
        match end {
            Ok(()) => winners.push(runner),
            Err(Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(winners)
}

/// A client through this port, which is the store's own or a proxy's.
pub(crate) fn client(store: &Store<'_>, port: u16) -> Result<Client> {
    build(
        store,
        &format!("http://127.0.0.1:{port}"),
        None,
        &store.environment(),
    )
}

/// A client that has another secret than the store.
pub(crate) fn with_wrong_secret(store: &Store<'_>) -> Result<Client> {
    let mut environment = store.environment();
    for (name, value) in &mut environment {
        if name == "AWS_SECRET_ACCESS_KEY" {
            *value = "another-secret".to_owned();
        } else if name == "AZURE_STORAGE_ACCOUNT_KEY" {
            *value = value.replace('F', "G");
        }
    }
    let endpoint = format!("http://127.0.0.1:{}", store.port());
    build(store, &endpoint, None, &environment)
}

/// A client of the store's TLS port, which knows this authority or none.
pub(crate) fn tls_client(store: &Store<'_>, authority: Option<&[u8]>) -> Result<Client> {
    let url = store.url("");
    let endpoint = url.split("endpoint=").nth(1).unwrap_or_default();
    let endpoint = endpoint.split('&').next().unwrap_or_default();
    build(store, endpoint, authority, &store.environment())
}

/// Plain HTTP, for what the crate has no call for.
pub(crate) fn http() -> reqwest::Client {
    provide_tls();
    reqwest::Client::new()
}

fn provide_tls() {
    // Fails when another test of this program has done it.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// What the crate makes requests with: it has no client of its own without its feature for that.
#[derive(Clone, Debug)]
struct Http(reqwest::Client);

impl HttpConnector for Http {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

impl HttpService for Http {
    fn call<'s, 'a>(
        &'s self,
        request: HttpRequest,
    ) -> BoxFuture<'a, Result<HttpResponse, HttpError>>
    where
        's: 'a,
        Self: 'a,
    {
        let failed = |error: reqwest::Error| HttpError::new(HttpErrorKind::Unknown, error);
        async move {
            let request = request
                .map(reqwest::Body::wrap)
                .try_into()
                .map_err(failed)?;
            let answer = self.0.execute(request).await.map_err(failed)?;
            let answer = http::Response::from(answer);
            Ok(answer.map(|body| HttpResponseBody::new(body.map_err(failed))))
        }
        .boxed()
    }
}

fn build(
    store: &Store<'_>,
    endpoint: &str,
    authority: Option<&[u8]>,
    environment: &[(String, String)],
) -> Result<Client> {
    provide_tls();
    let value = |name: &str| {
        let found = environment.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let retries = RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    };
    let options = ClientOptions::new().with_allow_http(true);
    let mut http = reqwest::Client::builder().http1_only().timeout(REQUEST_MAX);
    if let Some(authority) = authority {
        http = http.tls_certs_merge([reqwest::Certificate::from_pem(authority)?]);
    }
    let http = Http(http.build()?);
    let store: Arc<dyn ObjectStore> = match store.make() {
        Make::Azurite => Arc::new(
            MicrosoftAzureBuilder::new()
                .with_account("devstoreaccount1")
                .with_access_key(value("AZURE_STORAGE_ACCOUNT_KEY"))
                .with_endpoint(format!("{endpoint}/devstoreaccount1"))
                .with_container_name("archive")
                .with_client_options(options)
                .with_http_connector(http)
                .with_retry(retries)
                .build()?,
        ),
        Make::GcsFake => Arc::new(
            GoogleCloudStorageBuilder::new()
                .with_base_url(endpoint)
                .with_service_account_key(value("GOOGLE_SERVICE_ACCOUNT_KEY"))
                .with_bucket_name("archive")
                .with_client_options(options)
                .with_http_connector(http)
                .with_retry(retries)
                .build()?,
        ),
        _ => Arc::new(
            AmazonS3Builder::new()
                .with_endpoint(endpoint)
                .with_region("us-east-1")
                .with_access_key_id(value("AWS_ACCESS_KEY_ID"))
                .with_secret_access_key(value("AWS_SECRET_ACCESS_KEY"))
                .with_bucket_name("archive")
                .with_client_options(options)
                .with_http_connector(http)
                .with_retry(retries)
                .build()?,
        ),
    };
    Ok(Client(store))
}
