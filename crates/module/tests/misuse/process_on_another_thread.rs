//! The server may be called on its main thread only.
// error: E0277
// says: cannot be sent between threads safely

fn report(process: module::Process) {
    std::thread::spawn(move || process.segment_size());
}
