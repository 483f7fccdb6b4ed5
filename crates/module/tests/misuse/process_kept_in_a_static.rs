//! What is in a static can be seen by every thread.
// error: E0277
// says: cannot be shared between threads safely

static PROCESS: std::sync::OnceLock<module::Process> = std::sync::OnceLock::new();
