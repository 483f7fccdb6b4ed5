//! Lets the unit tests link: the server's symbols exist in the server only, and no unit test calls them.

fn main() {
    println!("cargo::rustc-link-arg=-Wl,--unresolved-symbols=ignore-all");
}
