//! The extension's files as the gateway serves them. That DuckDB takes them is shown where it is at hand,
//! in `extension/tests/python`.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::server::*;

/// A file that ends as an extension does.
fn write_extension(path: &Path, version: &str) {
    let mut file = b"not really code".to_vec();
    for text in ["", "", "", "CPP", "0.1.0", version, "linux_amd64", "4"] {
        let mut field = [0; 32];
        field[..text.len()].copy_from_slice(text.as_bytes());
        file.extend(field);
    }
    file.extend([0; 256]);
    fs::write(path, file).unwrap();
}

/// Status, headers and body of a page.
async fn get(server: &Server, path: &str) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let body = answer.split_off(end.unwrap() + 4);
    let head = String::from_utf8(answer).unwrap().to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head, body)
}

const FILE: &str = "/extension/v2.0.0/linux_amd64/openduck.duckdb_extension.gz";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_served_at_once() {
    let home = Home::new();
    let server = Server::serve(&home, &[]);
    let (status, _, body) = get(&server, FILE).await;
    assert_eq!(status, 404);
    let said = String::from_utf8(body).unwrap();
    assert!(said.contains("openduck extension publish"), "{said}");

    let built = home.path().join("openduck.duckdb_extension");
    write_extension(&built, "v2.0.0");
    home.run(&["keys", "create"]);
    home.run(&["extension", "publish", built.to_str().unwrap()]);
    let (status, head, body) = get(&server, FILE).await;
    assert_eq!(status, 200);
    assert!(
        !head.contains("content-encoding"),
        "DuckDB unpacks it: {head}"
    );
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&body[..])
        .read_to_end(&mut unpacked)
        .unwrap();
    assert_eq!(unpacked.len(), fs::metadata(&built).unwrap().len() as usize);
    let (status, _, body) = get(&server, "/extension/.well-known/duckdb-extension-repo.json").await;
    assert_eq!(status, 200);
    assert!(
        String::from_utf8(body)
            .unwrap()
            .contains("BEGIN PUBLIC KEY")
    );

    let (status, _, body) = get(&server, &FILE.replace("v2.0.0", "v1.5.5")).await;
    assert_eq!(status, 404);
    let said = String::from_utf8(body).unwrap();
    assert!(said.contains("v2.0.0/linux_amd64"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_beside_the_repository_is_served() {
    let home = Home::new();
    let repository = tempfile::tempdir().unwrap();
    let path = repository.path().to_str().unwrap();
    let server = Server::serve(&home, &["--extensions", path]);
    home.run(&["keys", "create"]);
    for hostile in [
        "/extension/../extension.pem",
        "/extension/..%2fextension.pem",
        "/extension/%2e%2e/extension.pem",
        "/extension/v2.0.0/../../extension.pem",
        "/extension//etc/passwd",
        "/extension/%00",
        "/extension/",
        "/extension",
    ] {
        let (status, _, body) = get(&server, hostile).await;
        let said = String::from_utf8_lossy(&body);
        assert!((400..500).contains(&status), "{hostile}: {status} {said}");
        assert!(!said.contains("PRIVATE KEY") && !said.contains("root:"));
    }
}
