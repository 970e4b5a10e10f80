//! Compiles the C++ side against DuckDB's headers, and links DuckDB.
//!
//! DuckDB itself is never compiled here: `scripts/libduckdb` puts one copy of it into the cache.

use std::env;
use std::path::{Path, PathBuf};

const SOURCES: [&str; 10] = [
    "batch_format",
    "database",
    "facts",
    "failure",
    "guard",
    "input",
    "schema",
    "session",
    "stream",
    "tokens",
];

fn main() {
    println!("cargo::rerun-if-env-changed=OPENDUCK_LIBDUCKDB");
    println!("cargo::rerun-if-changed=cpp");
    println!("cargo::rerun-if-changed=src/ffi.rs");
    let library = library();
    let mut build = cxx_build::bridge("src/ffi.rs");
    for source in SOURCES {
        build.file(format!("cpp/{source}.cpp"));
    }
    build
        .std("c++17")
        .include("cpp")
        // Not its own warnings: they are other people's headers.
        .flag("-isystem")
        .flag(library.join("include"))
        .flag_if_supported("-Wno-unused-parameter")
        .warnings_into_errors(true);
    // DuckDB's headers are large; what is compiled from them here is small, and hot in one place only.
    build.opt_level(2).debug(false).compile("openduck_engine");
    println!(
        "cargo::rustc-link-search=native={}",
        library.join("lib").display()
    );
    println!("cargo::rustc-link-lib=static=duckdb_static");
    println!("cargo::rustc-link-lib=dylib=stdc++");
}

/// Where DuckDB is.
fn library() -> PathBuf {
    let place = env::var_os("OPENDUCK_LIBDUCKDB").map_or_else(cached, PathBuf::from);
    let missing = !place.join("include/duckdb.hpp").exists();
    assert!(
        !missing,
        "there is no DuckDB in {}: run scripts/libduckdb, which puts it there",
        place.display()
    );
    place
}

/// Where `scripts/libduckdb` puts it.
fn cached() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map_or_else(
        || Path::new(&env::var_os("HOME").unwrap_or_default()).join(".cache"),
        PathBuf::from,
    );
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    cache.join(format!("openduck/libduckdb-2.0.0-linux-{arch}"))
}
