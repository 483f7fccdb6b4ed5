//! Only settings become parameters.
// error: E0277
// says: is not satisfied
// says: Setting

static NUMBER: i32 = 1;

module::export! {
    settings: [NUMBER],
}
