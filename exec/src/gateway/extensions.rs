//! The client's extension, for whoever asks: a repository's directory, served as it is.
//!
//! DuckDB fetches `/extension/<its version>/<its platform>/<name>.duckdb_extension.gz`, without a token: it
//! is a program that everybody may have, and its signature is what clients trust, not this server. Files
//! that are published while the gateway runs are served at once.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::Body;
use http::{Request, Response, StatusCode, header};
use tower_http::services::ServeDir;

use crate::extension::repository;

/// Where the repository is served.
pub const PATH: &str = "/extension";

/// The pages of a repository; without one they say how there would be.
pub fn pages(directory: PathBuf) -> Router {
    let missing = tower::service_fn({
        let directory = directory.clone();
        move |_: Request<Body>| {
            let directory = directory.clone();
            async move { Ok::<_, Infallible>(not_found(directory).await) }
        }
    });
    let files = ServeDir::new(directory)
        .append_index_html_on_directories(false)
        .not_found_service(missing);
    Router::new().nest_service(PATH, files)
}

async fn not_found(directory: PathBuf) -> Response<Body> {
    let looked = tokio::task::spawn_blocking(move || what_there_is(&directory)).await;
    let mut response = Response::new(Body::from(looked.unwrap_or_default()));
    *response.status_mut() = StatusCode::NOT_FOUND;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn what_there_is(directory: &Path) -> String {
    match repository::builds(directory).as_slice() {
        [] => "no extension is published here; `openduck extension publish` does that\n".to_owned(),
        builds => format!(
            "there is no such file; the extension is published for DuckDB {}\n",
            builds.join(", ")
        ),
    }
}
