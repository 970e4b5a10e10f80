//! What the server tells of itself: pages, health, reflection, metrics; and TLS.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::server::*;

fn page(server: &Server, path: &str) -> String {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_health_are_on_the_same_port() {
    let home = Home::new();
    let server = Server::serve(&home, &[]);
    let client = server.client().await;
    client.ok("SELECT 42 FROM range(10)").await;
    assert!(page(&server, "/health").starts_with("HTTP/1.1 200"));
    assert!(page(&server, "/ready").starts_with("HTTP/1.1 200"));
    let metrics = page(&server, "/metrics");
    for line in [
        "openduck_statements_total{code=\"Ok\"} 1",
        "openduck_result_rows_total 10",
        "openduck_worker_up{worker=\"writer-",
        "openduck_statement_seconds_bucket",
        "# EOF",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    let channel = Endpoint::from_shared(server.url.clone())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
    let asked = tonic_health::pb::HealthCheckRequest {
        service: "openduck.v1.ExecutionService".to_owned(),
    };
    until("it serves", async || {
        let status = health
            .clone()
            .check(asked.clone())
            .await
            .unwrap()
            .into_inner()
            .status;
        status == tonic_health::pb::health_check_response::ServingStatus::Serving as i32
    })
    .await;
    let _same_client = &mut health;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    let asked = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(futures_util::stream::iter([asked]))
        .await
        .unwrap()
        .into_inner();
    let listed = format!("{:?}", answers.message().await.unwrap());
    assert!(listed.contains("openduck.v1.ExecutionService"), "{listed}");
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(vec!["an authority".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Authority(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate and its key.
    fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

async fn connect(
    server: &Server,
    authority: &Authority,
    own: Option<(String, String)>,
) -> Option<Client> {
    let url = format!(
        "https://localhost:{}",
        server.address().rsplit(':').next().unwrap()
    );
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()));
    if let Some((certificate, key)) = own {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    let endpoint = Endpoint::from_shared(url).unwrap().tls_config(tls).unwrap();
    let client = Client::over(endpoint.connect().await.ok()?, TOKEN);
    // With TLS 1.3 a client hears of its refused certificate with its first call.
    client.sql("SELECT 42").await.ok().map(|_| client)
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_keeps_strangers_out_and_takes_new_certificates() {
    let home = Home::new();
    let (old, new, clients) = (Authority::new(), Authority::new(), Authority::new());
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (certificate, key) = old.issue();
    let (certificate, key) = (file("cert.pem", &certificate), file("key.pem", &key));
    let authority = file("clients.pem", &clients.pem());
    let server = Server::serve(
        &home,
        &[
            "--tls-cert",
            &certificate,
            "--tls-key",
            &key,
            "--tls-client-ca",
            &authority,
        ],
    );
    assert!(server.url.starts_with("https://"), "{}", server.url);
    let client = connect(&server, &old, Some(clients.issue())).await.unwrap();
    assert!(
        connect(&server, &new, Some(clients.issue()))
            .await
            .is_none()
    );
    assert!(connect(&server, &old, None).await.is_none());
    assert!(connect(&server, &old, Some(old.issue())).await.is_none());

    let (new_certificate, new_key) = new.issue();
    // Half of it: the old pair stays in use.
    file("cert.pem", &new_certificate);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(
        connect(&server, &old, Some(clients.issue()))
            .await
            .is_some()
    );
    file("key.pem", &new_key);
    until("the new one is used", async || {
        connect(&server, &new, Some(clients.issue()))
            .await
            .is_some()
    })
    .await;
    assert!(
        connect(&server, &old, Some(clients.issue()))
            .await
            .is_none()
    );
    // Who was connected stays so.
    client.ok("SELECT 42").await;
}
