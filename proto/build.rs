//! Compiles the .proto files with protox, so that no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["fortia/world/v1/world.proto", "fortia/tick/v1/tick.proto"];
    println!("cargo:rerun-if-changed=fortia");
    let set = protox::compile(files, ["."])?;
    // Most letters are about edits: they should not be as large as the largest.
    let kinds =
        ["forward", "arrival", "strike", "pay", "unload", "credit"].map(|kind| format!("Letter.kind.{kind}"));
    let large = kinds.into_iter().chain(["Edit.site".into()]).map(|field| format!(".fortia.tick.v1.{field}"));
    let configure = large.fold(tonic_prost_build::configure(), |config, field| config.boxed(field));
    configure.compile_fds(set)?;
    Ok(())
}
