//! What a server call makes must not have to be freed either.
// error: E0277
// says: the trait `Copy` is not implemented for `String`

fn call(process: module::Process) -> Result<String, module::ServerError> {
    module::guard(process, || String::from("made while the server may jump"))
}
