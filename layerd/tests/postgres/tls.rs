//! Encryption: what each `sslmode` asks of the server.

use layerd::catalog::CatalogError;

use super::server::{Server, file_with, with_client};
use super::*;

/// Whether connections are encrypted, as the server sees it.
fn is_encrypted(server: &Server, catalog: &PostgresCatalog) -> bool {
    catalog.now().unwrap();
    with_client(&server.address(), async |client| {
        let sql = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                   WHERE application_name = 'openduck'";
        client.query_one(sql, &[]).await.unwrap().get(0)
    })
}

#[test]
fn each_mode_asks_what_it_says() {
    let server = Server::start();
    let store = Store::at(server.address());
    let authority = server.authority().display().to_string();
    let scratch = tempfile::tempdir().unwrap();
    let other_server = Server::start();
    let stranger = other_server.authority().display().to_string();
    let empty = file_with(scratch.path(), "empty.crt", b"")
        .display()
        .to_string();
    let open = |host: &str, options: &str| {
        let address = server.address().replace("127.0.0.1", host);
        PostgresCatalog::open(&format!("{}&{options}", store.url_at(&address)))
    };
    let is_encrypted_with = |host, options: &str| {
        let catalog = open(host, options).unwrap_or_else(|error| panic!("{options}: {error}"));
        is_encrypted(&server, &catalog)
    };
    let refused = |host, options: &str, about: &str| match open(host, options).map(drop) {
        Err(CatalogError::Unavailable { reason, .. }) => {
            assert!(reason.contains(about), "{options}: {reason}");
        }
        other => panic!("{options}: {other:?}"),
    };

    let (name, number) = ("localhost", "127.0.0.1");
    assert!(!is_encrypted_with(number, "sslmode=disable"));
    for options in [
        "sslmode=prefer",
        "sslmode=require",
        "application_name=openduck",
    ] {
        assert!(is_encrypted_with(number, options), "{options}");
    }
    let ours = format!("sslrootcert={authority}");
    let theirs = format!("sslrootcert={stranger}");
    assert!(is_encrypted_with(
        number,
        &format!("sslmode=verify-ca&{ours}")
    ));
    assert!(is_encrypted_with(
        number,
        &format!("sslmode=require&{ours}")
    ));
    assert!(is_encrypted_with(
        name,
        &format!("sslmode=verify-full&{ours}")
    ));
    // The certificate is for the name, not for the number.
    refused(
        number,
        &format!("sslmode=verify-full&{ours}"),
        "not valid for name",
    );
    for mode in ["require", "verify-ca", "verify-full"] {
        refused(
            name,
            &format!("sslmode={mode}&{theirs}"),
            "invalid peer certificate",
        );
    }
    // The system's authorities do not know ours.
    refused(name, "sslmode=verify-full", "");
    refused(
        name,
        &format!("sslmode=verify-full&sslrootcert={empty}"),
        "certificate",
    );

    server.stop("fast");
    server.resume_with("-c ssl=off");
    assert!(!is_encrypted_with(number, "sslmode=prefer"));
    refused(number, "sslmode=require", "TLS");
}
