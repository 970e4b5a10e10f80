//! What is secret stays so: no message, and nothing that is printed for debugging, holds it.

use layerd::catalog::{self, CatalogError};
use layerd::store::StoreConfig;

use super::server::{PASSWORD, PASSWORD_IN_URL, Server, USER_IN_URL};

/// Every way to say what went wrong, none of which may hold any of the secrets.
fn assert_kept(error: &CatalogError, secrets: &[&str]) {
    for text in [error.to_string(), format!("{error:?}")] {
        for secret in secrets {
            assert!(!text.contains(secret), "{secret:?} is in {text}");
        }
    }
}

fn refusal(url: &str) -> CatalogError {
    catalog::open(url).map(drop).unwrap_err()
}

#[test]
fn a_wrong_password_is_refused_and_not_repeated() {
    let server = Server::start();
    let wrong = format!(
        "postgres://{USER_IN_URL}:n%40t-it@127.0.0.1:{}/postgres",
        server.port()
    );
    let error = refusal(&wrong);
    assert!(
        error.to_string().contains("password authentication failed"),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains(&format!("127.0.0.1:{}/postgres", server.port()))
    );
    assert_kept(&error, &["n%40t-it", "n@t-it"]);
    server.stop("fast");
    let error = refusal(&server.address());
    assert_kept(&error, &[PASSWORD, PASSWORD_IN_URL]);
}

#[test]
fn urls_that_are_not_understood_are_not_repeated() {
    for url in [
        "postgres://user:s3cret@host:port/db",
        "postgres://user:p@s3cret@host/db",
        "postgres://user:p?s3cret@host/db",
        "postgres://user:s3cret%zz@host/db?unknown=1",
        "postgres://user:p/s3cret",
        "postgres://host/db?password=s3cret&x",
        "postgres://user:s3cret@",
        "postgress://user:s3cret@host/db",
        "mysql://host/db?password=s3cret",
        "user=me password=s3cret",
        "postgres://user:p#s3cret@host:x/db",
    ] {
        let error = refusal(url);
        assert_kept(&error, &["s3cret"]);
        assert!(error.to_string().contains("postgres://"), "{error}");
    }
}

#[test]
fn a_configuration_is_printed_without_its_password() {
    let config = StoreConfig {
        meta: Some(format!("postgres://me:{PASSWORD_IN_URL}@host/db")),
        ..StoreConfig::of_home("/home")
    };
    let text = format!("{config:?}");
    assert!(
        !text.contains(PASSWORD_IN_URL) && text.contains("postgres:"),
        "{text}"
    );
}
