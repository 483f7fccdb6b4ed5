//! Work on a thread of the kit's own is on another thread all the same.
// error: E0277
// says: cannot be sent between threads safely

fn work(process: module::Process) -> Result<module::Task<bool>, module::Failure> {
    module::Task::start("work", move || process.reload_requested())
}
