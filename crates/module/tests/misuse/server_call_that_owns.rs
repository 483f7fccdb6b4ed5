//! An ERROR would jump over the string, and its memory would never be freed.
// error: E0277
// says: the trait `Copy` is not implemented for `String`

fn call(process: module::Process, text: String) -> Result<usize, module::ServerError> {
    module::guard(process, move || text.len())
}
