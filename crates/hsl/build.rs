//! Compiles bpf/hsl.bpf.c with clang, once for each side; src/shim/bpf.rs embeds the objects.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

fn main() {
    for side in 0..2 {
        compile(side);
    }
    for source in fs::read_dir("bpf")
        .expect("bpf/ is part of the crate")
        .flatten()
    {
        println!("cargo::rerun-if-changed={}", source.path().display());
    }
}

fn compile(side: usize) {
    let out = Path::new(&env::var("OUT_DIR").expect("cargo sets OUT_DIR"))
        .join(format!("hsl{side}.bpf.o"));
    let multiarch = format!(
        "/usr/include/{}-linux-gnu",
        env::var("CARGO_CFG_TARGET_ARCH").unwrap()
    );
    let mut clang = Command::new("clang");
    clang
        .args([
            "-O2",
            "-g",
            "-target",
            "bpf",
            "-mcpu=v3",
            "-Wall",
            "-Werror",
            "-fno-strict-aliasing",
        ])
        .arg(format!("-DFF_SIDE={side}"))
        .args(["-I", &multiarch, "-c", "bpf/hsl.bpf.c", "-o"])
        .arg(&out);
    match clang.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("clang could not compile bpf/hsl.bpf.c ({status})"),
        Err(error) => panic!("clang is needed to compile bpf/hsl.bpf.c: {error}; run `make setup`"),
    }
}
