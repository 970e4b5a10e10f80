//! Generates Rust from the protocol's one file, without protoc.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let file = "openduck/v1/execution.proto";
    println!("cargo::rerun-if-changed={file}");
    let descriptors = protox::compile([file], ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // Batches are passed on as they came: `Bytes` shares them, a vector would copy.
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
