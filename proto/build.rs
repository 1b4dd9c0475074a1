//! Compiles the .proto files with protox, so that no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["fortia/world/v1/world.proto", "fortia/tick/v1/tick.proto"];
    println!("cargo:rerun-if-changed=fortia");
    let set = protox::compile(files, ["."])?;
    // Most letters are about edits: they should not be as large as the largest.
    let large = ["forward", "arrival"].map(|kind| format!(".fortia.tick.v1.Letter.kind.{kind}"));
    let configure = large.iter().fold(tonic_prost_build::configure(), |config, kind| config.boxed(kind));
    configure.compile_fds(set)?;
    Ok(())
}
