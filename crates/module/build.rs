//! Compiles the one C function of the boundary (`sigsetjmp` cannot be called from Rust).

fn main() {
    println!("cargo::rerun-if-changed=src/boundary/guard.c");
    cc::Build::new()
        .file("src/boundary/guard.c")
        .warnings_into_errors(true)
        .compile("walden_guard");
    // The server's symbols exist in the server only. Unit tests call none of them, but must link.
    println!("cargo::rustc-link-arg=-Wl,--unresolved-symbols=ignore-all");
}
