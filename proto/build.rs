//! Compiles the .proto files with protox, so that no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["fortia/world/v1/world.proto", "fortia/tick/v1/tick.proto"];
    println!("cargo:rerun-if-changed=fortia");
    let set = protox::compile(files, ["."])?;
    tonic_prost_build::configure().compile_fds(set)?;
    Ok(())
}
